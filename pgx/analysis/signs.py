"""Signs of sickness: what a curve does and for how long; each a function of a run and of its bound."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgx.analysis.recorded import Curve, Numbers, Recorded

LASTING = 0.25  # share of a run's windows: what passes sooner is a moment of a run that goes on


@dataclass(frozen=True)
class Evidence:
    """What was seen, and when."""

    key: str  # of pgx.runs.metrics
    first: int  # environment steps
    last: int
    value: float  # median over the looks in question
    share: float  # of the run's windows
    said: tuple[str, ...] = ()  # what belongs to it beside the metric


Look = Callable[[Recorded, float], Evidence | None]
Where = Callable[[Numbers], NDArray[np.bool_]]


def spell(curve: Curve, sick: Where, lasting: float) -> Evidence | None:
    """Where the medians of a curve are sick, if they are so for that share of the run; None: they are not.

    Args:
        curve: of n looks.
        sick: medians [m] to whether they are, [m].
        lasting: in [0, 1].
    """
    medians, begins, ends = curve.medians()
    flagged = sick(medians)
    if not flagged.any() or flagged.mean() < lasting:
        return None
    value = float(np.median(medians[flagged]))
    return Evidence(curve.key, int(begins[flagged][0]), int(ends[flagged][-1]), value, float(flagged.mean()))


def stays_above(key: str, lasting: float = LASTING) -> Look:
    """A metric is above the bound."""
    return lambda run, bound: spell(run.curve(key), lambda medians: medians > bound, lasting)


def stays_below(key: str, lasting: float = LASTING) -> Look:
    """A metric is below the bound."""
    return lambda run, bound: spell(run.curve(key), lambda medians: medians < bound, lasting)


def times(key: str, look: Look) -> Look:
    """The bound is so many times a value of the config."""

    def looked(run: Recorded, bound: float) -> Evidence | None:
        unit = run.number(key)
        seen = None if unit is None else look(run, bound * unit)
        return seen and replace(seen, said=(f"{key}={unit:g}",))

    return looked


def setting(key: str, beyond: Callable[[float, float], bool], sign: Look, bound: float) -> Look:
    """A value of the config is beyond its bound, and a sign shows that it matters, by a bound of its own."""

    def looked(run: Recorded, usual: float) -> Evidence | None:
        value = run.number(key)
        if value is None or not beyond(value, usual):
            return None
        seen = sign(run, bound)
        return seen and replace(seen, said=(f"{key}={value:g}",))

    return looked


def any_of(*looks: tuple[Look, float]) -> Look:
    """The first of several signs, each by its own bound, that shows."""

    def looked(run: Recorded, bound: float) -> Evidence | None:
        return next((seen for look, own in looks if (seen := look(run, own)) is not None), None)

    return looked


def over_early_steps(run: Recorded, bound: float) -> Evidence | None:
    """Single updates move the policy by more than the bound, in nats, be it for a while alone.

    A policy that has become deterministic does not move any more, so the looks count up to the last that is over the
    bound: a quarter of them, and three at least.
    """
    kl = run.curve("kl")
    over = np.flatnonzero(kl.values > bound)
    if len(over) < 3 or len(over) < LASTING * (over[-1] + 1):
        return None
    value, share = float(np.median(kl.values[over])), len(over) / len(kl)
    return Evidence("kl", int(kl.steps[over[0]]), int(kl.steps[over[-1]]), value, share)


def steps_too_long(run: Recorded, bound: float) -> Evidence | None:
    """KL is above the bound for half of the run, above twice that in single updates, or far above it in the first."""
    return (
        stays_above("kl", 0.5)(run, bound)
        or over_early_steps(run, 2 * bound)
        or first_step_above(run, 20 * bound)
    )


def first_step_above(run: Recorded, bound: float) -> Evidence | None:
    """The first update, from the broadest policy of the run, moves it by more than the bound, in nats."""
    kl = run.curve("kl")
    if len(kl) == 0 or kl.values[0] <= bound:
        return None
    return Evidence("kl", int(kl.steps[0]), int(kl.steps[0]), float(kl.values[0]), 1 / len(kl))


def steps_too_short(run: Recorded, bound: float) -> Evidence | None:
    """Updates hardly move the policy, while the learning rate has not been annealed to a tenth of what it was."""
    kl, rate = run.curves("kl", "learning_rate")
    if len(kl) == 0:
        return None
    due = rate.values >= 0.1 * rate.values[0]
    return spell(Curve("kl", kl.steps[due], kl.values[due]), lambda medians: medians < bound, 0.5)


def whole_run(key: str, curve: Curve, value: float) -> Evidence:
    """Something that holds from the first look to the last."""
    return Evidence(key, int(curve.steps[0]), int(curve.steps[-1]), value, 1.0)


def same_return(run: Recorded, bound: float) -> Evidence | None:
    """The returns of all episodes of the run lie no further apart than the bound."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or high.values.max() - low.values.min() > bound:
        return None
    return whole_run("episode_return", low, float(low.values[0]))


def typical_value(run: Recorded) -> tuple[Curve, float]:
    """The scale of discounted returns, in reward: of a step, times the steps that the discount looks ahead."""
    returned, length = run.curves("episode_return", "episode_length")
    discount = run.number("algo.discount")
    if len(returned) == 0 or discount is None:
        return returned, np.nan
    horizon = np.minimum(length.values, 1 / max(1 - discount, 1e-6))
    return returned, float(np.median(np.abs(returned.values) / length.values * horizon))


def unscaled_values(run: Recorded, bound: float) -> Evidence | None:
    """The critic, or the advantages, are of numbers far larger than a network begins with."""
    returned, scale = typical_value(run)
    if run.value("env.scale_reward") is not False or not scale > bound:
        return None
    seen = whole_run("episode_return", returned, float(np.median(returned.values)))
    return replace(seen, said=("env.scale_reward=false", f"discounted returns of about {scale:,.0f}"))


def few_rows(run: Recorded, bound: float) -> Evidence | None:
    """An update learns from few environment steps."""
    rows = run.rows_an_update()
    if rows is None or rows >= bound:
        return None
    seen = whole_run("iteration", run.curve("iteration"), rows)
    return replace(seen, said=("environment steps an update",))


def few_episodes(run: Recorded, bound: float) -> Evidence | None:
    """An update learns from few episodes."""
    episodes, iteration = run.curves("episodes", "iteration")
    if len(iteration) < 2:
        return None
    an_update = float(np.median(episodes.values[1:] / np.diff(iteration.values).clip(min=1)))
    if an_update >= bound:
        return None
    return replace(whole_run("episodes", episodes, an_update), said=("an update",))


def uncorrected_lag(run: Recorded, bound: float) -> Evidence | None:
    """The acting policy is more updates behind than the bound, by what the runner says or was told."""
    lag = run.curve("policy_lag")
    if len(lag):
        return spell(lag, lambda medians: medians > bound, LASTING)
    told, ess = run.number("runner.lag"), run.curve("ess")
    if told is None or told <= bound or len(ess) == 0:
        return None
    return replace(whole_run("ess", ess, float(np.median(ess.values))), said=(f"runner.lag={told:g}",))


def entropy_held_up(run: Recorded, bound: float) -> Evidence | None:
    """In the later half of a run entropy is no lower than that share of what it began with."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or not np.median(late) >= bound * entropy.values[0] > 0:
        return None
    return whole_run("entropy", entropy, float(np.median(late)))


def narrow_start(run: Recorded, bound: float) -> Evidence | None:
    """The first policy's standard deviation, as the config has it, is below the bound, in nats."""
    began, entropy = run.number("policy.log_std_init"), run.curve("entropy")
    if began is None or began >= bound or len(entropy) == 0:
        return None
    seen = Evidence("entropy", int(entropy.steps[0]), int(entropy.steps[0]), float(entropy.values[0]), 1.0)
    return replace(seen, said=(f"policy.log_std_init={began:g}",))


def once_above(key: str) -> Look:
    """A metric is above the bound in a single look or more: what is too much to happen once."""

    def looked(run: Recorded, bound: float) -> Evidence | None:
        curve = run.curve(key)
        over = curve.values > bound
        if not over.any():
            return None
        steps, value = curve.steps[over], float(np.median(curve.values[over]))
        return Evidence(key, int(steps[0]), int(steps[-1]), value, float(over.mean()))

    return looked


# What a step does that is longer than its quadratic model holds: each sign by a bound of its own.
full_step_fails = any_of(
    (stays_below("line_search_fraction"), 1.0),
    (stays_above("cg_residual"), 0.5),
    (times("algo.max_kl", once_above("kl")), 10.0),
)


def damped_away(run: Recorded, bound: float) -> Evidence | None:
    """KL below the bound's share of the trust region, while no line search shortens the steps."""
    fraction = run.curve("line_search_fraction").values
    if len(fraction) and np.median(fraction) < 1:
        return None
    return times("algo.max_kl", stays_below("kl", 0.5))(run, bound)


over_its_bound = any_of(
    (times("algo.max_kl", stays_above("kl")), 3.0), (times("algo.kl_target", stays_above("kl")), 3.0)
)


def gradient_clipped(run: Recorded, bound: float) -> Evidence | None:
    """The gradient is longer, by the bound's factor, than what the optimizer takes of it."""
    return times("optimizer.max_grad_norm", stays_above("gradient_norm", 0.9))(run, bound)
