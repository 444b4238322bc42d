"""Programs on disk: found by what they are made from, or made once and kept."""

import fcntl
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pgx.engines.arguments import Undescribed
from pgx.engines.call import Call, Curried
from pgx.engines.program import Program

Programs = tuple[Program, ...]  # of a curried function two: of what is given first, and of what is left


class Store:
    """Programs of calls, from this process, from a folder, or new.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report
        self._programs: dict[object, Programs | None] = {}
        self._one_at_a_time = threading.Lock()
        self._alive: list[object] = []  # what `_programs` knows by identity, which must not pass to another

    def programs(self, call: Call, key: tuple[object, ...]) -> Programs | None:
        """The code of such a call; None where there can be none.

        Args:
            call: one of its kind.
            key: what tells the kind apart within a process.
        """
        with self._one_at_a_time:
            if key not in self._programs:
                self._programs[key] = self._found_or_made(call)
                alive = [argument for argument in call.fixed if callable(argument)]
                self._alive.append((call.function, alive))
            return self._programs[key]

    def _found_or_made(self, call: Call) -> Programs | None:
        try:
            description = call.description()
        except Undescribed as error:
            self._refuse(call.name(), f"{error} is an argument whose values have no description")
            return None
        stem = hashlib.sha256(description.encode()).hexdigest()[:32]
        names = ["_first", "_second"] if isinstance(call.function, Curried) else [""]
        paths = [self.folder / f"{stem}{name}.so" for name in names]
        if all(path.exists() for path in paths):
            return self._found(call, paths)
        with _alone_at(paths[0]):  # of processes that need the same program one makes it
            return (
                self._found(call, paths) if all(path.exists() for path in paths) else self._made(call, paths)
            )

    def _found(self, call: Call, paths: list[Path]) -> Programs | None:
        try:
            return tuple(map(Program, paths))
        except RuntimeError as error:  # cut short by a full disk, or of another kind of machine
            self.report(f"{paths[0]} cannot be loaded ({str(error).splitlines()[0]}): compiling it again")
            return self._made(call, paths)

    def _made(self, call: Call, paths: list[Path]) -> Programs | None:
        from pgx.engines.compiler import Uncompilable, compile_call, compile_halves

        self.report(f"compiling {call.name()} (once; kept in {self.folder})")
        started = time.perf_counter()
        try:
            if len(paths) == 1:
                compile_call(call, paths[0])
            else:
                compile_halves(call, paths[0], paths[1])
        except Uncompilable as error:
            self._refuse(call.name(), str(error))
            return None
        self.report(f"compiled {call.name()} in {time.perf_counter() - started:.0f} s")
        return tuple(map(Program, paths))

    def _refuse(self, name: str, reason: str) -> None:
        self.report(f"{name} runs as it is written: {reason}")


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """While no other process is, for the same path; the kernel's lock goes with a process that dies."""
    with ExitStack() as stack:
        with suppress(OSError):  # where nothing can be written the compiler will say so
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield
