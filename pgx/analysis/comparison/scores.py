"""Scores: which runs count, at which step, on which scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pgx.analysis.comparison.axes import on_grid
from pgx.analysis.reading.run import Array, Run
from pgx.core.errors import UserError
from pgx.runs.metrics import tag

ENDED = ("finished", "unknown")  # states that say how long a run was meant to be; foreign runs do not say
NAMED = 3  # runs in a line that leaves some out
# Tags that a run has from its first finished episode on.
OF_EPISODES = tuple(
    tag(key)
    for key in ("episode_return", "episode_return_recent", "episode_return_min", "episode_return_max",
                "episode_length")
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """The runs of an environment that have come to a step, with their values on the way there."""

    env: str
    step: int
    runs: Sequence[Run]
    grid: Array  # [G] environment steps
    curves: Mapping[Path, Array]  # [G] of each run's folder; the last is its score


def score(env: str, runs: Sequence[Run], metric: str, at: int | None) -> tuple[Scored | None, list[str]]:
    """Return the scores of an environment's runs at one step, and lines about the step and about runs left out.

    A run without a row at the step scores the value on the line between the rows before and after it.

    Args:
        env: the environment.
        runs: of it.
        metric: a tag.
        at: the step; None: `shared_step`.
    """
    told = [run for run in runs if metric in run.series]
    no_episode = metric in OF_EPISODES
    lacking = "no episode has ended in them" if no_episode else f"they have no {metric}"
    left = {lacking: [run for run in runs if run not in told]}
    if not told:
        return None, _lines(env, left)
    step = shared_step(told, metric) if at is None else at
    left[f"they have not come to step {step:,}"] = [run for run in told if run.last_step < step]
    left[f"their {metric} begins after step {step:,}"] = [
        run for run in told if run.last_step >= step and run.series[metric].steps[0] > step
    ]
    out = {run.folder for some in left.values() for run in some}
    counted = [run for run in told if run.folder not in out]
    lines = _lines(env, left)
    if not counted:
        return None, lines
    lines = [_alignment(env, counted, metric, step, at is not None), *lines]
    lines += [] if at is not None else _limits(env, counted, metric, step)
    grid, values = on_grid([run.series[metric] for run in counted], end=step)
    of_each = {run.folder: curve for run, curve in zip(counted, values, strict=True)}
    return Scored(env, step, counted, grid, of_each), lines


def shared_step(runs: Sequence[Run], metric: str) -> int:
    """Return the last step at which all finished runs of an environment have a value of the metric.

    Runs that are running, interrupted, failed or pruned do not limit it while others have finished. Neither does a run
    that ended before another had its first value: two such runs have no step in common.
    """
    ended = (
        [run for run in runs if run.state in ENDED] or [run for run in runs if run.state != "failed"] or runs
    )
    begun = max(run.series[metric].steps[0] for run in ended)
    ends = [run.series[metric].steps[-1] for run in ended]
    return int(min(end for end in ends if end >= begun))


def _alignment(env: str, runs: Sequence[Run], metric: str, step: int, asked: bool) -> str:
    """Return a line about the step of the scores, and how many of them lie between two rows."""
    between = sum(step not in run.series[metric].steps for run in runs)
    why = "--at" if asked else f"the last at which all finished runs have {metric}"
    how = "every run has a row there"
    if between:
        how = (
            f"{between} of {len(runs)} runs have no row there: their values are interpolated between two rows"
        )
    return f"{env}: scores at step {step:,} ({why}); {how}"


def _lines(env: str, left: Mapping[str, Sequence[Run]]) -> list[str]:
    lines = []
    for why, some in left.items():
        if some:
            names = ", ".join(run.name for run in some[:NAMED]) + (", ..." if len(some) > NAMED else "")
            lines.append(f"{env}: {len(some)} run{'s' * (len(some) > 1)} left out, since {why}: {names}")
    return lines


def _limits(env: str, runs: Sequence[Run], metric: str, step: int) -> list[str]:
    """Name the run that limits the step, if the others have more than twice as many."""
    typical = sorted(run.last_step for run in runs)[len(runs) // 2] if runs else 0
    if step * 2 > typical:
        return []
    (short, *_) = (run.name for run in runs if int(run.series[metric].steps[-1]) == step)
    return [
        f"{env}: compared at step {step:,}, since {short} has come no further "
        f"(most: {typical:,}; --at leaves it out)"
    ]


def scales(
    scored: Sequence[Scored], reference: Mapping[str, tuple[float, float]] | None
) -> dict[str, tuple[float, float]]:
    """What is 0 and what is 1 of each environment: given, or the lowest and highest that any run compared has been.

    Environments on which nothing ever changes separate nothing, and are left out.

    Raises:
        UserError: the reference lacks an environment.
    """
    found = {}
    for one in scored:
        if reference is not None:
            if one.env not in reference:
                raise UserError(f"--reference: no scores of {one.env}; there are: {', '.join(reference)}")
            low, high = reference[one.env]
        else:
            values = np.stack(list(one.curves.values()))
            low, high = float(values.min()), float(values.max())
        if high > low:
            found[one.env] = (low, high)
    return found


def read_reference(path: Path) -> dict[str, tuple[float, float]]:
    """`env: [score that is 0, score that is 1]`, a line an environment.

    Raises:
        UserError: anything else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--reference {path}: cannot be read: {error}") from error
    found: dict[str, tuple[float, float]] = {}
    for env, pair in values.items() if isinstance(values, dict) else []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)):
            raise UserError(f"--reference {path}: {env}: expected [low, high], got {pair}")
        if not pair[0] < pair[1]:
            raise UserError(f"--reference {path}: {env}: expected low < high, got {pair}")
        found[str(env)] = (float(pair[0]), float(pair[1]))
    if not found:
        raise UserError(f"--reference {path}: expected lines such as 'Walker2d-v4: [0, 5000]'")
    return found
