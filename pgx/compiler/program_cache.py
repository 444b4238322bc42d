"""Caches of compiled programs, in the process and on disk."""

import fcntl
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pgx.compiler.arguments import CurriedFunction, FunctionCall, NotDescribable
from pgx.compiler.program import Program
from pgx.core.errors import RunError


class Code(Protocol):
    """Compiled function of tensors."""

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def scan(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Compute result, *state = code(*fixed, item, *state) for each item; return the results and the last state."""
        ...


Programs = Sequence[Code]  # one; two for a curried function: of its first arguments, and of the rest


class ProgramCache:
    """Programs of this process, by keys of calls.

    Args:
        make: loads or compiles the programs of a call; returns None if that is impossible.
    """

    def __init__(self, make: Callable[[FunctionCall], Programs | None]) -> None:
        self._make = make
        self._programs: dict[object, Programs | None] = {}
        self._lock = threading.Lock()
        self._alive: list[
            object
        ] = []  # objects whose id is in a key: they are kept, so that no other object gets their id

    def programs(self, call: FunctionCall, key: tuple[object, ...]) -> Programs | None:
        """Return the programs of a call, or None if it cannot be compiled.

        Args:
            call: a call with this key.
            key: everything that determines the code, within this process.
        """
        with self._lock:
            if key not in self._programs:
                self._programs[key] = self._make(call)
                alive = [argument for argument in call.fixed if callable(argument)]
                self._alive.append((call.function, alive))
            return self._programs[key]


class CompilerGuard:
    """Guard that compiles programs until the compiler fails for the first time.

    Args:
        report: receives lines for the console.
        required: a failure of the compiler ends the run; else it is reported once and nothing more is compiled.
    """

    def __init__(self, report: Callable[[str], None], required: bool) -> None:
        self.report = report
        self.required = required
        self._failed = False

    def programs(self, call: FunctionCall, compile: Callable[[], Programs], kept: str) -> Programs | None:
        """Compile the programs of a call, and report the start and the end; return None if that is impossible.

        Args:
            call: the call to compile.
            compile: returns its programs.
            kept: suffix of the first report, which names the folder; may be empty.

        Raises:
            RunError: the compiler failed, and compilation is required.
        """
        if self._failed:
            return None
        from pgx.compiler.jit import CompilerFailed, Uncompilable

        self.report(f"compiling {call.name()}{kept}")
        started = time.perf_counter()
        try:
            programs = compile()
        except Uncompilable as error:
            self.report(not_compiled_message(call, str(error)))
            return None
        except CompilerFailed as error:
            if self.required:
                raise RunError(
                    f"trainer.compile=true: {error} on {call.name()}; set trainer.compile=auto"
                ) from error
            self._failed = True
            self.report(f"{error} on {call.name()}; functions that are not compiled yet run in eager mode")
            return None
        self.report(f"compiled {call.name()} in {time.perf_counter() - started:.0f} s")
        return programs


def not_compiled_message(call: FunctionCall, reason: str) -> str:
    """Return a line that a call has no program, and why."""
    return f"{call.name()} is not compiled and runs in eager mode: {reason}"


class ProgramFolder:
    """Programs in a folder, shared by processes and later runs; missing ones are compiled.

    Args:
        folder: folder of the programs.
        report: receives lines for the console.
        required: a failure of the compiler ends the run.
    """

    def __init__(self, folder: Path, report: Callable[[str], None], required: bool) -> None:
        self.folder = folder
        self.report = report
        self._compiler = CompilerGuard(report, required)

    def programs(self, call: FunctionCall) -> Programs | None:
        """Load or compile the programs of a call; return None if it cannot be compiled.

        Raises:
            RunError: the compiler failed, and compilation is required.
        """
        try:
            description = call.description()
        except NotDescribable as error:
            self.report(
                not_compiled_message(call, f"{error} is an argument whose values have no description")
            )
            return None
        stem = hashlib.sha256(description.encode()).hexdigest()[:32]
        names = ["_first", "_second"] if isinstance(call.function, CurriedFunction) else [""]
        paths = [self.folder / f"{stem}{name}.so" for name in names]
        if all(path.exists() for path in paths):
            return self._load(call, paths)
        with _lock(paths[0]):  # one process compiles, others that need the same program wait
            return (
                self._load(call, paths) if all(path.exists() for path in paths) else self._make(call, paths)
            )

    def _load(self, call: FunctionCall, paths: list[Path]) -> Programs | None:
        try:
            return tuple(map(Program, paths))
        except RuntimeError as error:  # truncated by a full disk, or built for another machine
            self.report(f"{paths[0]} cannot be loaded ({_first_line(error)}): compiling it again")
            return self._make(call, paths)

    def _make(self, call: FunctionCall, paths: list[Path]) -> Programs | None:
        kept = f" (once; kept in {self.folder})"
        return self._compiler.programs(call, lambda: self._compile(call, paths), kept)

    def _compile(self, call: FunctionCall, paths: list[Path]) -> Programs:
        from pgx.compiler.jit import CompilerFailed, compile_libraries

        compile_libraries(call, paths)
        try:
            return tuple(map(Program, paths))
        except RuntimeError as error:
            raise CompilerFailed(
                f"the compiler made a library that cannot be loaded ({_first_line(error)})"
            ) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes for a path; the kernel releases it if the process crashes."""
    with ExitStack() as stack:
        with suppress(OSError):  # the compiler reports a folder that is not writable
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield
