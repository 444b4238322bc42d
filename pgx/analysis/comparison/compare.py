"""Runs in, a comparison out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pgx.analysis.comparison.axes import STEPS
from pgx.analysis.comparison.grouping import check_keys, doubts, group_of, with_distinct_envs
from pgx.analysis.comparison.groups import curve_of, make_group, over_costs, thresholds_for
from pgx.analysis.comparison.pairs import pairs_of
from pgx.analysis.comparison.result import Comparison, Panel
from pgx.analysis.comparison.scores import OF_EPISODES, Scored, scales, score
from pgx.analysis.reading.peers import PEERS
from pgx.analysis.reading.run import Array, Run
from pgx.analysis.statistics import Resampling
from pgx.core.errors import UserError
from pgx.core.schema import nearest


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
    runs = with_distinct_envs(sorted(runs, key=lambda run: str(run.folder)))
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
    if request.metric not in tags and request.metric in OF_EPISODES:
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
        "no run has come so far"
        if request.at is not None and request.at > last
        else "no run has a row by then"
    )
    return f"--at {request.at}: {problem}; {request.metric} was logged from step {first:,} to {last:,}"


def _environment(scored: Scored, request: Request) -> Panel:
    names: dict[str, list[Run]] = {}
    for run in scored.runs:
        names.setdefault(group_of(run, request.by), []).append(run)
    thresholds = thresholds_for([curve[-1] for curve in scored.curves.values()])
    groups = []
    for name, runs in names.items():
        curves = np.stack([scored.curves[run.folder] for run in runs])
        drawn = over_costs(runs, curve_of(scored.grid, [curves], request.how))
        groups.append(make_group(name, runs, [curves], drawn, thresholds, scored.step, request.how))
    groups.sort(key=lambda group: -group.iqm.value)
    return Panel(
        title=f"{scored.env} at step {scored.step:,}",
        env=scored.env,
        step=scored.step,
        groups=groups,
        pairs=pairs_of(groups, request.how),
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
    thresholds = thresholds_for([float(v) for stratum in strata.values() for c in stratum for v in c[:, -1]])
    share = np.linspace(0.0, 1.0, strata[next(iter(strata))][0].shape[1])
    groups = [
        make_group(
            name,
            runs[name],
            curves,
            {STEPS: curve_of(share, curves, request.how)},
            thresholds,
            None,
            request.how,
        )
        for name, curves in strata.items()
    ]
    groups.sort(key=lambda group: -group.iqm.value)
    by = (
        "the reference's scores"
        if request.reference
        else "the lowest and highest that any run compared has been"
    )
    rule = f"0 and 1 of each environment are {by}: " + ", ".join(
        f"{env} {low:,.6g} and {high:,.6g}" for env, (low, high) in scale.items()
    )
    left = sorted({one.env for one in scored} - set(scale))
    rule += f"; left out, since nothing ever changes there: {', '.join(left)}" if left else ""
    return Panel(
        f"{len(kept)} environments, normalised", None, None, groups, pairs_of(groups, request.how)
    ), rule


def _foreign(scored: Sequence[Scored]) -> list[str]:
    sources = {run.source for one in scored for run in one.runs}
    return [f"{peer.name}: {peer.differs}" for peer in PEERS if peer.name in sources]


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
                f"{env}: one run of {', '.join(lone)}: nothing can be said of one seed, so its "
                "intervals, P and p are '-'"
            )
        if len(set(runs.values())) > 1:
            told = ", ".join(f"{name} {n}" for name, n in runs.items())
            lines.append(f"{env}: groups have different numbers of runs ({told})")
    fewest = min((n for _, runs in sizes for n in runs.values() if n > 1), default=10)
    if fewest < 10:
        lines.append(
            f"the smallest group with an interval has {fewest} runs: intervals from few runs are too narrow "
            "(docs/compare.md)"
        )
    return lines


def _count(runs: int) -> str:
    return f"{runs} run{'s' * (runs > 1)}"
