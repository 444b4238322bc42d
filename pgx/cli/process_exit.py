"""Signal handling while the process starts and exits, when no run handles signals."""

import atexit
import os
import signal
from types import FrameType
from typing import NoReturn

# Exit codes that a shell reports for a process that a signal ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def report_sigterm() -> None:
    """Exit on SIGTERM with one line and exit code 143, until a run or `keep_exit_code` sets another handler.

    Nothing is cleaned up, as with the default handler. An exception would not do: a module that is being imported may
    catch it.
    """
    signal.signal(signal.SIGTERM, _exit_on_sigterm)


def keep_exit_code(code: int | str | None) -> None:
    """Keep the exit code of this process, whatever signal it receives from now on.

    The first signal skips the remaining work at exit, such as joining threads. Late in the exit Python resets its
    handlers, and SIGINT would change the exit code; from there on SIGINT is ignored.

    Args:
        code: as for `sys.exit`.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os._exit(code if isinstance(code, int) else int(code is not None))

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _exit_on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # torchrun sends SIGTERM to all ranks
        os.write(2, b"pgx: ended by SIGTERM\n")  # a handler may have interrupted a write to sys.stderr
    os._exit(TERMINATED)
