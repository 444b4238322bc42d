"""Scores: which runs count, at which step, on which scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pgx.analysis.comparison.axes import STEPS, on_grid, over
from pgx.analysis.reading.run import Array, Run
from pgx.errors import UserError


@dataclass(frozen=True)
class Scored:
    """The runs of an environment that have come to a step, with their values on the way there."""

    env: str
    step: int
    runs: Sequence[Run]
    grid: Array  # [G] environment steps
    curves: Mapping[Path, Array]  # [G] of each run's folder; the last is its score


def score(env: str, runs: Sequence[Run], metric: str, at: int | None) -> tuple[Scored | None, list[str]]:
    """The scores of an environment's runs at a step, and a line about each that is left out.

    The step is the last that all of them have reached; a run that failed is no measure of that, and counts where it has
    come as far as the others.

    Args:
        env: the environment.
        runs: of it.
        metric: a tag.
        at: the step, where the user chose one.
    """
    told = [run for run in runs if metric in run.series]
    lines = [_without(run, metric) for run in runs if run not in told]
    if not told:
        return None, lines
    sound = [run for run in told if run.state != "failed"] or told
    step = at if at is not None else min(run.last_step for run in sound)
    lines += _limits(env, sound, step) if at is None else []
    counted = []
    for run in told:
        first = run.series[metric].steps[0]
        if run.last_step < step or first > step:
            why = f"has come to step {run.last_step:,}" if run.last_step < step else f"begins at {first:,.0f}"
            lines.append(f"{run.name}: left out at step {step:,}: {metric} {why}")
        else:
            counted.append(run)
    if not counted:
        return None, lines
    curves = [over(run, run.series[metric], STEPS, step) for run in counted]
    grid, values = on_grid([one for one in curves if one is not None], end=step)
    return Scored(
        env, step, counted, grid, {run.folder: v for run, v in zip(counted, values, strict=True)}
    ), lines


def _without(run: Run, metric: str) -> str:
    returns = [tag for tag in run.series if "return" in tag or "reward" in tag]
    having = f" (it has {', '.join(sorted(returns)[:4])}; --metric)" if returns else ""
    return f"{run.name}: left out: it has no {metric}{having}"


def _limits(env: str, runs: Sequence[Run], step: int) -> list[str]:
    """Who holds the others back, where that is much."""
    typical = sorted(run.last_step for run in runs)[len(runs) // 2]
    if step * 2 > typical:
        return []
    short = [run.name for run in runs if run.last_step == step]
    return [
        f"{env}: compared at step {step:,}, since {short[0]} has come no further "
        f"(most: {typical:,}; --at leaves it out)"
    ]


def scales(
    scored: Sequence[Scored], reference: Mapping[str, tuple[float, float]] | None
) -> dict[str, tuple[float, float]]:
    """What is 0 and what is 1 of each environment: given, or the lowest and highest score of any run compared.

    Environments on which all runs score the same separate nothing, and are left out.

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
            last = [float(curve[-1]) for curve in one.curves.values()]
            low, high = min(last), max(last)
        if high > low:
            found[one.env] = (low, high)
    return found


def read_reference(path: Path) -> dict[str, tuple[float, float]]:
    """`env: [score that is 0, score that is 1]`, a line an environment.

    Raises:
        UserError: anything else.
    """
    try:
        values = yaml.safe_load(path.read_text())
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
