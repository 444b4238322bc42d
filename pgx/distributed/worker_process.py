"""Child processes of pgx: fresh interpreters that exit with their parent and report where they hang. Linux.

Imports no torch, since every worker imports this module.
"""

import ctypes
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from pgx.core.errors import RunError
from pgx.core.streams import guard, ignore
from pgx.core.tracebacks import location, parse_frames

# multiprocessing's spawn would import the user's script in every worker. A fresh interpreter needs no
# `if __name__ == "__main__"` there, and does not load torch because the script does.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pgx.distributed.worker_process import run_child; run_child(*sys.argv[2:])"
)
POLL_SECONDS = 0.5  # between checks whether processes are alive while none answers
EXIT_SECONDS = 2.0  # for a process to exit by itself, or to report its stack
_QUIET_SECONDS = 0.25  # without output after which a stack report is complete
_STACK_SIGNAL = signal.SIGUSR1
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

DISCONNECTED = EOFError, BrokenPipeError, ConnectionResetError


class WorkerTraceback(Exception):
    """Traceback of a worker process, as the cause of an error in its parent."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0].rstrip()}"


class WorkerProcess:
    """Child process that runs one function, and the channel to it.

    Sockets wake a process as fast as pipes, semaphores and eventfd (60 to 100 us for two workers and back), and also
    report that the other end exited. Busy waiting would take a core from a worker.

    Args:
        target: function `module:name`, called with the other end of the channel and `descriptors`. It may let
            the errors of a closed channel (`DISCONNECTED`) pass.
        name: for error messages; "{pid}" is replaced by the process id.
        descriptors: open files that the child inherits under the same numbers.
    """

    def __init__(self, target: str, name: str, descriptors: Sequence[int] = ()) -> None:
        lifeline, self._lifeline = os.pipe()
        self._stack_reports, stack_reports = os.pipe()
        self.channel, channel = Pipe()
        inherited = [channel.fileno(), lifeline, stack_reports, *descriptors]
        # The kernel ends a tied process with the thread that started it.
        tied = threading.current_thread() is threading.main_thread()
        self.process = subprocess.Popen(
            [
                sys.executable,
                *_interpreter_flags(),
                "-c",
                _START,
                json.dumps([*map(str, sys.path)], allow_nan=False),
                target,
                str(int(tied)),
                *map(str, inherited),
            ],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            process_group=0,  # the terminal's Ctrl-C does not reach it
        )
        channel.close()
        os.close(lifeline)
        os.close(stack_reports)
        self.name = name.replace("{pid}", str(self.process.pid))
        self._owner = os.getpid()
        self._open = [self._lifeline, self._stack_reports]
        self._readable = select.poll()
        self._readable.register(self.channel.fileno(), select.POLLIN)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exited(self) -> bool:
        return self.process.poll() is not None

    def send(self, message: object) -> None:
        """Send an object. Messages to an exited process are dropped; `receive` reports the exit."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(message)

    def send_by_value(self, message: object) -> None:
        """Send an object with the classes and functions of the script or notebook that it uses. As `send`."""
        import cloudpickle  # here, as workers import this module and do not need it

        with suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send_bytes(cloudpickle.dumps(message))

    def send_byte(self, byte: bytes) -> None:
        """Send a byte without pickling it. As `send`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            os.write(self.channel.fileno(), byte)

    def poll(self, seconds: float) -> bool:
        """Wait at most so long for a message, and return whether there is one (or the process closed the channel)."""
        return bool(self._readable.poll(seconds * 1000))

    def wait(self, timeout: float, waited: float = 0.0, group: Sequence["WorkerProcess"] = ()) -> float:
        """Wait for a message.

        Time is counted in polls that found nothing. A machine that slept, or processes that were all stopped for a
        while, add one poll at most.

        Args:
            timeout: seconds, of which `waited` have passed already.
            waited: seconds that other processes of the group were waited for since all were asked.
            group: other processes whose exit ends the wait.

        Returns:
            `waited` and the seconds of this wait.

        Raises:
            RunError: a process of the group exited; or the time is over and this process was killed.
        """
        interval = min(POLL_SECONDS, timeout)
        while not self.poll(interval):
            for worker in group:
                if worker.exited:
                    raise worker.exit_error()
            waited += interval
            if waited >= timeout:
                raise self.hang_error("has not answered", timeout)
        return waited

    def receive(self) -> Any:
        """Return the next object that the process sent, waiting for it.

        Raises:
            RunError: the process exited.
        """
        try:
            return self.channel.recv()
        except (EOFError, ConnectionResetError):
            raise self.exit_error() from None

    def receive_byte(self) -> bytes:
        """Return the next byte that the process sent with `os.write`. As `receive`."""
        try:
            byte = os.read(self.channel.fileno(), 1)
        except ConnectionResetError:
            byte = b""
        if not byte:
            raise self.exit_error()
        return byte

    def exit_reason(self) -> str:
        """Describe how a process that closed its channel exited. It is killed if it did not."""
        try:
            code = self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
        if code == -signal.SIGKILL:
            how += "; the system may have run out of memory"
        return how

    def exit_error(self) -> RunError:
        """Return the error that says how the process exited."""
        return RunError(f"{self.name} {self.exit_reason()}")

    def kill_hanging(self) -> str:
        """Kill the process, and return the tracebacks of its threads, most recent calls first; "" if it wrote none."""
        self._read_stack_report(0.0)  # a report that nobody read
        self.process.send_signal(_STACK_SIGNAL)
        report = self._read_stack_report(EXIT_SECONDS)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # a system call may keep it from exiting
            self.process.wait(EXIT_SECONDS)
        return report

    def hang_error(self, problem: str, seconds: float) -> RunError:
        """Kill the process, and return the error that says at which line it hangs.

        Args:
            problem: "has not answered", for example.
            seconds: since when, the value of env.worker_timeout.
        """
        report = self.kill_hanging()
        where = f", {found}" if (found := location(parse_frames(report))) else ""
        error = RunError(
            f"{self.name} {problem} for {seconds:g} s{where}; if it needs more time, "
            f"raise env.worker_timeout={seconds:g}"
        )
        error.__cause__ = WorkerTraceback(report) if report else None
        return error

    def _read_stack_report(self, seconds: float) -> str:
        """Return what arrives within so many seconds and in short intervals after it."""
        readable = select.poll()
        readable.register(self._stack_reports, select.POLLIN)
        report = b""
        while readable.poll(1000 * seconds) and (more := os.read(self._stack_reports, 65536)):
            report, seconds = report + more, _QUIET_SECONDS
        return report.decode(errors="replace")

    def hang_up(self) -> None:
        """Close the channel. The process exits when it next reads or writes."""
        self.channel.close()

    def abandon(self) -> None:
        """Close the channel and the lifeline. The process exits at once, without cleanup."""
        self.channel.close()
        if self._lifeline in self._open:
            self._open.remove(self._lifeline)
            os.close(self._lifeline)

    def release(self) -> None:
        """Close the files of a process that exited."""
        self.channel.close()
        while self._open:
            os.close(self._open.pop())

    @property
    def owned(self) -> bool:
        """Return whether this process started the worker. A fork of that process must not end it."""
        return self._owner == os.getpid()


def stop(
    workers: Sequence[WorkerProcess], request: Callable[[WorkerProcess], None] = WorkerProcess.hang_up
) -> None:
    """Ask workers to exit, kill those that take too long, and close their files. Does nothing in a fork.

    Args:
        workers: started by this process.
        request: asks one of them to exit.
    """
    own = [worker for worker in workers if worker.owned]
    for worker in own:
        request(worker)
    deadline = time.monotonic() + EXIT_SECONDS
    for worker in own:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    for worker in own:
        worker.release()


def _interpreter_flags() -> list[str]:
    """Return -P, since the child's path is set explicitly, and the flags that change assertions and warnings."""
    return ["-P", *["-O"] * sys.flags.optimize, *(f"-W{option}" for option in sys.warnoptions)]


def run_child(
    target: str, tied: str, channel: str, lifeline: str, stack_reports: str, *descriptors: str
) -> None:
    """Run the target of a `WorkerProcess` in the child. Arguments come from its command line."""
    guard(ignore)
    # faulthandler writes from its signal handler, so it also reports where native code holds the interpreter lock.
    faulthandler.register(_STACK_SIGNAL, int(stack_reports), all_threads=True)
    # The parent handles Ctrl-C: it needs its workers to finish its iteration.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inherited = [int(descriptor) for descriptor in descriptors]
    for descriptor in (int(channel), int(lifeline), int(stack_reports), *inherited):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_exit_with_parent, args=(int(lifeline),), daemon=True).start()
    if tied == "1" and sys.platform == "linux":
        # The thread above does not run while native code holds the interpreter lock.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    module, _, function = target.partition(":")
    with suppress(*DISCONNECTED):
        getattr(importlib.import_module(module), function)(Connection(int(channel)), *inherited)


def _exit_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: returns when the parent closes its end or exits
    os._exit(0)
