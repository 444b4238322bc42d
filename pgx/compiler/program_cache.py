"""The programs that a process has, and attempts to compile new ones.

Programs on disk: found by what they are made from, or made once and kept.
"""

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
    """A compiled function of tensors."""

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def scan(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """result, *state = code(*fixed, item, *state) for each item; returns the results, and the last state."""
        ...


Programs = Sequence[Code]  # of a curried function two: of what is given first, and of what is left


class ProgramCache:
    """Programs of calls, one for each kind.

    Args:
        make: finds or makes those of a call; None where there can be none.
    """

    def __init__(self, make: Callable[[FunctionCall], Programs | None]) -> None:
        self._make = make
        self._programs: dict[object, Programs | None] = {}
        self._one_at_a_time = threading.Lock()
        self._alive: list[object] = []  # what `_programs` knows by identity, which must not pass to another

    def programs(self, call: FunctionCall, key: tuple[object, ...]) -> Programs | None:
        """The code of such a call; None where there can be none.

        Args:
            call: one of its kind.
            key: what tells the kind apart within a process.
        """
        with self._one_at_a_time:
            if key not in self._programs:
                self._programs[key] = self._make(call)
                alive = [argument for argument in call.fixed if callable(argument)]
                self._alive.append((call.function, alive))
            return self._programs[key]


class CompilerGuard:
    """Compiles programs until the compiler fails for the first time.

    Args:
        report: told, in lines for people.
        required: a compiler that fails ends the run; else the run says so once and compiles nothing more.
    """

    def __init__(self, report: Callable[[str], None], required: bool) -> None:
        self.report = report
        self.required = required
        self._failed = False

    def programs(self, call: FunctionCall, compile: Callable[[], Programs], kept: str) -> Programs | None:
        """New programs of a call, with a word about them before and after; None where there can be none.

        Args:
            call: what they are of.
            compile: makes them.
            kept: where they are kept, behind what is said first.

        Raises:
            RunError: the compiler failed, and it is required.
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
                    f"trainer.compile=true: {error} on {call.name()}; trainer.compile=auto runs without"
                ) from error
            self._failed = True
            self.report(f"{error} on {call.name()}; what is not compiled yet runs in eager mode")
            return None
        self.report(f"compiled {call.name()} in {time.perf_counter() - started:.0f} s")
        return programs


def not_compiled_message(call: FunctionCall, reason: str) -> str:
    """Say in one line that a call has no program and why."""
    return f"{call.name()} is not compiled and runs in eager mode: {reason}"


class ProgramFolder:
    """Programs from a folder, or new.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
        required: a compiler that fails ends the run.
    """

    def __init__(self, folder: Path, report: Callable[[str], None], required: bool) -> None:
        self.folder = folder
        self.report = report
        self._attempts = CompilerGuard(report, required)

    def programs(self, call: FunctionCall) -> Programs | None:
        """The code of such calls, two of a curried function: of what is given first, and of what is left.

        None where there can be none.

        Raises:
            RunError: the compiler failed, and it is required.
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
            return self._found(call, paths)
        with _alone_at(paths[0]):  # of processes that need the same program one makes it
            return (
                self._found(call, paths) if all(path.exists() for path in paths) else self._made(call, paths)
            )

    def _found(self, call: FunctionCall, paths: list[Path]) -> Programs | None:
        try:
            return tuple(map(Program, paths))
        except RuntimeError as error:  # cut short by a full disk, or of another kind of machine
            self.report(f"{paths[0]} cannot be loaded ({_first_line(error)}): compiling it again")
            return self._made(call, paths)

    def _made(self, call: FunctionCall, paths: list[Path]) -> Programs | None:
        kept = f" (once; kept in {self.folder})"
        return self._attempts.programs(call, lambda: self._compile(call, paths), kept)

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
def _alone_at(path: Path) -> Iterator[None]:
    """While no other process is, for the same path; the kernel's lock goes with a process that dies."""
    with ExitStack() as stack:
        with suppress(OSError):  # where nothing can be written the compiler will say so
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield
