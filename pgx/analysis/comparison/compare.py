"""Runs in, a comparison out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pgx.analysis.comparison.axes import AXES, STEPS, Axis, exact, on_grid, over, spent
from pgx.analysis.comparison.grouping import check_keys, doubts, group_of
from pgx.analysis.comparison.health import health_of
from pgx.analysis.comparison.result import Comparison, Cost, Curve, Group, Pair, Panel
from pgx.analysis.comparison.scores import Scored, scales, score
from pgx.analysis.reading.peers import PEERS
from pgx.analysis.reading.run import Array, Run
from pgx.analysis.statistics import (
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
from pgx.errors import UserError
from pgx.schema import nearest

ALPHA = 0.05  # two-sided significance of tests
POWER = 0.8  # of the plan for more seeds
DEALS = 20_000  # ways of dealing runs to two groups that the permutation test tries
ALL_PAIRS = 6  # groups; of more, each is held against the best alone
THRESHOLDS = 101  # of a profile

_Curves = Mapping[Axis, Curve]


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    metric: str  # a tag
    by: Sequence[str]  # keys that make a group
    at: int | None  # environment steps; None: the last that all runs of an environment share
    reference: Mapping[str, tuple[float, float]] | None  # scores that are 0 and 1, by environment
    how: Resampling


def compare(runs: Sequence[Run], request: Request) -> Comparison:
    """Runs in groups, environment by environment, and over all environments where there are several.

    Raises:
        UserError: no run has the metric, or has come to the step, or is grouped by such a key.
    """
    check_keys(request.by, runs)
    notes = [f"{run.name}: failed: {run.error or 'no word of why'}" for run in runs if run.state == "failed"]
    notes += [f"{run.name}: still running" for run in runs if run.state == "running"]
    scored = []
    for env in sorted({run.env for run in runs}):
        found, lines = score(env, [run for run in runs if run.env == env], request.metric, request.at)
        notes += lines
        scored += [found] if found else []
    if not scored:
        raise UserError(_nothing(runs, request))
    panels = [_environment(one, request) for one in scored]
    for one, panel in zip(scored, panels, strict=True):
        for group in panel.groups:
            notes += doubts(one.env, group.name, group.runs, request.by)
    overall, rule = _overall(scored, panels, request) if len(scored) > 1 else (None, None)
    notes += _foreign(scored) + _few(panels)
    return Comparison(
        request.metric, request.how.level, [*([overall] if overall else []), *panels], notes, rule
    )


def _nothing(runs: Sequence[Run], request: Request) -> str:
    tags = {tag for run in runs for tag in run.series}
    if request.metric not in tags:
        returns = sorted(tag for tag in tags if "return" in tag or "reward" in tag)
        return (
            f"--metric {request.metric}: none of {len(runs)} runs has it{nearest(request.metric, tags)}; "
            f"there are: {', '.join(returns or sorted(tags))}"
        )
    furthest = max(run.last_step for run in runs)
    return f"--at {request.at}: no run has come so far, or has {request.metric} by then; the furthest is at {furthest:,}"


def _environment(scored: Scored, request: Request) -> Panel:
    names: dict[str, list[Run]] = {}
    for run in scored.runs:
        names.setdefault(group_of(run, request.by), []).append(run)
    thresholds = _thresholds([curve[-1] for curve in scored.curves.values()])
    groups = []
    for name, runs in names.items():
        curves = np.stack([scored.curves[run.folder] for run in runs])
        drawn = {STEPS: _curve(scored.grid, [curves], request.how)}
        drawn |= _other_axes(runs, request, scored.step)
        groups.append(_group(name, runs, [curves], drawn, thresholds, scored.step, request.how))
    groups.sort(key=lambda group: -group.iqm.value)
    return Panel(
        title=f"{scored.env} at step {scored.step:,}",
        env=scored.env,
        step=scored.step,
        groups=groups,
        pairs=_pairs(groups, request.how),
    )


def _overall(
    scored: Sequence[Scored], panels: Sequence[Panel], request: Request
) -> tuple[Panel | None, str | None]:
    """All environments in normalised scores, for the groups that have runs on each of them."""
    scale = scales(scored, request.reference)
    kept = [(one, panel) for one, panel in zip(scored, panels, strict=True) if one.env in scale]
    everywhere = set.intersection(*({g.name for g in panel.groups} for _, panel in kept)) if kept else set()
    if len(kept) < 2 or not everywhere:
        return None, None
    strata: dict[str, list[Array]] = {name: [] for name in sorted(everywhere)}
    runs: dict[str, list[Run]] = {name: [] for name in strata}
    for one, panel in kept:
        low, high = scale[one.env]
        for group in panel.groups:
            if group.name in everywhere:
                curves = np.stack([one.curves[run.folder] for run in group.runs])
                strata[group.name].append((curves - low) / (high - low))
                runs[group.name] += group.runs
    thresholds = _thresholds([float(v) for stratum in strata.values() for c in stratum for v in c[:, -1]])
    share = np.linspace(0.0, 1.0, strata[next(iter(strata))][0].shape[1])
    groups = [
        _group(name, runs[name], curves, {STEPS: _curve(share, curves, request.how)}, thresholds, None, request.how)
        for name, curves in strata.items()
    ]
    groups.sort(key=lambda group: -group.iqm.value)
    by = "the reference's scores" if request.reference else "the lowest and highest score of any run compared"
    rule = f"0 and 1 of each environment are {by}: " + ", ".join(
        f"{env} {low:,.6g} and {high:,.6g}" for env, (low, high) in scale.items()
    )
    left = sorted({one.env for one in scored} - set(scale))
    rule += f"; left out, since all runs score the same: {', '.join(left)}" if left else ""
    return Panel(f"{len(kept)} environments, normalised", None, None, groups, _pairs(groups, request.how)), rule


def _group(
    name: str,
    runs: Sequence[Run],
    strata: Strata,
    curves: _Curves,
    thresholds: Array,
    step: int | None,
    how: Resampling,
) -> Group:
    """A group from its runs' curves [n, G], one stratum an environment."""
    scores = [stratum[:, -1] for stratum in strata]
    return Group(
        name=name,
        runs=runs,
        scores=scores,
        iqm=estimate(scores, iqm, how),
        median=estimate(scores, median, how),
        mean=estimate(scores, mean, how),
        area=estimate([stratum.mean(axis=1) for stratum in strata], iqm, how),
        curves=curves,
        profile=_profile(scores, thresholds, how),
        health=health_of(runs, step) if step is not None else {},
        costs=_costs(runs, step) if step is not None else {},
    )


def _curve(x: Array, strata: Strata, how: Resampling) -> Curve:
    centre = value(strata, iqm)
    if min(len(stratum) for stratum in strata) < 2:
        return Curve(x, centre, None, None)
    return Curve(x, centre, *interval(strata, iqm, how))


def _other_axes(runs: Sequence[Run], request: Request, step: int) -> _Curves:
    """The curve over each cost that all of a group's runs tell."""
    found = {}
    for axis in AXES[1:]:
        curves = [over(run, run.series[request.metric], axis, step) for run in runs]
        told = [one for one in curves if one is not None]
        if len(told) == len(runs) and all(one.steps[-1] > 0 for one in told):
            x, y = on_grid(told, end=None)
            found[axis] = _curve(x, [y], request.how)
    return found


def _profile(scores: Strata, thresholds: Array, how: Resampling) -> Curve:
    above = profile(scores, thresholds)
    centre = value(above, mean)
    if min(len(stratum) for stratum in scores) < 2:
        return Curve(thresholds, centre, None, None)
    return Curve(thresholds, centre, *interval(above, mean, how))


def _thresholds(scores: Sequence[float]) -> Array:
    low, high = min(scores), max(scores)
    margin = 0.02 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, THRESHOLDS)


def _costs(runs: Sequence[Run], step: int) -> dict[Axis, Cost]:
    """What the runs had spent at a step, on the mean, of each cost that all of them tell."""
    found = {}
    for axis in AXES:
        told = [cost for run in runs if (cost := spent(run, axis)) is not None]
        if len(told) == len(runs):
            at = [float(cost.carried(np.array([step]))[0]) for cost in told]
            if all(map(math.isfinite, at)):
                found[axis] = Cost(float(np.mean(at)), all(exact(run, axis) for run in runs))
    return found


def _pairs(groups: Sequence[Group], how: Resampling) -> list[Pair]:
    """Each two groups, or each and the best where these were too many to read."""
    chosen = [(i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
    if len(groups) > ALL_PAIRS:
        chosen = [(0, j) for j in range(1, len(groups))]
    return [_pair(groups[i], groups[j], how) for i, j in chosen]


def _pair(first: Group, second: Group, how: Resampling) -> Pair:
    x, y = first.scores, second.scores
    sizes = sum(map(len, x)), sum(map(len, y))
    enough = len(x) == 1 and min(sizes) > 1
    return Pair(
        first=first.name,
        second=second.name,
        probability=probability_of_improvement(x, y, how),
        gap=float(np.mean([a.mean() - b.mean() for a, b in zip(x, y, strict=True)])),
        p=permutation_test(x, y, DEALS, how.seed),
        runs=sizes,
        needed=seeds_to_separate(x[0], y[0], ALPHA, POWER) if enough else None,
    )


def _foreign(scored: Sequence[Scored]) -> list[str]:
    sources = {run.source for one in scored for run in one.runs}
    return [f"{peer.name}: {peer.differs}" for peer in PEERS if peer.name in sources]


def _few(panels: Sequence[Panel]) -> list[str]:
    fewest = min(len(stratum) for panel in panels for group in panel.groups for stratum in group.scores)
    if fewest >= 10:
        return []
    return [
        f"the smallest group has {fewest} run{'s' * (fewest > 1)} of an environment: intervals from few runs are too "
        "narrow (docs/compare.md)"
    ]
