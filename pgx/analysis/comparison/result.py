"""What a comparison has found; plain values that tables, plots and files are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgx.analysis.comparison.axes import Axis
from pgx.analysis.reading.run import Array, Run
from pgx.analysis.statistics import Estimate, Strata


@dataclass(frozen=True)
class Curve:
    """A statistic over an axis, with its interval where there are runs enough for one."""

    x: Array  # [G]
    y: Array  # [G]
    low: Array | None
    high: Array | None


@dataclass(frozen=True)
class Cost:
    """What a group's runs spent, on the mean."""

    value: float
    exact: bool  # else: estimated between rows


@dataclass(frozen=True)
class Group:
    """Runs that are taken for one thing, over seeds."""

    name: str
    runs: Sequence[Run]
    scores: Strata  # [n] an environment
    iqm: Estimate
    median: Estimate
    mean: Estimate
    area: Estimate  # IQM over runs of each run's mean over training
    curves: Mapping[Axis, Curve]  # IQM at each step, over the median cost until then
    run_curves: Strata  # [n, G] an environment: each run's metric, at the steps of curves[STEPS].x
    profile: Curve  # share of runs above a score
    health: Mapping[str, tuple[float, float]]  # by tag: mean over training, and over its last tenth
    health_curves: Mapping[str, Curve]  # by tag: median over runs at each step
    costs: Mapping[Axis, Cost]


@dataclass(frozen=True)
class Pair:
    """Two groups beside each other, the first with the higher score."""

    first: str
    second: str
    probability: (
        Estimate | None
    )  # that a run of the first scores more than one of the second; None: a lone run
    gap: float  # difference of their means
    p: float | None  # of that difference, by permutation; None: a group has a single run on an environment
    runs: tuple[int, int]
    needed: int | None  # runs each for a test to see the difference; None: not told


@dataclass(frozen=True)
class Panel:
    """One environment, or all of them in normalised scores."""

    title: str
    env: str | None  # None: all
    step: int | None  # at which scores are taken
    groups: Sequence[Group]  # highest score first
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Comparison:
    """All of it."""

    metric: str
    level: float  # of the intervals
    panels: Sequence[Panel]
    notes: Sequence[str]  # what a reader has to know of it
    rule: str | None  # by which scores were normalised
