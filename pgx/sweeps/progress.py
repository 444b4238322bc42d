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

RunState = Literal["waiting", "running", "interrupted", "finished", "pruned", "failed"]
ENDED_STATES = (
    "finished",
    "pruned",
    "failed",
)  # until the sweep is started again, which tries again what failed
DONE_STATES = ("finished", "pruned")  # what no start of a sweep repeats


@dataclass(frozen=True)
class Progress:
    """A run as its folder shows it."""

    state: RunState
    env: str | None  # None before it began
    steps: int  # of a run that has not ended: those of its last row of metrics
    total_steps: int | None  # None before it began
    seconds: float  # of training, over all its lives
    final_return: float | None
    error: str | None
    algo: str | None = None  # its label
    seed: int | None = None


def read_progress(run_dir: Path) -> Progress:
    """The state of one run; a run that was killed is "interrupted", one that never began is "waiting"."""
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
    """A checkpoint stands from which it can go on; the best, which is written before it, is none."""
    return bool(set(Checkpoints(run_dir).names()) - {BEST})


def write_failure(run_dir: Path, error: str) -> None:
    """Note a failure that the run itself could not: before it began, or after its process was gone."""
    run_dir.mkdir(parents=True, exist_ok=True)
    steps, seconds = _reached(run_dir)
    summary = {"status": "failed", "error": error, "steps": steps, "seconds": seconds, "final_return": None}
    write_atomically(
        run_dir / SUMMARY, (json.dumps(encode_nonfinite(summary), indent=2, allow_nan=False) + "\n").encode()
    )


def clear_run(run_dir: Path) -> None:
    """Remove what a run left that died before its first checkpoint, so that it can begin anew."""
    for name in ("metrics.jsonl", CONFIG, SUMMARY):
        (run_dir / name).unlink(missing_ok=True)
    for path in run_dir.glob("events.out.tfevents.*"):
        path.unlink()
    if (run_dir / "checkpoints").is_dir():
        shutil.rmtree(run_dir / "checkpoints")


def seconds_left(runs: Sequence[Progress], at_once: int) -> float | None:
    """Seconds until all have ended, if steps go on taking what they took; None before any was taken.

    Args:
        runs: all of a sweep.
        at_once: how many are worked on at the same time, >= 1.
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
