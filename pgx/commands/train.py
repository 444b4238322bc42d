"""`pgx train`: Hydra composes, pgx checks everything, then trains."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.checkpoint import LAST
from pgx.config import build, check, compose
from pgx.config.compose import ROOT, explain, jobs, parse, prepare
from pgx.errors import UserError
from pgx.paths import config_dir
from pgx.trainer import Trainer

CHANGEABLE_ON_RESUME = (
    "trainer.",
    "logger.",
    "torch_threads",
    "env.num_threads",
    "device",
)  # the rest would make it another run


def train(arguments: list[str]) -> int:
    """Train from overrides, or go on with a run; returns the exit code."""
    if "--resume" in arguments:
        return _resume(arguments)
    flags = [a for a in arguments if a.startswith("-")]
    overrides = prepare([a for a in arguments if not a.startswith("-")])
    sweeping = bool({"-m", "--multirun"} & set(flags))
    if not sweeping and len(jobs(overrides)) > 1:
        raise UserError("several values for one key: add -m to run every combination of them")
    for job in jobs(overrides):  # every run of a sweep, before the first one starts
        check(compose(job))
    return _hydra(flags + overrides)


def _hydra(arguments: list[str]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and pgx.cli words the message
    run = hydra.main(config_path=str(config_dir()), config_name=ROOT, version_base="1.3")(_job)
    sys.argv = ["pgx train", *arguments]
    try:
        run()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"run_dir: cannot write {error.filename}: {error.strerror}") from error
    return 0


def _job(cfg: DictConfig) -> float | None:
    """One run; its final return, which sweepers maximise."""
    trainer = build(cfg)
    summary = _train(trainer, cfg)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt  # ends a sweep too
    final: float | None = summary["final_return"]
    return final


def _train(trainer: Trainer, cfg: DictConfig) -> dict[str, Any]:
    envs = trainer.runner.envs
    print(
        f"{cfg.algo.name} on {envs.id}: {envs.num_envs} environments x {trainer.runner.rollout_steps} steps, "
        f"backend {envs.backend} ({trainer.backend_reason}), seed {cfg.seed}\nrun {trainer.run_dir}",
        flush=True,
    )
    started = time.monotonic()
    with _interruptible(trainer):
        summary = trainer.train()
    took = time.monotonic() - started
    returned = "no episode ended"
    if summary["final_return"] is not None:
        episodes = summary["final_return_episodes"]
        returned = f"return {summary['final_return']:,.1f} (mean of the last {episodes} episodes)"
    if summary["best_return"] is not None:
        returned += f", best {summary['best_return']:,.1f} at {summary['best_steps']:,} steps"
    print(f"{summary['status']} at {summary['steps']:,} steps after {took:,.1f} s: {returned}")
    print(f"  see it       tensorboard --logdir {trainer.run_dir}")
    print(f"  evaluate it  pgx eval {trainer.run_dir}")
    if summary["status"] == "interrupted":
        print(f"  go on        pgx train --resume {trainer.run_dir}")
    return summary


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run after the iteration under way, with a checkpoint; the second at once."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nstopping after this iteration (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _resume(arguments: list[str]) -> int:
    """Go on with a run from its last checkpoint."""
    at = arguments.index("--resume")
    if at + 1 == len(arguments):
        raise UserError("--resume: expected the folder of a run, e.g. pgx train --resume outputs/...")
    run_dir, overrides = Path(arguments[at + 1]), arguments[:at] + arguments[at + 2 :]
    cfg = load_config(run_dir)
    for override in parse(overrides):
        key = override.key_or_group
        if not key.startswith(CHANGEABLE_ON_RESUME):
            raise UserError(
                f"{key}: a resumed run keeps its config; only {', '.join(CHANGEABLE_ON_RESUME)} may change"
            )
        if OmegaConf.select(cfg, key, default=OmegaConf) is OmegaConf:
            raise UserError(f"{key}: unknown key")
        OmegaConf.update(cfg, key, override.value())
    cfg.run_dir = str(run_dir)
    trainer = build(cfg)
    trainer.load_state_dict(trainer.checkpoints.load(LAST))
    if trainer.counters.steps >= trainer.total_steps:
        print(
            f"{run_dir} is finished: {trainer.counters.steps:,} of {trainer.total_steps:,} steps; "
            "a larger trainer.total_steps=... extends it"
        )
        return 0
    summary = _train(trainer, cfg)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt
    return 0


def load_config(run_dir: Path) -> DictConfig:
    """The resolved config of a run.

    Raises:
        UserError: the folder is not that of a run.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run_dir}: not the folder of a run (it has no config.yaml)")
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return cfg
