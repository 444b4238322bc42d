"""Standard output and error that neither end a run nor fail on a character.

A reader that closes its end of the pipe, a full disk or a lost terminal makes every later write fail. A run must
survive that: its results are files.
"""

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper, UnsupportedOperation
from pathlib import Path
from typing import Any, TextIO, cast

ENCODE_ERRORS = "pgx.readable"
_ESCAPED = range(0xDC80, 0xDD00)  # code points that stand for bytes of a path that are not text


class GuardedStream:
    """A text stream whose failures are reported once, after which everything written to it is dropped.

    Args:
        stream: where the text goes.
        on_failure: called with the first error, when the stream is already safe to write to; may raise.
    """

    def __init__(self, stream: TextIO, on_failure: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_failure = on_failure
        self._failed = False

    def write(self, text: str) -> int:
        if not self._failed:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._failed:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        # Text that is still buffered is written when the process exits; it must go somewhere that accepts it.
        with suppress(UnsupportedOperation):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, self._stream.fileno())
            os.close(sink)
        self._on_failure(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded(on_output_failure: Callable[[OSError], None]) -> Iterator[None]:
    """Guard standard output and error of this process within the context.

    Characters that a stream's encoding lacks are escaped. Bytes of paths that are not text are written as they are.

    Args:
        on_output_failure: called when standard output fails for the first time. Standard error fails silently.
    """
    before = sys.stdout, sys.stderr
    guard(on_output_failure)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            if stream is not None:
                GuardedStream(stream, ignore).flush()


def guard(on_output_failure: Callable[[OSError], None]) -> None:
    """Guard standard output and error for the rest of this process. Args as in `guarded`."""
    codecs.register_error(ENCODE_ERRORS, _readable)
    sys.stdout = _guard(sys.stdout, on_output_failure)
    sys.stderr = _guard(sys.stderr, ignore)


def utf8(text: str) -> str:
    """Return a text, perhaps of a path, that UTF-8 can encode, whatever encoding this process was started with."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def report_and_continue(error: OSError) -> None:
    """Report on standard error that standard output failed."""
    reason = error.strerror or type(error).__name__
    print(f"pgx: standard output cannot be written ({reason}); the run continues without it", file=sys.stderr)


def ignore(error: OSError) -> None:
    """Drop the report: there is no stream left to write it to."""


def _guard(stream: TextIO | None, on_failure: Callable[[OSError], None]) -> TextIO:
    """Return the stream with a guard around it; one that was closed before this process began is replaced."""
    stream = Path(os.devnull).open("w") if stream is None else stream  # noqa: SIM115
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors=ENCODE_ERRORS)
    return cast(TextIO, GuardedStream(stream, on_failure))


def _readable(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what an encoding lacks: undecodable bytes of a path as they were, other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return b"".join(map(_bytes, lacking)), error.end


def _bytes(character: str) -> bytes:
    if ord(character) in _ESCAPED:
        return bytes([ord(character) - 0xDC00])
    return character.encode("ascii", "backslashreplace")
