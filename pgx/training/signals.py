"""Signals that stop a run with a checkpoint."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pgx.core.stopping import QuietInterrupt
from pgx.training.trainer import Trainer


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Stop the run with a checkpoint on Ctrl-C, SIGTERM or SIGHUP.

    A synchronous run of one process discards the current iteration; other runs finish it. A second Ctrl-C exits a run
    of one process at once. A second SIGTERM or SIGHUP only repeats the request: their senders (a batch system, a lost
    connection) kill a process that takes too long. Ranks receive Ctrl-C from torchrun, perhaps more than once, and
    never exit at once. A process that ignores SIGHUP (nohup) still ignores it.

    Yields:
        The list of received signals, updated by each.
    """
    several_ranks = trainer.ranks.size > 1
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        first, second_interrupt = not received, signal.SIGINT in received and number == signal.SIGINT
        received.append(number)  # before printing, because the next signal may arrive meanwhile
        trainer.stop_requested = True
        if second_interrupt and not several_ranks:
            raise QuietInterrupt
        if trainer.writes and first:
            how = "" if several_ranks or number != signal.SIGINT else " (Ctrl-C again: exit at once)"
            print(f"\nstopping{how}", file=sys.stderr, flush=True)
        trainer.stop()

    handled = [signal.SIGINT, signal.SIGTERM]
    handled += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    previous = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
