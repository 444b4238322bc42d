"""A worker's side of living and dying with its parent, and of saying where it is.

What this file imports every worker imports: no torch.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
ASK = signal.SIGUSR1  # where are you?


def show_when_asked(descriptor: int) -> None:
    """From now on this process writes where its threads are to a pipe when it is asked, whatever it is doing.

    What does it is no Python: it also runs where the code of an extension neither returns nor lets other threads go on.
    """
    faulthandler.register(ASK, descriptor, all_threads=True)


def end_with_parent(lifeline: int, descriptors: Sequence[int]) -> None:
    """From now on this process ends when its parent does, and does not hear the terminal.

    Args:
        lifeline: end of a pipe that nothing is ever written to and of which the parent alone has the other end.
        descriptors: what else was inherited, for this process and not for programs that it starts.
    """
    # A Ctrl-C is the parent's to answer: it finishes its iteration, for which it needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (lifeline, *descriptors):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(0)  # whatever this process is doing


def let_the_kernel_end_this() -> None:
    """For what would not let `_end_with` run, deep in a library of its own. Only where the parent's thread stays."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
