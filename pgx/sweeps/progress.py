"""Progress of a sweep: the state of each of its runs, as their folders show it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pgx.config.stored import CONFIG, read_config
from pgx.runs.checkpoints import BEST, Checkpoints, write_atomically
from pgx.runs.lock import holder
from pgx.runs.loggers.jsonl import encode_nonfinite, read_rows
from pgx.runs.metrics import tag
from pgx.runs.writer import SUMMARY, read_summary

RunState = Literal["waiting", "running", "interrupted", "finished", "stopped", "pruned", "failed"]
DONE_STATES = ("finished", "stopped", "pruned")  # never repeated
ENDED_STATES = (*DONE_STATES, "failed")  # failed runs are repeated when the sweep is started again


@dataclass(frozen=True)
class Progress:
    """Progress of one run, as its folder shows it."""

    state: RunState
    env: str | None  # None before the start
    steps: int  # environment steps; of an unfinished run, those of its last row of metrics
    total_steps: int | None  # None before the start
    seconds: float  # of training, summed over resumptions
    final_return: float | None
    error: str | None
    algo: str | None = None  # label
    seed: int | None = None


def read_progress(run_dir: Path) -> Progress:
    """Return the progress of a run; a killed run is "interrupted", a run that has not started is "waiting"."""
    summary = read_summary(run_dir)
    running = holder(run_dir) is not None
    config = read_config(run_dir / CONFIG) if (run_dir / CONFIG).is_file() else None
    steps, seconds = (summary["steps"], summary["seconds"]) if summary else _reached(run_dir)
    state: RunState = "interrupted" if config is not None else "waiting"
    if running:
        state = "running"
    elif summary:
        state = summary["status"]
    return Progress(
        state=state,
        env=None if config is None else config.env.get("id"),
        steps=steps,
        total_steps=None if config is None else config.trainer.get("total_steps"),
        seconds=seconds,
        final_return=summary.get("final_return"),
        error=summary.get("error"),
        algo=None if config is None else str(config.get("label", config.algo.get("name"))),
        seed=None if config is None else config.get("seed"),
    )


def resumable(run_dir: Path) -> bool:
    """Return whether the run has a checkpoint to resume from; `best` alone is not one."""
    return bool(set(Checkpoints(run_dir).names()) - {BEST})


def write_failure(run_dir: Path, error: str) -> None:
    """Record a failure that the run could not record itself: before its start, or after its process was killed."""
    run_dir.mkdir(parents=True, exist_ok=True)
    steps, seconds = _reached(run_dir)
    summary = {"status": "failed", "error": error, "steps": steps, "seconds": seconds, "final_return": None}
    write_atomically(
        run_dir / SUMMARY, (json.dumps(encode_nonfinite(summary), indent=2, allow_nan=False) + "\n").encode()
    )


def clear_run(run_dir: Path) -> None:
    """Remove the files of a run that ended before its first checkpoint, so that it can be restarted."""
    for name in ("metrics.jsonl", CONFIG, SUMMARY):
        (run_dir / name).unlink(missing_ok=True)
    for path in run_dir.glob("events.out.tfevents.*"):
        path.unlink()
    if (run_dir / "checkpoints").is_dir():
        shutil.rmtree(run_dir / "checkpoints")


def seconds_left(runs: Sequence[Progress], at_once: int) -> float | None:
    """Estimate the seconds until all runs end from the speed so far; None before the first step.

    Args:
        runs: all runs of a sweep.
        at_once: number of runs that train at the same time, >= 1.
    """
    begun = [run for run in runs if run.steps > 0 and run.seconds > 0 and run.total_steps]
    if not begun:
        return None
    pace = sum(run.seconds for run in begun) / sum(run.steps for run in begun)
    length = sum(run.total_steps or 0 for run in begun) / len(begun)
    left = 0.0
    for run in runs:
        if run.state not in ENDED_STATES:
            own = run.seconds / run.steps if run in begun else pace
            left += own * max(0.0, (run.total_steps or length) - run.steps)
    return left / at_once


def _reached(run_dir: Path) -> tuple[int, float]:
    rows = read_rows(run_dir / "metrics.jsonl")
    last: dict[str, Any] = rows[-1] if rows else {}
    return int(last.get("step", 0)), float(last.get(tag("seconds"), 0.0))
