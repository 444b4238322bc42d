"""`pgx replay`: reproduce a failed update."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import Command, add_trust
from pgx.core.errors import RunError

if TYPE_CHECKING:
    from pgx.config.run_config import RunConfig
    from pgx.training.trainer import Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="folder RUN/post_mortem/iteration_...")
    add_trust(parser, "the run's config")


def run(options: argparse.Namespace) -> int:
    return replay(Path(options.bundle), options.trust)


COMMAND = Command(
    "replay",
    "reproduce a failed update (NaN, infinity) from its post-mortem",
    "Repeat a failed update from the files of its post-mortem, and show where it fails (docs/reliability.md).",
    add_arguments,
    run,
)


def replay(bundle: Path, trust: bool) -> int:
    """Reproduce and locate the failure of a post-mortem; return 0 if it fails again, else 1."""
    from pgx.api.run_folder import load_trusted_config
    from pgx.runs.versions import differences
    from pgx.runs.writer import print_warning
    from pgx.training.nan_debug.post_mortem import read_failure

    failure = read_failure(bundle)
    config = load_trusted_config(bundle, trust)
    for difference in differences(failure["versions"]):
        print_warning(difference)
    print(f"{config.label} on {config.env.id}: {failure['error']}")
    with TemporaryDirectory() as folder:
        trainer = _trainer(config, Path(folder) / "run")
        try:
            error = (
                _update(trainer, bundle) if failure["kind"] == "update" else _run(trainer, bundle, failure)
            )
        finally:
            trainer.runner.close()
    if error is None:
        print("not reproduced: no failure this time")
        return 1
    print(f"reproduced: {error}")
    return 0


def _trainer(config: RunConfig, run_dir: Path) -> Trainer:
    """Build the run's trainer without console output, with another folder."""
    from pgx.config.run_config import with_values
    from pgx.training.build import build

    silent = {"run_dir": str(run_dir), "logger.console": "off", "logger.sinks": []}
    return build(with_values(config, silent))


def _update(trainer: Trainer, bundle: Path) -> str | None:
    """Repeat the update in eager mode; return its failure, if any."""
    from pgx.training.nan_debug.post_mortem import read_attempt

    return trainer.diagnose(read_attempt(bundle))


def _run(trainer: Trainer, bundle: Path, failure: dict[str, Any]) -> str | None:
    """Repeat the run from its last checkpoint, or from scratch, to the failed iteration; return its failure, if any."""
    from pgx.core.nonfinite import NotFiniteError
    from pgx.runs.checkpoints import read_state
    from pgx.training.callbacks import STOP, as_callback

    checkpoint = bundle / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load_state_dict(read_state(checkpoint))
    done = trainer.counters.iterations
    print(f"running iterations {done + 1} to {failure['iteration']}", flush=True)
    trainer.callbacks.append(as_callback(lambda s: STOP if s.iteration >= failure["iteration"] else None))
    try:
        trainer.train()
    except RunError as error:
        if isinstance(error.__cause__, NotFiniteError):
            return f"iteration {trainer.counters.iterations + 1}: {error.__cause__}"
        raise
    return None
