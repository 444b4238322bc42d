"""One run, from its config to its last words: alone, or by all ranks together."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pgx.cli.printing import announce, hints, outcome
from pgx.config.compose import ROOT
from pgx.config.run_config import RunConfig, typed
from pgx.config.suggestions import explain
from pgx.core.agent import State
from pgx.core.errors import Preempted, RunError, UserError
from pgx.core.paths import config_dir
from pgx.core.ranks import Ranks
from pgx.core.stopping import QuietInterrupt
from pgx.distributed.torchrun import leave, speaks_first
from pgx.training.build import build
from pgx.training.trainer import Trainer


@dataclass(frozen=True)
class Order:
    """A run that all ranks make, as rank 0 read it."""

    values: Mapping[str, Any]  # of its config
    state: State | None  # of the checkpoint that it goes on from


class Lead:
    """Rank 0, which alone reads the command line and files, and tells the others what to do."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._told = False

    def run(self, config: RunConfig, state: State | None) -> dict[str, Any]:
        """Make a run with all ranks, from a checkpoint's state or from the start; returns its summary."""
        if self.ranks.size > 1:
            self._told = True
            self.ranks.gather(Order(config.values, state))
        return _run(config, state, self.ranks)

    def until_done(self, work: Callable[[], int]) -> int:
        """Do the work; where no run comes of it the others are told that there is nothing to do."""
        try:
            return work()
        finally:
            if self.ranks.size > 1 and not self._told:
                self.ranks.gather(None)


def follow(ranks: Ranks) -> int:
    """What every rank but 0 does; returns the exit code."""
    order: Order | None = ranks.gather(None)[0]
    if order is None:
        return 0
    if _run(typed(order.values), order.state, ranks)["status"] == "interrupted":
        raise QuietInterrupt
    return 0


def report_first_error(ranks: Ranks, work: Callable[[], int]) -> int:
    """Do one rank's work; of all ranks that fail, the first raises what it fails of, the others end without a word."""
    try:
        code = work()
    except Exception as error:
        message = f"rank {ranks.rank}: {error}" if ranks.rank > 0 else str(error)
        if not speaks_first(message):
            sys.exit(getattr(error, "exit_code", RunError.exit_code))
        if ranks.rank > 0 and isinstance(error, RunError):
            raise RunError(message) from error
        raise
    leave()
    return code


def _run(config: RunConfig, state: State | None, ranks: Ranks) -> dict[str, Any]:
    trainer = _built(config, ranks)
    if state is not None:
        trainer.load_state_dict(state)
    if ranks.rank == 0:
        return _trained(trainer, config)
    with _interruptible(trainer):
        return trainer.train()


def _built(config: RunConfig, ranks: Ranks) -> Trainer:
    """The trainer of this rank; what any rank finds wrong is for rank 0 to say."""
    trainer, own = None, None
    try:
        trainer = build(config, ranks)
    except UserError as error:
        own = error
    problems = ranks.gather(None if own is None else own.problems)
    if trainer is not None and not any(problems):
        return trainer
    if ranks.rank > 0:
        sys.exit(UserError.exit_code)
    if own is not None:
        raise own
    raise UserError(*(f"rank {rank}: {line}" for rank, lines in enumerate(problems) for line in lines or ()))


def _trained(trainer: Trainer, config: RunConfig) -> dict[str, Any]:
    """Train, and say what is trained and what came of it.

    Raises:
        Preempted: SIGTERM or SIGHUP ended it, with a checkpoint.
    """
    announce(trainer, config)
    started = time.monotonic()
    with _interruptible(trainer) as asked:
        summary = trainer.train()
    print(outcome(summary, time.monotonic() - started))
    print("\n".join(hints(trainer.run_dir, config.env.id, summary["status"])))
    preempted = {signal.SIGTERM, signal.SIGHUP} & set(asked) and trainer.ranks.size == 1
    if summary["status"] == "interrupted" and preempted:
        raise Preempted
    return summary


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[list[int]]:
    """End the run with a checkpoint on Ctrl-C, SIGTERM and SIGHUP.

    A synchronous run of one process ends within its iteration, which is undone; others finish it. The second Ctrl-C
    ends any run of one process at once. SIGTERM and SIGHUP repeat the first request: who sends them (a batch system, a
    lost connection) kills what takes too long. Ranks get a Ctrl-C from torchrun, perhaps more than once, and never end
    at once. A process that ignores SIGHUP (nohup) goes on ignoring it.

    Yields:
        The signals that came.
    """
    together = trainer.ranks.size > 1
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        told, again = bool(asked), signal.SIGINT in asked
        asked.append(number)  # before a word is said: the next may come while this is
        trainer.stop_requested = True
        if number == signal.SIGINT and again and not together:
            raise QuietInterrupt
        if trainer.writes and not told:
            how = "" if together or number != signal.SIGINT else " (Ctrl-C again: at once)"
            print(f"\nstopping{how}", file=sys.stderr, flush=True)
        trainer.stop()

    heard = [signal.SIGINT, signal.SIGTERM]
    heard += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    previous = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_hydra(arguments: list[str], job: Callable[[DictConfig], None]) -> None:
    """Run `hydra.main` with these arguments.

    Raises:
        UserError: Hydra rejects an argument, or cannot write the job's folder.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    run = hydra.main(config_path=str(config_dir()), config_name=ROOT, version_base="1.3")(job)
    sys.argv = ["pgx train", *arguments]
    with _hydra_errors():
        run()


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """Convert errors of Hydra, and of the folder that it makes, to user errors."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"run_dir: cannot write {error.filename}: {error.strerror}") from error
