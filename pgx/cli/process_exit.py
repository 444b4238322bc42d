"""How signals end this process while no run handles them: as it starts, and as it exits."""

import atexit
import os
import signal
from types import FrameType
from typing import NoReturn

# What a shell reports for a process that a signal ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def report_sigterm() -> None:
    """End on SIGTERM with one line and the exit code 143, until a run or `keep_exit_code` sets another handler.

    Nothing is cleaned up, as with the default of SIGTERM. An exception would pass through whatever is being imported,
    which may catch it.
    """
    signal.signal(signal.SIGTERM, _end_on_sigterm)


def keep_exit_code(code: int | str | None) -> None:
    """Exit with this code whatever signal arrives from now on.

    Joining threads and other work at exit ends at the first signal. In the last part of the exit Python resets its own
    handlers, so that SIGINT would end the process with another code; there it is ignored.

    Args:
        code: as `sys.exit` takes it.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os._exit(code if isinstance(code, int) else int(code is not None))

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _end_on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # torchrun sends SIGTERM to all ranks
        os.write(2, b"pgx: ended by SIGTERM\n")  # a handler may have interrupted a write to sys.stderr
    os._exit(TERMINATED)
