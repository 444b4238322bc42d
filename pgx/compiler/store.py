"""Programs on disk: found by what they are made from, or made once and kept."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pgx.compiler.arguments import Undescribed
from pgx.compiler.call import Call, Curried
from pgx.compiler.known import Attempts, Programs, refusal
from pgx.compiler.program import Program


class Store:
    """Programs from a folder, or new.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
        required: a compiler that fails ends the run.
    """

    def __init__(self, folder: Path, report: Callable[[str], None], required: bool) -> None:
        self.folder = folder
        self.report = report
        self._attempts = Attempts(report, required)

    def programs(self, call: Call) -> Programs | None:
        """The code of such calls, two of a curried function: of what is given first, and of what is left.

        None where there can be none.

        Raises:
            RunError: the compiler failed, and it is required.
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
            self.report(f"{paths[0]} cannot be loaded ({_first_line(error)}): compiling it again")
            return self._made(call, paths)

    def _made(self, call: Call, paths: list[Path]) -> Programs | None:
        kept = f" (once; kept in {self.folder})"
        return self._attempts.programs(call, lambda: self._compile(call, paths), kept)

    def _compile(self, call: Call, paths: list[Path]) -> Programs:
        from pgx.compiler.compiler import CompilerFailed, compile_libraries

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
