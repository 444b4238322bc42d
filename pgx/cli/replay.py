"""`pgx replay`: what a run failed of, once more."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import (
    Command,
    add_trust,
)
from pgx.core.errors import RunError

if TYPE_CHECKING:
    from pgx.config.run_config import RunConfig
    from pgx.training.trainer import Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="RUN/post_mortem/iteration_...")
    add_trust(parser, "the run's config")


def run(options: argparse.Namespace) -> int:
    return replay(Path(options.bundle), options.trust)


COMMAND = Command(
    "replay",
    "make again what a run failed of (NaN, infinity), from its post-mortem",
    "Make again what a run failed of (docs/reliability.md).",
    add_arguments,
    run,
)


def replay(bundle: Path, trust: bool) -> int:
    """Make the failure of a post-mortem again and say where it is; returns 0 if it came about, 1 if it did not."""
    from pgx.cli.run_folder import load_played
    from pgx.runs.versions import differences
    from pgx.runs.writer import complain
    from pgx.training.nan_debug.post_mortem import read_failure

    told = read_failure(bundle)
    config = load_played(bundle, trust)
    for difference in differences(told["versions"]):
        complain(difference)
    print(f"{config.label} on {config.env.id}: {told['error']}")
    with TemporaryDirectory() as folder:
        trainer = _trainer(config, Path(folder) / "run")
        try:
            again = _update(trainer, bundle) if told["kind"] == "update" else _run(trainer, bundle, told)
        finally:
            trainer.runner.close()
    if again is None:
        print("made again, it does not fail")
        return 1
    print(f"made again: {again}")
    return 0


def _trainer(config: RunConfig, run_dir: Path) -> Trainer:
    """As it was, but that it is silent and writes into a folder that is thrown away."""
    from pgx.config.run_config import with_values
    from pgx.training.build import build

    silent = {"run_dir": str(run_dir), "logger.console": "off", "logger.tensorboard": False}
    return build(with_values(config, silent))


def _update(trainer: Trainer, bundle: Path) -> str | None:
    """The update alone, as it is written rather than compiled."""
    from pgx.training.nan_debug.post_mortem import read_attempt

    return trainer.diagnose(read_attempt(bundle))


def _run(trainer: Trainer, bundle: Path, told: dict[str, Any]) -> str | None:
    """The run from its last checkpoint, or from the start where there was none, to the iteration that failed."""
    from pgx.core.nonfinite import NotFiniteError
    from pgx.runs.checkpoints import unpacked

    checkpoint = bundle / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load_state_dict(unpacked(checkpoint))
    done = trainer.counters.iterations
    print(f"running iterations {done + 1} to {told['iteration']} again", flush=True)
    trainer.on_progress = lambda steps, recent: trainer.counters.iterations >= told["iteration"]
    try:
        trainer.train()
    except RunError as error:
        if isinstance(error.__cause__, NotFiniteError):
            return f"iteration {trainer.counters.iterations + 1}: {error.__cause__}"
        raise
    return None
