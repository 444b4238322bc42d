"""Programs on disk: found by what they are made from, or made once and kept."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pgx.engines.arguments import Undescribed
from pgx.engines.call import Call, Curried
from pgx.engines.known import Programs, compiled, refusal
from pgx.engines.program import Program


class Store:
    """Programs from a folder, or new.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report

    def programs(self, call: Call) -> Programs | None:
        """The code of such calls, two of a curried function: of what is given first, and of what is left.

        None where there can be none.
        """
        try:
            description = call.description()
        except Undescribed as error:
            self.report(refusal(call, f"{error} is an argument whose values have no description"))
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
        return compiled(
            call, lambda: self._compile(call, paths), self.report, f" (once; kept in {self.folder})"
        )

    def _compile(self, call: Call, paths: list[Path]) -> Programs:
        from pgx.engines.compiler import compile_libraries

        compile_libraries(call, paths)
        return tuple(map(Program, paths))


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """While no other process is, for the same path; the kernel's lock goes with a process that dies."""
    with ExitStack() as stack:
        with suppress(OSError):  # where nothing can be written the compiler will say so
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield
