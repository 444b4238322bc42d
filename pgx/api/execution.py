"""Execution of a run within a Python program."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from pgx.api.console import outcome_line, print_run_settings
from pgx.config.run_config import RunConfig
from pgx.training.signals import stop_on_signals
from pgx.training.trainer import Trainer


def execute(trainer: Trainer, config: RunConfig, prints: bool) -> dict[str, Any]:
    """Train; print the run's settings before and its result after. Return the summary.

    In the main thread, Ctrl-C, SIGTERM and SIGHUP stop the run with a checkpoint. Then the program's own handler of the
    signal is called, by default with a KeyboardInterrupt or the end of the program.

    Args:
        trainer: of the run.
        config: of the run.
        prints: whether to print.
    """
    if prints:
        print_run_settings(trainer, config)
    started = time.monotonic()
    in_main_thread = threading.current_thread() is threading.main_thread()
    with stop_on_signals(trainer) if in_main_thread else nullcontext(list[int]()) as received:
        summary = trainer.train()
    if prints:
        print(outcome_line(summary, time.monotonic() - started), flush=True)
    if received:
        signal.raise_signal(received[0])
    return summary


@contextmanager
def kept_torch_threads() -> Iterator[None]:
    """Restore the number of torch's threads, which a run sets, after the context."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
