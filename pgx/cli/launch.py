"""Start runs: through `hydra.main`, in one process or on all ranks of torchrun."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pgx.api.console import outcome_line, print_run_settings
from pgx.api.run_folder import folder_of
from pgx.cli.printing import next_commands
from pgx.config.run_config import RunConfig, to_run_config
from pgx.config.suggestions import one_line_message
from pgx.core.agent import State
from pgx.core.errors import Preempted, RunError, UserError
from pgx.core.paths import ROOT_CONFIG, config_dir
from pgx.core.ranks import Ranks
from pgx.core.stopping import QuietInterrupt
from pgx.distributed.torchrun import claim_first_failure, leave_process_group
from pgx.training.build import build
from pgx.training.signals import stop_on_signals
from pgx.training.trainer import Trainer


@dataclass(frozen=True)
class RunRequest:
    """Message from rank 0 to the worker ranks: the run to train."""

    values: Mapping[str, Any]  # of the run's config
    state: State | None  # of the checkpoint to resume from; None: start from scratch


class RunLauncher:
    """Launcher of a run on all ranks. It exists on rank 0, which alone reads the command line and files."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._workers_wait = ranks.size > 1

    def run(self, config: RunConfig, state: State | None) -> dict[str, Any]:
        """Train with all ranks, from a checkpoint's state or from scratch; return the summary."""
        self._send(RunRequest(config.values, state))
        return _run(config, state, self.ranks)

    def release_workers(self) -> None:
        """Let the worker ranks exit if no run was started."""
        self._send(None)

    def _send(self, request: RunRequest | None) -> None:
        if self._workers_wait:
            self._workers_wait = False
            self.ranks.gather(request)


def run_rank0(ranks: Ranks, work: Callable[[RunLauncher], int]) -> int:
    """Return the exit code of `work`, which may start one run; afterwards no worker rank waits for a request."""
    launcher = RunLauncher(ranks)
    try:
        return work(launcher)
    finally:
        launcher.release_workers()


def run_worker_rank(ranks: Ranks) -> int:
    """Train the run that rank 0 requests, if any; return the exit code."""
    request: RunRequest | None = ranks.gather(None)[0]
    if request is None:
        return 0
    if _run(to_run_config(request.values), request.state, ranks)["status"] == "interrupted":
        raise QuietInterrupt
    return 0


def report_first_error(ranks: Ranks, work: Callable[[], int]) -> int:
    """Return the exit code of one rank's work. Only the first failing rank reports its error; others exit silently."""
    try:
        code = work()
    except Exception as error:
        message = f"rank {ranks.rank}: {error}" if ranks.rank > 0 else str(error)
        if not claim_first_failure(message):
            sys.exit(getattr(error, "exit_code", RunError.exit_code))
        if ranks.rank > 0 and isinstance(error, RunError):
            raise RunError(message) from error
        raise
    leave_process_group()
    return code


def _run(config: RunConfig, state: State | None, ranks: Ranks) -> dict[str, Any]:
    trainer = _build(config, ranks)
    if state is not None:
        trainer.load_state_dict(state)
    if ranks.rank == 0:
        return _train_and_report(trainer, config)
    with stop_on_signals(trainer):
        return trainer.train()


def _build(config: RunConfig, ranks: Ranks) -> Trainer:
    """Build the trainer of this rank. Rank 0 reports the problems of all ranks; the others exit."""
    trainer, failure = None, None
    try:
        trainer = build(config, ranks)
    except UserError as error:
        failure = error
    problems = ranks.gather(None if failure is None else failure.problems)
    if trainer is not None and not any(problems):
        return trainer
    if ranks.rank > 0:
        sys.exit(UserError.exit_code)
    if failure is not None:
        raise failure
    raise UserError(*(f"rank {rank}: {line}" for rank, lines in enumerate(problems) for line in lines or ()))


def _train_and_report(trainer: Trainer, config: RunConfig) -> dict[str, Any]:
    """Train; print the run's settings before, and its result and next commands after.

    Raises:
        Preempted: SIGTERM or SIGHUP stopped the run, which wrote a checkpoint.
    """
    print_run_settings(trainer, config)
    started = time.monotonic()
    with stop_on_signals(trainer) as received:
        summary = trainer.train()
    print(outcome_line(summary, time.monotonic() - started))
    print("\n".join(next_commands(folder_of(config), config.env.id, summary["status"])))
    preempted = {signal.SIGTERM, signal.SIGHUP} & set(received) and trainer.ranks.size == 1
    if summary["status"] == "interrupted" and preempted:
        raise Preempted
    return summary


def run_hydra(arguments: list[str], job: Callable[[DictConfig], None]) -> None:
    """Run `hydra.main` with these arguments.

    Raises:
        UserError: Hydra rejects an argument, or cannot write the job's folder.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    run = hydra.main(config_path=str(config_dir()), config_name=ROOT_CONFIG, version_base="1.3")(job)
    sys.argv = ["pgx train", *arguments]
    with _hydra_errors():
        run()


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """Convert errors of Hydra, and of the folder that it creates, to user errors."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line_message(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"run_dir: cannot write {error.filename}: {error.strerror}") from error
