"""Signals that arrive while a command starts and while its process exits."""

import signal
import subprocess
import sys

import pytest

SIGNALLED = """
import os, signal, sys
import pgx.__main__, pgx.cli.main
pgx.cli.main.main = lambda: os.kill(os.getpid(), int(sys.argv[1]))
pgx.__main__.run_process()
"""

# The object is collected after Python has reset its signal handlers.
SIGNALLED_LATE = """
import os, signal, sys
from pgx.cli.process_exit import keep_exit_code
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT):
        kill(pid, number)
kept = Late()
keep_exit_code(3)
sys.exit(3)
"""

SIGNALLED_AT_EXIT = """
import atexit, os, signal, sys
from pgx.cli.process_exit import keep_exit_code
keep_exit_code(3)
atexit.register(os.kill, os.getpid(), int(sys.argv[1]))
sys.exit(3)
"""


def ended(script: str, number: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, str(int(number))], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGTERM, 143, "pgx: ended by SIGTERM"), (signal.SIGINT, 130, "pgx: interrupted")],
)
def test_a_signal_before_a_run_handles_it_is_one_line(number: int, code: int, line: str) -> None:
    done = ended(SIGNALLED, number)
    assert (done.returncode, done.stderr) == (code, f"{line}\n")


@pytest.mark.parametrize("script", [SIGNALLED_AT_EXIT, SIGNALLED_LATE])
def test_ctrl_c_while_the_process_exits_does_not_change_its_code(script: str) -> None:
    done = ended(script, signal.SIGINT)
    assert (done.returncode, done.stderr) == (3, "")
