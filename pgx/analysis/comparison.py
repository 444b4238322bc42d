"""Comparison of groups of runs: scores, curves, costs, health metrics, and a verdict in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path

import numpy as np
import yaml

from pgx.analysis.foreign_runs import LIBRARIES
from pgx.analysis.reading import RecordedRun, Series
from pgx.analysis.statistics import (
    Array,
    Estimate,
    Resampling,
    Strata,
    estimate,
    interval,
    iqm,
    mean,
    median,
    permutation_test,
    probability_of_improvement,
    profile,
    seeds_to_separate,
    value,
)
from pgx.core.errors import UserError
from pgx.core.schema import nearest
from pgx.core.text import format_number
from pgx.runs.metrics import TABLE, tag

_CURVE_POINTS = 101  # of a curve


@dataclass(frozen=True)
class Axis:
    """Cost of training, as the x-axis of a curve."""

    key: str
    label: str


STEPS_AXIS = Axis("steps", "environment steps")
SECONDS_AXIS = Axis("seconds", "wall-clock seconds")
GRADIENT_STEPS_AXIS = Axis("gradient_steps", "gradient steps")
FISHER_PRODUCTS_AXIS = Axis("fisher_products", "Fisher-vector products")
AXES = (STEPS_AXIS, SECONDS_AXIS, GRADIENT_STEPS_AXIS, FISHER_PRODUCTS_AXIS)

_EACH_UPDATE = {
    GRADIENT_STEPS_AXIS: "gradient_steps",
    FISHER_PRODUCTS_AXIS: "cg_steps",
}  # keys of counts per update


def cumulative_cost(run: RecordedRun, axis: Axis) -> Series | None:
    """Return what a run has spent by each of its rows; None if the run does not record it.

    Counts of single updates are added up. With logger.every > 1 a row stands for all updates since the previous row, so
    the sum is an estimate (`is_exact`).
    """
    if axis == SECONDS_AXIS:
        return run.series.get(tag("seconds"))
    iterations = run.series.get(tag("iteration"))
    if axis == STEPS_AXIS:
        every = max(run.series.values(), key=lambda one: len(one.steps)).steps
        return Series(every, every)
    each = run.series.get(tag(_EACH_UPDATE[axis]))
    if each is None or iterations is None:
        return None
    counts = np.zeros(len(iterations.steps))
    index = np.searchsorted(iterations.steps, each.steps)
    known = index < len(counts)
    counts[index[known]] = each.values[known]
    return Series(iterations.steps, np.cumsum(counts * np.diff(iterations.values, prepend=0.0)))


def is_exact(run: RecordedRun, axis: Axis) -> bool:
    """Return whether `cumulative_cost` is a count rather than an estimate between rows."""
    iterations = run.series.get(tag("iteration"))
    counted = axis not in _EACH_UPDATE
    return counted or (iterations is not None and bool((np.diff(iterations.values, prepend=0.0) == 1).all()))


def cost_at(run: RecordedRun, axis: Axis, steps: Array) -> Array | None:
    """Return what a run has spent at environment steps [G], linear between rows; None if it does not record it."""
    cost = cumulative_cost(run, axis)
    if cost is None:
        return None
    rows, values = (np.concatenate([[0.0], column]) for column in (cost.steps, cost.values))
    return np.asarray(np.interp(steps, rows, values), dtype=np.float64)


def on_grid(curves: Sequence[Series], end: float) -> tuple[Array, Array]:
    """Return the curves of several runs at the same steps, linear between rows.

    Args:
        curves: of n runs.
        end: last step; no curve begins after it.

    Returns:
        The steps [101], from the first at which all curves have a value, and the values [n, 101].
    """
    grid = np.linspace(max(float(one.steps[0]) for one in curves), end, _CURVE_POINTS)
    return grid, np.stack([one.interpolate(grid) for one in curves])


@dataclass(frozen=True)
class Curve:
    """Statistic over an axis, with its interval if there are enough runs.

    Args:
        x, y: points [G].
        low, high: ends of the interval [G]; None: none.
    """

    x: Array
    y: Array
    low: Array | None
    high: Array | None


@dataclass(frozen=True)
class Cost:
    """Mean cost of a group's runs.

    Args:
        value: in the unit of the axis.
        exact: counted; otherwise estimated between rows.
    """

    value: float
    exact: bool


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only.

    Args:
        name: of the group.
        runs: of the group.
        scores: [n] per environment.
        iqm, median, mean: of the scores.
        area: IQM over runs of each run's mean over training.
        curves: IQM at each step, over the median cost up to the step.
        run_curves: the metric of each run at the steps of the curve over steps, [n, G] per environment.
        profile: fraction of runs above a score.
        health: mean over training and mean over its last tenth, by tag.
        health_curves: median over runs at each step, by tag.
        costs: by axis.
    """

    name: str
    runs: Sequence[RecordedRun]
    scores: Strata
    iqm: Estimate
    median: Estimate
    mean: Estimate
    area: Estimate
    curves: Mapping[Axis, Curve]
    run_curves: Strata
    profile: Curve
    health: Mapping[str, tuple[float, float]]
    health_curves: Mapping[str, Curve]
    costs: Mapping[Axis, Cost]


@dataclass(frozen=True)
class Pair:
    """Comparison of two groups, the first with the higher score.

    Args:
        first, second: names of the groups.
        probability: that a run of the first scores more than a run of the second; None: a group has one run.
        gap: difference of the means.
        p: of that difference, by permutation; None: a group has one run on an environment.
        runs: of each group.
        needed: runs of each group that a test needs to detect the difference; None: unknown.
    """

    first: str
    second: str
    probability: Estimate | None
    gap: float
    p: float | None
    runs: tuple[int, int]
    needed: int | None


@dataclass(frozen=True)
class Panel:
    """Results on one environment, or on all of them in normalized scores.

    Args:
        title: of the panel.
        env: None: all environments.
        step: environment step of the scores; None: differs.
        groups: highest score first.
        pairs: of groups.
    """

    title: str
    env: str | None
    step: int | None
    groups: Sequence[Group]
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison: plain values, from which tables, figures and files are made.

    Args:
        metric: tag.
        level: confidence level of the intervals.
        panels: all environments first, if there are several.
        notes: what a reader must know to interpret the numbers.
        rule: how scores were normalized; None: they were not.
    """

    metric: str
    level: float
    panels: Sequence[Panel]
    notes: Sequence[str]
    rule: str | None


@dataclass(frozen=True)
class Label:
    """Text that names a metric.

    Args:
        title: the metric in words, at the start of a sentence.
        axis: the quantity with its unit, for the axis of a figure.
    """

    title: str
    axis: str

    @property
    def phrase(self) -> str:
        """Return the title within a sentence."""
        first, rest = self.title[:1], self.title[1:]
        return self.title if rest[:1].isupper() else first.lower() + rest


# Keys of pgx/runs/metrics.py.
_LABELS = {
    "episode_return_recent": Label("Mean return of the last 20 episodes", "return (reward)"),
    "episode_return": Label("Mean return of the episodes of an iteration", "return (reward)"),
    "unshaped_return": Label("Mean return in the environment's own reward", "return (reward)"),
    "episode_length": Label("Mean episode length", "length (steps)"),
    "eval_episode_return": Label("Mean return of evaluation episodes", "return (reward)"),
    "eval_success": Label("Success rate of evaluation episodes", "successes (fraction)"),
    "kl": Label("KL divergence of an update", "mean KL(old || new) (nats)"),
    "ess": Label("Effective sample size", "fraction of the batch"),
    "clip_fraction": Label("Clip fraction", "ratios out of range (fraction)"),
    "entropy": Label("Policy entropy", "entropy (nats)"),
    "explained_variance": Label("Explained variance of the critic", "explained (fraction)"),
    "gradient_norm": Label("Norm of the policy gradient", "2-norm (advantage)"),
}

_BY_TAG = {metric.tag: _LABELS[metric.key] for metric in TABLE if metric.key in _LABELS}
_UNITS = {metric.tag: metric.unit for metric in TABLE}


def label(tag: str) -> Label:
    """Return the label of a tag; a tag without a written label is spelled out with its unit."""
    if tag in _BY_TAG:
        return _BY_TAG[tag]
    if tag not in _UNITS:
        return Label(tag, tag)
    words = tag.rpartition("/")[2].replace("_", " ")
    unit = {"fraction": " (fraction)", "1": ""}.get(_UNITS[tag], f" ({_UNITS[tag]})")
    return Label(words[:1].upper() + words[1:], words + unit)


# Sections of the config that define an experiment; the others say where and how it runs.
_MATTERS = ("algo.", "policy.", "critic.", "optimizer.", "critic_optimizer.", "runner.", "env.", "reward.")
_NOT = ("env.num_threads", "env.backend", "env.worker_timeout")


def with_distinct_envs(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the runs with their environments' full ids where two modules have environments of one name.

    `a:Walker-v0` and `b:Walker-v0` are different environments; `a:Walker-v0` and `Walker-v0` are one.
    """
    modules: dict[str, set[str]] = {}
    for run in runs:
        modules.setdefault(run.env, set()).update(_module(run))
    return [
        replace(run, env=f"{''.join(_module(run))}:{run.env}")
        if len(modules[run.env]) > 1 and _module(run)
        else run
        for run in runs
    ]


def _module(run: RecordedRun) -> tuple[str, ...]:
    """Return the module before the colon of an environment's id; empty without one, or where the user renamed it."""
    module, colon, name = str(run.config.get("env.id", "")).rpartition(":")
    return (module,) if colon and name == run.env else ()


def check_keys(by: Sequence[str], runs: Sequence[RecordedRun]) -> None:
    """Refuse keys to group by that no run has.

    Raises:
        UserError: with the nearest key.
    """
    keys = {"algo", *(key for run in runs for key in run.config)}
    problems = [f"--by {key}: no run has it{nearest(key, keys)}" for key in by if key not in keys]
    problems += [
        f"--by {key}: cannot define a group: environments are separate anyway, and a group is a set of seeds; remove it"
        for key in by
        if key in ("env.id", "seed")
    ]
    if problems:
        raise UserError(*problems)


def group_name(run: RecordedRun, by: Sequence[str]) -> str:
    """Return the name of the group that a run belongs to."""
    return ", ".join(run.algo if key == "algo" else f"{key}={run.config.get(key, '-')}" for key in by)


def grouping_warnings(env: str, name: str, runs: Sequence[RecordedRun], by: Sequence[str]) -> list[str]:
    """Return warnings if the runs of a group differ in more than their seeds, or share a seed."""
    lines = []
    own = [run for run in runs if run.source == "pgx"]
    keys = {key for run in own for key in run.config if key.startswith(_MATTERS) and key not in (*_NOT, *by)}
    values = {key: sorted({str(run.config.get(key)) for run in own}) for key in sorted(keys)}
    differing = {key: found for key, found in values.items() if len(found) > 1}
    if differing:
        differences = "; ".join(
            f"{key}: {', '.join(found[:4])}" for key, found in list(differing.items())[:3]
        )
        lines.append(
            f"{name} on {env}: runs differ in more than their seeds ({differences}) "
            f"but are one group; --by {','.join([*by, next(iter(differing))])} separates them"
        )
    elif again := [
        seed for seed, n in Counter(run.seed for run in own).items() if n > 1 and seed is not None
    ]:
        lines.append(
            f"{name} on {env}: seed {', '.join(sorted(again))} more than once: these runs are not independent"
        )
    return lines


_THRESHOLDS = 101  # of a profile
Curves = Mapping[Axis, Curve]


def summarize_group(
    name: str,
    runs: Sequence[RecordedRun],
    strata: Strata,
    curves: Curves,
    thresholds: Array,
    step: int | None,
    resampling: Resampling,
) -> Group:
    """Return a group, from its runs' curves: an array [n, G] per environment."""
    scores = [stratum[:, -1] for stratum in strata]
    return Group(
        name=name,
        runs=runs,
        scores=scores,
        iqm=estimate(scores, iqm, resampling),
        median=estimate(scores, median, resampling),
        mean=estimate(scores, mean, resampling),
        area=estimate([stratum.mean(axis=1) for stratum in strata], iqm, resampling),
        curves=curves,
        run_curves=strata,
        profile=_profile(scores, thresholds, resampling),
        health=health_means(runs, step) if step is not None else {},
        health_curves=health_curves(runs, curves[STEPS_AXIS].x) if step is not None else {},
        costs=_costs(runs, step) if step is not None else {},
    )


def iqm_curve(x: Array, strata: Strata, resampling: Resampling) -> Curve:
    """Return the interquartile mean of curves [n, G] per environment at each point x [G]."""
    centre = value(strata, iqm)
    if min(len(stratum) for stratum in strata) < 2:
        return Curve(x, centre, None, None)
    return Curve(x, centre, *interval(strata, iqm, resampling))


def curves_over_costs(runs: Sequence[RecordedRun], curve: Curve) -> Curves:
    """Return a curve over environment steps, and over each cost that all runs record: the median cost at each step.

    The median, because a run that had to wait (for a compiler, for other runs) is not typical.
    """
    found = {}
    for axis in AXES:
        costs = [cost for run in runs if (cost := cost_at(run, axis, curve.x)) is not None]
        if len(costs) == len(runs):
            found[axis] = replace(curve, x=curve.x if axis == STEPS_AXIS else np.median(costs, axis=0))
    return found


def _profile(scores: Strata, thresholds: Array, resampling: Resampling) -> Curve:
    above = profile(scores, thresholds)
    centre = value(above, mean)
    if min(len(stratum) for stratum in scores) < 2:
        return Curve(thresholds, centre, None, None)
    return Curve(thresholds, centre, *interval(above, mean, resampling))


def score_thresholds(scores: Sequence[float]) -> Array:
    """Return evenly spaced thresholds that cover all scores."""
    low, high = min(scores), max(scores)
    margin = 0.02 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, _THRESHOLDS)


def _costs(runs: Sequence[RecordedRun], step: int) -> dict[Axis, Cost]:
    """Return the mean cost of the runs up to a step, for each cost that all runs record."""
    found = {}
    for axis in AXES:
        costs = [cost for run in runs if (cost := cost_at(run, axis, np.array([step]))) is not None]
        if len(costs) == len(runs):
            found[axis] = Cost(float(np.mean(costs)), all(is_exact(run, axis) for run in runs))
    return found


_ALPHA = 0.05  # significance level of two-sided tests
MAX_PLANNED_RUNS = 1000  # a plan for more runs is not shown as a number
_POWER = 0.8  # of the plan for more seeds
_PERMUTATIONS = 20_000  # of the permutation test
_MAX_GROUPS_IN_ALL_PAIRS = 6  # with more groups, each is compared with the best one only


def compare_pairs(groups: Sequence[Group], resampling: Resampling) -> list[Pair]:
    """Return all pairs of groups; with many groups, only pairs with the best one."""
    chosen = [(i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
    if len(groups) > _MAX_GROUPS_IN_ALL_PAIRS:
        chosen = [(0, j) for j in range(1, len(groups))]
    return [_pair(groups[i], groups[j], resampling) for i, j in chosen]


def _pair(first: Group, second: Group, resampling: Resampling) -> Pair:
    x, y = first.scores, second.scores
    sizes = sum(map(len, x)), sum(map(len, y))
    lone = min(map(len, [*x, *y])) < 2
    return Pair(
        first=first.name,
        second=second.name,
        probability=None if lone else probability_of_improvement(x, y, resampling),
        gap=float(np.mean([a.mean() - b.mean() for a, b in zip(x, y, strict=True)])),
        p=None if lone else permutation_test(x, y, _PERMUTATIONS, resampling.seed),
        runs=sizes,
        needed=seeds_to_separate(x[0], y[0], _ALPHA, _POWER) if len(x) == 1 and not lone else None,
    )


# States in which a run has its full length; runs of other libraries do not record their state.
_COMPLETE_STATES = ("finished", "unknown")
_MAX_NAMED = 3  # runs named in a note
# Tags that a run has once its first episode has ended.
_EPISODE_TAGS = tuple(
    tag(key)
    for key in ("episode_return", "episode_return_recent", "episode_return_min", "episode_return_max",
                "episode_length")
)  # fmt: skip


@dataclass(frozen=True)
class EnvScores:
    """Runs on one environment that reached a step, with their curves up to it.

    Args:
        env: the environment.
        step: environment step of the scores.
        runs: those that are compared.
        grid: environment steps [G].
        curves: values [G] by the run's folder; the last value is the score.
    """

    env: str
    step: int
    runs: Sequence[RecordedRun]
    grid: Array
    curves: Mapping[Path, Array]


def score_runs(
    env: str, runs: Sequence[RecordedRun], metric: str, at: int | None
) -> tuple[EnvScores | None, list[str]]:
    """Return the scores of an environment's runs at one step, and lines about the step and about runs left out.

    A run without a row at the step scores the value on the line between the rows before and after it.

    Args:
        env: the environment.
        runs: of it.
        metric: a tag.
        at: the step; None: `shared_step`.
    """
    having = [run for run in runs if metric in run.series]
    no_episode = metric in _EPISODE_TAGS
    reason = "no episode has ended" if no_episode else f"no {metric}"
    left = {reason: [run for run in runs if run not in having]}
    if not having:
        return None, _lines(env, left)
    step = shared_step(having, metric) if at is None else at
    left[f"step {step:,} not reached"] = [run for run in having if run.last_step < step]
    left[f"{metric} begins after step {step:,}"] = [
        run for run in having if run.last_step >= step and run.series[metric].steps[0] > step
    ]
    out = {run.folder for some in left.values() for run in some}
    counted = [run for run in having if run.folder not in out]
    lines = _lines(env, left)
    if not counted:
        return None, lines
    lines = [_alignment(env, counted, metric, step, at is not None), *lines]
    lines += [] if at is not None else _limits(env, counted, metric, step)
    grid, values = on_grid([run.series[metric] for run in counted], end=step)
    of_each = {run.folder: curve for run, curve in zip(counted, values, strict=True)}
    return EnvScores(env, step, counted, grid, of_each), lines


def shared_step(runs: Sequence[RecordedRun], metric: str) -> int:
    """Return the last step at which all finished runs of an environment have a value of the metric.

    Runs that are running, interrupted, failed or pruned do not limit it while others have finished. Neither does a run
    that ended before another had its first value: two such runs have no step in common.
    """
    ended = (
        [run for run in runs if run.state in _COMPLETE_STATES]
        or [run for run in runs if run.state != "failed"]
        or runs
    )
    begun = max(run.series[metric].steps[0] for run in ended)
    ends = [run.series[metric].steps[-1] for run in ended]
    return int(min(end for end in ends if end >= begun))


def _alignment(env: str, runs: Sequence[RecordedRun], metric: str, step: int, asked: bool) -> str:
    """Return a line about the step of the scores, and how many of them lie between two rows."""
    between = sum(step not in run.series[metric].steps for run in runs)
    why = "--at" if asked else f"the last at which all finished runs have {metric}"
    rows = "every run has a row there"
    if between:
        rows = (
            f"{between} of {len(runs)} runs have no row there: their values are interpolated between two rows"
        )
    return f"{env}: scores at step {step:,} ({why}); {rows}"


def _lines(env: str, left: Mapping[str, Sequence[RecordedRun]]) -> list[str]:
    lines = []
    for why, some in left.items():
        if some:
            names = ", ".join(run.name for run in some[:_MAX_NAMED]) + (
                ", ..." if len(some) > _MAX_NAMED else ""
            )
            lines.append(f"{env}: {len(some)} run{'s' * (len(some) > 1)} left out ({why}): {names}")
    return lines


def _limits(env: str, runs: Sequence[RecordedRun], metric: str, step: int) -> list[str]:
    """Name the run that limits the step, if the others have more than twice as many."""
    typical = sorted(run.last_step for run in runs)[len(runs) // 2] if runs else 0
    if step * 2 > typical:
        return []
    (short, *_) = (run.name for run in runs if int(run.series[metric].steps[-1]) == step)
    return [
        f"{env}: compared at step {step:,}, the last of {short} (median of all runs: {typical:,}); "
        "--at STEP leaves that run out"
    ]


def score_ranges(
    scored: Sequence[EnvScores], reference: Mapping[str, tuple[float, float]] | None
) -> dict[str, tuple[float, float]]:
    """Return the scores that become 0 and 1 on each environment: given, or the lowest and highest values of all runs.

    Environments on which all values are equal are left out.

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
    """Read a YAML file with a line `ENV: [LOW, HIGH]` per environment.

    Raises:
        UserError: the file is invalid.
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


_HEALTH_KEYS = (
    "kl",
    "kl_max",
    "ess",
    "clip_fraction",
    "entropy",
    "explained_variance",
    "explained_variance_after",
    "gradient_norm",
    "step_norm",
    "predicted_gain",
    "surrogate_gain",
    "line_search_steps",
    "line_search_fraction",
    "cg_steps",
    "cg_residual",
    "epochs",
    "beta",
    "behaviour_kl",
    "critic_loss",
    "policy_lag",
    "steps_per_second",
)
_LAST_FRACTION = 0.1  # fraction of training in the second mean
PLOTTED_HEALTH_KEYS: tuple[str, ...] = (
    "kl",
    "ess",
    "clip_fraction",
    "entropy",
    "explained_variance",
    "gradient_norm",
)  # keys whose curves a report shows


def health_means(runs: Sequence[RecordedRun], step: int) -> dict[str, tuple[float, float]]:
    """Return the means over runs of each run's mean over training, and over its last tenth.

    A run without a row in the last tenth contributes the value between the rows before and after `step`.

    Args:
        runs: of a group.
        step: the end of training for this purpose, in environment steps.

    Returns:
        Both means by tag, for the tags of at least one run. The second is NaN if no run has a row in the last tenth
        or later.
    """
    found = {}
    for name in map(tag, _HEALTH_KEYS):
        everywhere, late = [], []
        for run in runs:
            if name in run.series:
                one = run.series[name]
                everywhere.append(one.values[one.steps <= step])
                late.append(_last_tenth(one, step))
        if any(len(values) for values in everywhere):
            found[name] = (_mean_of_means(everywhere), _mean_of_means(late))
    return found


def _last_tenth(one: Series, step: int) -> Array:
    inside = (one.steps <= step) & (one.steps > (1 - _LAST_FRACTION) * step)
    if not inside.any() and one.steps[0] <= step <= one.steps[-1]:
        return one.interpolate(np.array([float(step)]))
    return one.values[inside]


def health_curves(runs: Sequence[RecordedRun], grid: Array) -> dict[str, Curve]:
    """Return the median over runs of the metrics in `DRAWN`, at environment steps `grid` [G]; by tag.

    Runs that do not have a metric at a step are left out of its median there.
    """
    found = {}
    for name in map(tag, PLOTTED_HEALTH_KEYS):
        having = [run.series[name] for run in runs if name in run.series]
        inside = [(one.steps[0] <= grid) & (grid <= one.steps[-1]) for one in having]
        known = np.any(inside, axis=0) if having else np.zeros(len(grid), dtype=bool)
        if known.any():
            values = [
                np.where(i, one.interpolate(grid), np.nan) for one, i in zip(having, inside, strict=True)
            ]
            found[name] = Curve(grid[known], np.nanmedian(np.stack(values)[:, known], axis=0), None, None)
    return found


def _mean_of_means(parts: Sequence[np.ndarray]) -> float:
    means = [float(values.mean()) for values in parts if len(values)]
    return float(np.mean(means)) if means else float("nan")


_MIN_RUNS = 4  # runs a group below which the permutation test cannot reach ALPHA


@dataclass(frozen=True)
class Verdict:
    """A headline and the sentences that support it."""

    headline: str
    details: list[str]


def verdict(panel: Panel, metric: str, level: float) -> Verdict:
    """Return the verdict of a panel.

    A group leads if the permutation test against the next group has p < 0.05 and both the interquartile means and the
    means have it ahead. Otherwise there is no clear winner.

    Args:
        panel: groups with the highest score first.
        metric: the tag that was compared.
        level: confidence level of the intervals, in (0, 1).
    """
    scored = _scored(panel, metric)
    best = panel.groups[0]
    if len(panel.groups) == 1:
        said = f"{scored}: {_with_interval(panel, best, level)}. There is no other group to compare with."
        return Verdict(f"{best.name} on {_where(panel)}: {_number(panel, best.iqm.value)}", [said])
    second = panel.groups[1]
    pair = _pair_of(panel, best.name, second.name)
    ahead = best.iqm.value - second.iqm.value
    relative = f" ({ahead / abs(second.iqm.value):+.0%})" if panel.env and second.iqm.value else ""
    details = [
        f"{scored}: {_with_interval(panel, best, level)}, {_with_interval(panel, second, level)}. "
        f"The difference is {_number(panel, ahead)}{relative}."
    ]
    details += _certainty(pair, best, second, level)
    details += _others(panel, best.name)
    sooner = max(panel.groups, key=lambda group: group.area.value)
    if sooner is not best:
        details.append(
            f"Averaged over the whole training, {sooner.name} has the higher score "
            f"({_number(panel, sooner.area.value)}; {best.name}: {_number(panel, best.area.value)}): it learned sooner."
        )
    return Verdict(_headline(panel, pair, best, second), details)


def _headline(panel: Panel, pair: Pair, best: Group, second: Group) -> str:
    where = _where(panel)
    ahead = _number(panel, best.iqm.value - second.iqm.value)
    if pair.p is None:
        return f"{best.name} is {ahead} ahead of {second.name} on {where}, but one run is too few to tell"
    if _separated(pair):
        return f"{best.name} leads {second.name} by {ahead} on {where}"
    return f"No clear winner on {where}: {best.name} is {ahead} ahead of {second.name}, which may be chance"


def _where(panel: Panel) -> str:
    if panel.env is None or panel.step is None:
        return panel.title.partition(",")[0]  # "3 environments"
    return f"{panel.env} at step {panel.step:,}"


def _scored(panel: Panel, metric: str) -> str:
    unit = label(metric).title if panel.env else f"Normalized score ({label(metric).phrase})"
    return f"{unit}, interquartile mean over runs"


def _certainty(pair: Pair, best: Group, second: Group, level: float) -> list[str]:
    if pair.probability is None or pair.p is None:
        return [
            f"A single run says nothing about the spread over seeds: run {_MIN_RUNS} seeds or more of each group."
        ]
    likely = f"A run of {best.name} scores more than a run of {second.name} with probability "
    likely += f"{pair.probability.value:.2f}{_interval(pair.probability, level, '.2f')}."
    test = f"Permutation test of the difference of the means: p = {pair.p:.2g}"
    if _separated(pair):
        return [likely, f"{test}, below {_ALPHA}."]
    lines = [likely, f"{test}, not below {_ALPHA}."]
    x, y = pair.runs
    least = (2 if x == y else 1) / comb(x + y, x)
    if len(best.scores) == 1 and least >= _ALPHA:
        lines.append(
            f"With {x} and {y} runs this test cannot reach p < {_ALPHA}: run {_MIN_RUNS} seeds or more of each group."
        )
    elif pair.needed is not None and MAX_PLANNED_RUNS >= pair.needed > min(pair.runs):
        more = pair.needed - min(pair.runs)
        lines.append(
            f"About {more:,} more run{'s' * (more > 1)} of each would separate them, if the true difference is the "
            "one seen."
        )
    return lines


def _others(panel: Panel, best: str) -> list[str]:
    """Return one sentence about the groups from the third on."""
    behind = []
    for group in panel.groups[2:]:
        pair = _pair_of(panel, best, group.name)
        tested = f", p = {pair.p:.2g} against {best}" if pair.p is not None else ""
        behind.append(f"{group.name} {_number(panel, group.iqm.value)}{tested}")
    return [f"Further behind: {'; '.join(behind)}."] if behind else []


def _pair_of(panel: Panel, first: str, second: str) -> Pair:
    return next(pair for pair in panel.pairs if (pair.first, pair.second) == (first, second))


def _separated(pair: Pair) -> bool:
    return pair.p is not None and pair.p < _ALPHA and pair.gap > 0


def _with_interval(panel: Panel, group: Group, level: float) -> str:
    runs = sum(map(len, group.scores))
    places = ",.1f" if panel.env else ".3f"
    interval = _interval(group.iqm, level, places)
    return f"{group.name} {_number(panel, group.iqm.value)}{interval} from {runs} run{'s' * (runs > 1)}"


def _interval(found: Estimate, level: float, places: str) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({level:.0%} interval {found.low:{places}} to {found.high:{places}})"


def _number(panel: Panel, value: float) -> str:
    return format_number(value) if panel.env else f"{value:.3f}"


@dataclass(frozen=True)
class Request:
    """Parameters of a comparison.

    Args:
        metric: tag.
        by: config keys that define a group.
        at: environment step of the scores; None: the last that all runs of an environment share.
        reference: scores that become 0 and 1, by environment; None: from the runs.
        resampling: parameters of the intervals.
    """

    metric: str
    by: Sequence[str]
    at: int | None
    reference: Mapping[str, tuple[float, float]] | None
    resampling: Resampling


def compare_groups(runs: Sequence[RecordedRun], request: Request) -> Comparison:
    """Compare groups of runs on each environment, and over all environments if there are several.

    Raises:
        UserError: no run has the metric, or reached the step, or has a key to group by.
    """
    runs = with_distinct_envs(sorted(runs, key=lambda run: str(run.folder)))
    check_keys(request.by, runs)
    notes = [
        f"{run.name}: failed: {run.error or 'no error message'}" for run in runs if run.state == "failed"
    ]
    notes += [f"{run.name}: still running" for run in runs if run.state == "running"]
    scored = []
    for env in sorted({run.env for run in runs}):
        found, lines = score_runs(env, [run for run in runs if run.env == env], request.metric, request.at)
        notes += lines
        scored += [found] if found else []
    if not scored:
        raise UserError(_nothing(runs, request))
    panels = [_environment(one, request) for one in scored]
    for one, panel in zip(scored, panels, strict=True):
        for group in panel.groups:
            notes += grouping_warnings(one.env, group.name, group.runs, request.by)
    overall, rule = _overall(scored, panels, request) if len(scored) > 1 else (None, None)
    notes += _foreign(scored) + _few(panels)
    return Comparison(
        request.metric, request.resampling.level, [*([overall] if overall else []), *panels], notes, rule
    )


def _nothing(runs: Sequence[RecordedRun], request: Request) -> str:
    tags = {tag for run in runs for tag in run.series}
    if request.metric not in tags and request.metric in _EPISODE_TAGS:
        furthest = max(run.last_step for run in runs)
        return (
            f"no episode has ended yet in {_count(len(runs))} (the furthest is at step {furthest:,}), so there is no "
            f"{request.metric}; wait for the first episode, or compare another metric: --metric health/entropy"
        )
    if request.metric not in tags:
        returns = sorted(tag for tag in tags if "return" in tag or "reward" in tag)
        return (
            f"--metric {request.metric}: none of {len(runs)} runs has it{nearest(request.metric, tags)}; "
            f"there are: {', '.join(returns or sorted(tags))}"
        )
    curves = [run.series[request.metric].steps for run in runs if request.metric in run.series]
    first, last = int(min(steps[0] for steps in curves)), int(max(steps[-1] for steps in curves))
    problem = (
        "no run has reached it"
        if request.at is not None and request.at > last
        else "no run has a row up to there"
    )
    return f"--at {request.at}: {problem}; {request.metric} was logged from step {first:,} to {last:,}"


def _environment(scored: EnvScores, request: Request) -> Panel:
    names: dict[str, list[RecordedRun]] = {}
    for run in scored.runs:
        names.setdefault(group_name(run, request.by), []).append(run)
    thresholds = score_thresholds([curve[-1] for curve in scored.curves.values()])
    groups = []
    for name, runs in names.items():
        curves = np.stack([scored.curves[run.folder] for run in runs])
        drawn = curves_over_costs(runs, iqm_curve(scored.grid, [curves], request.resampling))
        groups.append(
            summarize_group(name, runs, [curves], drawn, thresholds, scored.step, request.resampling)
        )
    groups.sort(key=lambda group: -group.iqm.value)
    return Panel(
        title=f"{scored.env} at step {scored.step:,}",
        env=scored.env,
        step=scored.step,
        groups=groups,
        pairs=compare_pairs(groups, request.resampling),
    )


def _overall(
    scored: Sequence[EnvScores], panels: Sequence[Panel], request: Request
) -> tuple[Panel | None, str | None]:
    """Return the panel of all environments in normalized scores, of the groups that have runs on each of them."""
    scale = score_ranges(scored, request.reference)
    kept = [(one, panel) for one, panel in zip(scored, panels, strict=True) if one.env in scale]
    everywhere = set.intersection(*({g.name for g in panel.groups} for _, panel in kept)) if kept else set()
    if len(kept) < 2 or not everywhere:
        return None, None
    strata: dict[str, list[Array]] = {name: [] for name in sorted(everywhere)}
    runs: dict[str, list[RecordedRun]] = {name: [] for name in strata}
    for one, panel in kept:
        low, high = scale[one.env]
        for group in panel.groups:
            if group.name in everywhere:
                curves = np.stack([one.curves[run.folder] for run in group.runs])
                strata[group.name].append((curves - low) / (high - low))
                runs[group.name] += group.runs
    thresholds = score_thresholds(
        [float(v) for stratum in strata.values() for c in stratum for v in c[:, -1]]
    )
    training = np.linspace(0.0, 1.0, strata[next(iter(strata))][0].shape[1])
    groups = [
        summarize_group(
            name,
            runs[name],
            curves,
            {STEPS_AXIS: iqm_curve(training, curves, request.resampling)},
            thresholds,
            None,
            request.resampling,
        )
        for name, curves in strata.items()
    ]
    groups.sort(key=lambda group: -group.iqm.value)
    by = (
        "the scores of --reference"
        if request.reference
        else "the lowest and highest values of the compared runs"
    )
    rule = f"scores are normalized so that 0 and 1 are {by}: " + ", ".join(
        f"{env} {low:,.6g} and {high:,.6g}" for env, (low, high) in scale.items()
    )
    left = sorted({one.env for one in scored} - set(scale))
    rule += f"; left out, because all values are equal: {', '.join(left)}" if left else ""
    return Panel(
        f"{len(kept)} environments, normalized", None, None, groups, compare_pairs(groups, request.resampling)
    ), rule


def _foreign(scored: Sequence[EnvScores]) -> list[str]:
    sources = {run.source for one in scored for run in one.runs}
    return [f"{library.name}: {library.differs}" for library in LIBRARIES if library.name in sources]


def _few(panels: Sequence[Panel]) -> list[str]:
    """Return lines about groups of one run, of few runs and of different numbers of runs."""
    lines = []
    sizes = [
        (panel.env, {g.name: len(g.scores[0]) for g in panel.groups})
        for panel in panels
        if panel.env is not None
    ]
    for env, runs in sizes:
        lone = [name for name, n in runs.items() if n == 1]
        if lone:
            lines.append(
                f"{env}: one run of {', '.join(lone)}: a single seed has no spread, so "
                "intervals, P and p are '-'"
            )
        if len(set(runs.values())) > 1:
            sizes_text = ", ".join(f"{name} {n}" for name, n in runs.items())
            lines.append(f"{env}: groups have different numbers of runs ({sizes_text})")
    fewest = min((n for _, runs in sizes for n in runs.values() if n > 1), default=10)
    if fewest < 10:
        lines.append(
            f"the smallest group with an interval has {fewest} runs: intervals from few runs are too narrow "
            "(docs/compare.md)"
        )
    return lines


def _count(runs: int) -> str:
    return f"{runs} run{'s' * (runs > 1)}"
