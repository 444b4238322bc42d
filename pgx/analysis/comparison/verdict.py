"""The result of a comparison in words: which group leads, by how much, and how certain that is."""

from dataclasses import dataclass
from math import comb

from pgx.analysis.comparison.labels import label
from pgx.analysis.comparison.pairs import ALPHA
from pgx.analysis.comparison.result import Group, Pair, Panel
from pgx.analysis.comparison.tables import ENOUGH
from pgx.analysis.statistics import Estimate
from pgx.core.formatting import shown

LEAST = 4  # runs a group below which the permutation test cannot reach ALPHA


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
    unit = label(metric).title if panel.env else f"Normalised score ({label(metric).phrase})"
    return f"{unit}, interquartile mean over runs"


def _certainty(pair: Pair, best: Group, second: Group, level: float) -> list[str]:
    if pair.probability is None or pair.p is None:
        return [
            f"A single run says nothing about the spread over seeds: run {LEAST} seeds or more of each group."
        ]
    likely = f"A run of {best.name} scores more than a run of {second.name} with probability "
    likely += f"{pair.probability.value:.2f}{_interval(pair.probability, level, '.2f')}."
    test = f"Permutation test of the difference of the means: p = {pair.p:.2g}"
    if _separated(pair):
        return [likely, f"{test}, below {ALPHA}."]
    lines = [likely, f"{test}, not below {ALPHA}."]
    x, y = pair.runs
    least = (2 if x == y else 1) / comb(x + y, x)
    if len(best.scores) == 1 and least >= ALPHA:
        lines.append(
            f"With {x} and {y} runs this test cannot reach p < {ALPHA}: run {LEAST} seeds or more of each group."
        )
    elif pair.needed is not None and ENOUGH >= pair.needed > min(pair.runs):
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
    return pair.p is not None and pair.p < ALPHA and pair.gap > 0


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
    return shown(value) if panel.env else f"{value:.3f}"
