"""How a run ended, as its summary and its folder say.

Signs of problem: what a curve does and for how long; each a function of a run and of its bound.

Signs of a critic's problem, and of what becomes of the steps that are taken by it.

Signs of updates that have nothing to learn from, and of policies that stand still or that only widen.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pgx.analysis.curves import DiagnosedRun, MetricCurve
from pgx.analysis.statistics import Array

EndState = Literal["failed", "killed", "interrupted", "pruned"]
_BAD_STATES: tuple[EndState, ...] = ("failed", "killed")


@dataclass(frozen=True)
class RunEnd:
    """The end of a run that did not reach its last step."""

    state: EndState
    steps: int  # environment steps until then
    cause: str  # one line

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong, rather than someone stopped the run."""
        return self.state in _BAD_STATES

    @property
    def from_update(self) -> bool:
        """Whether an update's NaN or infinity ended the run; its cause names the command that reproduces it."""
        return self.cause.startswith(_NONFINITE_ERROR) and not self.from_environment

    @property
    def from_environment(self) -> bool:
        """Whether an environment's NaN or infinity ended the run."""
        return self.cause.startswith(_NONFINITE_ERROR) and _FROM_ENVIRONMENT.search(self.cause) is not None


_NONFINITE_ERROR = "NotFiniteError"  # how summary.json names it
_FROM_ENVIRONMENT = re.compile(r": the (observation|reward) of environment \d")


def run_end(run: DiagnosedRun) -> RunEnd | None:
    """Return how a run ended; None if it finished, is running, or does not say."""
    if run.running:
        return None
    steps = int(run.summary.get("steps") or (run.rows[-1]["step"] if run.rows else 0))
    match run.summary.get("status"):
        case "failed":
            cause = " ".join(str(run.summary.get("error") or "summary.json holds no reason").split())
            return RunEnd("failed", steps, cause)
        case "interrupted":
            return RunEnd("interrupted", steps, "stopped before trainer.total_steps, by Ctrl-C or a signal")
        case "pruned":
            return RunEnd("pruned", steps, "stopped by the search: other trials were better by then")
        case None if run.config and run.running is False:
            cause = (
                "no summary.json and no process at work: the process was killed (out of memory, SIGKILL, a machine "
                "that stopped)"
            )
            return RunEnd("killed", steps, cause)
    return None


_MIN_FRACTION = 0.25  # share of a run's windows: what passes sooner is a moment of a run that goes on


@dataclass(frozen=True)
class Detection:
    """What was seen, and when."""

    key: str  # of pgx.runs.metrics
    first_step: int  # environment steps
    last_step: int
    value: float  # median over the detectors in question
    fraction: float  # of the run's windows
    details: tuple[str, ...] = ()  # what belongs to it beside the metric


Detector = Callable[[DiagnosedRun, float], Detection | None]
Criterion = Callable[[Array], NDArray[np.bool_]]


def detect_lasting(curve: MetricCurve, criterion: Criterion, min_fraction: float) -> Detection | None:
    """Where the medians of a curve are criterion, if they are so for that share of the run; None: they are not.

    Args:
        curve: of n detectors.
        criterion: medians [m] to whether they are, [m].
        min_fraction: in [0, 1].
    """
    medians, begins, ends = curve.medians()
    flagged = criterion(medians)
    if not flagged.any() or flagged.mean() < min_fraction:
        return None
    value = float(np.median(medians[flagged]))
    return Detection(curve.key, int(begins[flagged][0]), int(ends[flagged][-1]), value, float(flagged.mean()))


def stays_above(key: str, min_fraction: float = _MIN_FRACTION) -> Detector:
    """A metric is above the bound."""
    return lambda run, bound: detect_lasting(run.curve(key), lambda medians: medians > bound, min_fraction)


def stays_below(key: str, min_fraction: float = _MIN_FRACTION) -> Detector:
    """A metric is below the bound."""
    return lambda run, bound: detect_lasting(run.curve(key), lambda medians: medians < bound, min_fraction)


def relative_to(key: str, detector: Detector) -> Detector:
    """The bound is so many times a value of the config."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        unit = run.number(key)
        seen = None if unit is None else detector(run, bound * unit)
        return seen and replace(seen, details=(f"{key}={unit:g}",))

    return detect


def with_setting(
    key: str, beyond: Callable[[float, float], bool], detector: Detector, bound: float
) -> Detector:
    """A value of the config is beyond its bound, and a sign shows that it matters, by a bound of its own."""

    def detect(run: DiagnosedRun, usual: float) -> Detection | None:
        value = run.number(key)
        if value is None or not beyond(value, usual):
            return None
        seen = detector(run, bound)
        return seen and replace(seen, details=(f"{key}={value:g}",))

    return detect


def any_of(*detectors: tuple[Detector, float]) -> Detector:
    """The first of several signs, each by its own bound, that shows."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        return next((seen for detector, own in detectors if (seen := detector(run, own)) is not None), None)

    return detect


def early_updates_too_large(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect KL above the bound, in nats, in single updates, even if only for a while.

    A policy that has become deterministic no longer moves, so the updates up to the last one above the bound count:
    a quarter of them, and at least three, must be above it.
    """
    kl = run.curve("kl")
    over = np.flatnonzero(kl.values > bound)
    if len(over) < 3 or len(over) < _MIN_FRACTION * (over[-1] + 1):
        return None
    value, share = float(np.median(kl.values[over])), len(over) / len(kl)
    return Detection("kl", int(kl.steps[over[0]]), int(kl.steps[over[-1]]), value, share)


def updates_too_large(run: DiagnosedRun, bound: float) -> Detection | None:
    """KL is above the bound for half of the run, above twice that in single updates, or far above it in the first."""
    return (
        stays_above("kl", 0.5)(run, bound)
        or early_updates_too_large(run, 2 * bound)
        or first_update_too_large(run, 20 * bound)
    )


def first_update_too_large(run: DiagnosedRun, bound: float) -> Detection | None:
    """The first update, from the broadest policy of the run, moves it by more than the bound, in nats."""
    kl = run.curve("kl")
    if len(kl) == 0 or kl.values[0] <= bound:
        return None
    return Detection("kl", int(kl.steps[0]), int(kl.steps[0]), float(kl.values[0]), 1 / len(kl))


def updates_too_small(run: DiagnosedRun, bound: float) -> Detection | None:
    """Updates hardly move the policy, while the learning rate has not been annealed to a tenth of what it was."""
    kl, rate = run.curves("kl", "learning_rate")
    if len(kl) == 0:
        return None
    due = rate.values >= 0.1 * rate.values[0]
    return detect_lasting(
        MetricCurve("kl", kl.steps[due], kl.values[due]), lambda medians: medians < bound, 0.5
    )


def whole_run(key: str, curve: MetricCurve, value: float) -> Detection:
    """Something that holds from the first detector to the last."""
    return Detection(key, int(curve.steps[0]), int(curve.steps[-1]), value, 1.0)


def identical_returns(run: DiagnosedRun, bound: float) -> Detection | None:
    """The returns of all episodes of the run lie no further apart than the bound."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or high.values.max() - low.values.min() > bound:
        return None
    return whole_run("episode_return", low, float(low.values[0]))


def typical_return(run: DiagnosedRun) -> tuple[MetricCurve, float]:
    """The scale of discounted returns, in reward: of a step, times the steps that the discount detectors ahead."""
    returned, length = run.curves("episode_return", "episode_length")
    discount = run.number("algo.discount")
    if len(returned) == 0 or discount is None:
        return returned, np.nan
    horizon = np.minimum(length.values, 1 / max(1 - discount, 1e-6))
    return returned, float(np.median(np.abs(returned.values) / length.values * horizon))


def large_unscaled_returns(run: DiagnosedRun, bound: float) -> Detection | None:
    """The critic, or the advantages, are of numbers far larger than a network begins with."""
    returned, scale = typical_return(run)
    if run.value("env.scale_reward") is not False or not scale > bound:
        return None
    seen = whole_run("episode_return", returned, float(np.median(returned.values)))
    return replace(seen, details=("env.scale_reward=false", f"discounted returns of about {scale:,.0f}"))


def few_rows(run: DiagnosedRun, bound: float) -> Detection | None:
    """An update learns from few environment steps."""
    rows = run.steps_per_update()
    if rows is None or rows >= bound:
        return None
    seen = whole_run("iteration", run.curve("iteration"), rows)
    return replace(seen, details=("environment steps an update",))


def few_episodes(run: DiagnosedRun, bound: float) -> Detection | None:
    """An update learns from few episodes."""
    episodes, iteration = run.curves("episodes", "iteration")
    if len(iteration) < 2:
        return None
    an_update = float(np.median(episodes.values[1:] / np.diff(iteration.values).clip(min=1)))
    if an_update >= bound:
        return None
    return replace(whole_run("episodes", episodes, an_update), details=("an update",))


def uncorrected_lag(run: DiagnosedRun, bound: float) -> Detection | None:
    """The acting policy is more updates behind than the bound, by what the runner says or was told."""
    lag = run.curve("policy_lag")
    if len(lag):
        return detect_lasting(lag, lambda medians: medians > bound, _MIN_FRACTION)
    told, ess = run.number("runner.lag"), run.curve("ess")
    if told is None or told <= bound or len(ess) == 0:
        return None
    return replace(whole_run("ess", ess, float(np.median(ess.values))), details=(f"runner.lag={told:g}",))


def entropy_held_up(run: DiagnosedRun, bound: float) -> Detection | None:
    """In the later half of a run entropy is no lower than that share of what it began with."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or not np.median(late) >= bound * entropy.values[0] > 0:
        return None
    return whole_run("entropy", entropy, float(np.median(late)))


def narrow_start(run: DiagnosedRun, bound: float) -> Detection | None:
    """The first policy's standard deviation, as the config has it, is below the bound, in nats."""
    began, entropy = run.number("policy.log_std_init"), run.curve("entropy")
    if began is None or began >= bound or len(entropy) == 0:
        return None
    seen = Detection("entropy", int(entropy.steps[0]), int(entropy.steps[0]), float(entropy.values[0]), 1.0)
    return replace(seen, details=(f"policy.log_std_init={began:g}",))


def ever_above(key: str) -> Detector:
    """A metric is above the bound in a single detector or more: what is too much to happen once."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        curve = run.curve(key)
        over = curve.values > bound
        if not over.any():
            return None
        steps, value = curve.steps[over], float(np.median(curve.values[over]))
        return Detection(key, int(steps[0]), int(steps[-1]), value, float(over.mean()))

    return detect


# What a step does that is longer than its quadratic model holds: each sign by a bound of its own.
full_step_fails = any_of(
    (stays_below("line_search_fraction"), 1.0),
    (stays_above("cg_residual"), 0.5),
    (relative_to("algo.max_kl", ever_above("kl")), 10.0),
)


def overdamped(run: DiagnosedRun, bound: float) -> Detection | None:
    """KL below the bound's share of the trust region, while no line search shortens the steps."""
    fraction = run.curve("line_search_fraction").values
    if len(fraction) and np.median(fraction) < 1:
        return None
    return relative_to("algo.max_kl", stays_below("kl", 0.5))(run, bound)


kl_above_bound = any_of(
    (relative_to("algo.max_kl", stays_above("kl")), 3.0),
    (relative_to("algo.kl_target", stays_above("kl")), 3.0),
)


def gradient_clipped(run: DiagnosedRun, bound: float) -> Detection | None:
    """The gradient is longer, by the bound's factor, than what the optimizer takes of it."""
    return relative_to("optimizer.max_grad_norm", stays_above("gradient_norm", 0.9))(run, bound)


_THIRD = 1 / 3  # share of a run: a critic falls behind for a while whenever the policy learns much
_CRITIC_WARM_UP = 0.1  # share of a run that no critic is judged by


def critic_errors(run: DiagnosedRun, key: str) -> tuple[MetricCurve, Array]:
    """An explained variance, and the critic's error in units of what it has to learn, each [n].

    Where all episodes return the same there is no variance to explain, and the explained share is noise below 0
    while the critic is right to a hundredth; so its error is looked at beside it. The unit is 1 where rewards are
    scaled by the deviation of the return, and elsewhere the scale of discounted returns.
    """
    explained, loss = run.curves(key, "critic_loss")
    unit = 1.0 if run.value("env.scale_reward") is not False else typical_return(run)[1]
    error = np.sqrt(2 * loss.values) / (unit if np.isfinite(unit) and unit > 0 else 1.0)
    start = int(np.ceil(_CRITIC_WARM_UP * len(explained)))
    return MetricCurve(key, explained.steps[start:], explained.values[start:]), error[start:]


def critic_explains_nothing(run: DiagnosedRun, bound: float) -> Detection | None:
    """Explained variance at or below the bound for a third of the run, with errors that matter."""
    explained, error = critic_errors(run, "explained_variance")
    wrong = MetricCurve(explained.key, explained.steps, np.where(error > 0.1, explained.values, np.inf))
    return detect_lasting(wrong, lambda medians: medians <= bound, _THIRD)


def critic_diverges(run: DiagnosedRun, bound: float) -> Detection | None:
    """The critic's error is larger than the bound, in units of the return, and it explains less than nothing."""
    explained, error = critic_errors(run, "explained_variance_after")
    wrong = MetricCurve("critic_loss", explained.steps, np.where(explained.values < 0, error, 0.0))
    seen = detect_lasting(wrong, lambda medians: medians > bound, 0.25)
    return seen and replace(seen, details=("the error's size in units of the return",))


def gain_below_prediction(run: DiagnosedRun, bound: float) -> Detection | None:
    """The actual gain of the surrogate is less than the bound's share of the one predicted."""
    gained, predicted = run.curves("surrogate_gain", "predicted_gain")
    due = predicted.values > 0
    ratio = MetricCurve("surrogate_gain", gained.steps[due], gained.values[due] / predicted.values[due])
    seen = detect_lasting(ratio, lambda medians: medians < bound, 0.5)
    return seen and replace(seen, details=("as a share of health/predicted_gain",))


def line_search_rejects(run: DiagnosedRun, bound: float) -> Detection | None:
    """The line search finds no step in more than the bound's share of the detectors."""
    fraction = run.curve("line_search_fraction")
    rejected = fraction.values == 0
    if not rejected.any() or rejected.mean() <= bound:
        return None
    steps = fraction.steps[rejected]
    return Detection(fraction.key, int(steps[0]), int(steps[-1]), 0.0, float(rejected.mean()))


def return_medians(run: DiagnosedRun) -> tuple[MetricCurve, Array, Array]:
    """The recent return, its medians, and the steps at which their windows end."""
    recent = run.curve("episode_return_recent")
    medians, _, ends = recent.medians()
    return recent, medians, ends


def return_lost(run: DiagnosedRun, bound: float) -> Detection | None:
    """More than the bound's share of what the return had gained is gone at the end."""
    recent, medians, ends = return_medians(run)
    if len(medians) == 0:
        return None
    best = int(medians.argmax())
    gained = medians[best] - medians[0]
    noise = 0.5 * max(
        abs(medians[best]), abs(medians[0])
    )  # returns of a policy that learns nothing vary as well
    if not gained > noise or (medians[best] - medians[-1]) / gained <= bound:
        return None
    said = (f"it was {medians[best]:.4g} at {int(ends[best]):,} steps",)
    return Detection(recent.key, int(ends[best]), int(ends[-1]), float(medians[-1]), 1.0, said)


def short_horizon(run: DiagnosedRun, bound: float) -> Detection | None:
    """More than the bound's share of the best return is gone while rewards a step rose and episodes became shorter.

    And episodes were longer at their best than the horizon 1 / (1 - discount): what the run gave up is mostly beyond
    what its discount lets it see, so the return may fall while the discounted return, which is optimised, rises.
    """
    discount = run.number("algo.discount")
    returns, length = run.curves("episode_return_recent", "episode_length")
    if discount is None or discount >= 1 or len(returns) == 0:
        return None
    horizon = 1 / (1 - discount)
    (earned, _, ends), (lasted, _, _) = returns.medians(), length.medians()
    best = int(earned.argmax())
    a_step = earned / lasted
    gone = earned[best] > 0 and earned[-1] < (1 - bound) * earned[best]
    faster = lasted[-1] < lasted[best] and a_step[-1] > a_step[best] > 0
    if not (gone and faster and lasted[best] > 2 * horizon):
        return None
    said = (
        f"{earned[best]:.4g} in {lasted[best]:.0f} steps at {int(ends[best]):,} steps, "
        f"{earned[-1]:.4g} in {lasted[-1]:.0f} at the end",
        f"1 / (1 - discount) = {horizon:.0f} steps",
    )
    return Detection(returns.key, int(ends[best]), int(ends[-1]), float(earned[-1]), 1.0, said)


def exploration_lost(run: DiagnosedRun, bound: float) -> Detection | None:
    """Entropy below the bound's share of what it began with, while the return is not at its best."""
    entropy = run.curve("entropy")
    if len(entropy) == 0:
        return None
    # A policy may begin without any: log 2 is the most that the smallest choice there is can have.
    began = max(float(entropy.values[0]), float(np.log(2)))
    seen = detect_lasting(entropy, lambda medians: medians < bound * began, 0.25)
    _, medians, _ = return_medians(run)
    if seen is None or len(medians) == 0:
        return None
    gained = medians.max() - medians[0]
    stuck = gained <= 0.1 * max(abs(medians[0]), 1e-9) or medians[-1] < medians[0] + 0.75 * gained
    return seen if stuck else None


def nonfinite_updates(run: DiagnosedRun, bound: float) -> Detection | None:
    """More updates than the bound made parameters NaN or infinite and were undone; or one ended the run."""
    skipped = run.curve("updates_skipped")
    if len(skipped) and skipped.values[-1] > bound:
        share = len(skipped) / len(run.rows)
        return Detection(
            skipped.key, int(skipped.steps[0]), int(skipped.steps[-1]), float(skipped.values[-1]), share
        )
    end = run_end(run)
    if end is None or not end.from_update:
        return None
    return Detection("updates_skipped", end.steps, end.steps, 1.0, 1.0, ("it ended the run",))


def environment_not_finite(run: DiagnosedRun, bound: float) -> Detection | None:
    """Return evidence if an observation or a reward was NaN or infinite and ended the run."""
    end = run_end(run)
    if end is None or not end.from_environment:
        return None
    return Detection("updates_skipped", end.steps, end.steps, 1.0, 1.0, ("it ended the run",))


_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # entropy of a standard normal distribution, in nats
_SMALLEST_ENTROPY = 0.1  # nats of one dimension, below which the number of dimensions cannot be told from it

_MIN_RISE = 1.5  # standard deviations; thirds of a curve that rises evenly differ by 2.3


def no_reward(run: DiagnosedRun, bound: float) -> Detection | None:
    """All episodes of the run return the bound, 0."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or low.values.min() != bound or high.values.max() != bound:
        return None
    return whole_run("episode_return", low, bound)


def zero_advantages(run: DiagnosedRun, bound: float) -> Detection | None:
    """Minibatches of one row are normalised, or the advantages do not differ where the returns do."""
    if run.number("algo.minibatch_size") == 1 and run.value("algo.normalize_advantage") == "minibatch":
        deviation = run.curve("advantage_std")
        said = ("algo.minibatch_size=1", "algo.normalize_advantage=minibatch")
        return replace(whole_run("advantage_std", deviation, 0.0), details=said)
    deviation, low, high = run.curves("advantage_std", "episode_return_min", "episode_return_max")
    due = low.values < high.values
    zero = due & (deviation.values <= bound)
    if not zero.any() or zero.sum() < 0.5 * due.sum():
        return None
    rows = run.steps_per_update()
    size = () if rows is None else (f"{rows:g} environment steps an update",)
    steps = deviation.steps[zero]
    return Detection("advantage_std", int(steps[0]), int(steps[-1]), 0.0, float(zero.mean()), size)


def actions_outside_bounds(run: DiagnosedRun, bound: float) -> Detection | None:
    """More than the bound's fraction of the actions is clipped while entropy does not fall."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or np.median(late) < entropy.values[0]:
        return None
    seen = detect_lasting(
        run.curve("clipped_action_fraction"), lambda medians: medians > bound, _MIN_FRACTION
    )
    return seen and replace(
        seen, details=(f"entropy {entropy.values[0]:.3g} to {entropy.values[-1]:.3g} nats",)
    )


def deviation_explodes(run: DiagnosedRun, bound: float) -> Detection | None:
    """Entropy exceeds its beginning by the bound, in nats, for each dimension of the actions.

    The summary of a run has their number. Before its end, and in runs of earlier versions, it follows from the entropy
    of a diagonal Gaussian of k dimensions, sum_i log(sigma_i) + k / 2 log(2 pi e), at the beginning of a run, where all
    sigma_i are exp(policy.log_std_init).
    """
    entropy, began = run.curve("entropy"), run.number("policy.log_std_init")
    if len(entropy) == 0 or began is None:
        return None
    over = entropy.values[0] + bound * _action_dimensions(run, float(entropy.values[0]), began)
    seen = detect_lasting(entropy, lambda medians: medians > over, _MIN_FRACTION)
    return seen and replace(seen, details=(f"{entropy.values[0]:.3g} at {int(entropy.steps[0]):,} steps",))


def _action_dimensions(run: DiagnosedRun, entropy: float, log_std: float) -> int:
    """The components of an action: those that the summary tells, or those of a Gaussian with this entropy."""
    told = run.summary.get("action_dimensions")
    if isinstance(told, int) and told >= 1:
        return told
    of_one = log_std + _NORMAL_ENTROPY
    return max(1, round(entropy / of_one)) if abs(of_one) > _SMALLEST_ENTROPY else 1


def policy_static(run: DiagnosedRun, bound: float) -> Detection | None:
    """KL is below the bound, in nats, in half of the updates, and the return does not rise."""
    kl, recent = run.curves("kl", "episode_return_recent")
    rate = run.curve("learning_rate")
    if len(rate):
        known = np.interp(kl.steps, rate.steps, rate.values)
        due = known >= 0.1 * known[0] if len(known) else known > 0
        kl = MetricCurve("kl", kl.steps[due], kl.values[due])
    seen = detect_lasting(kl, lambda medians: medians < bound, 0.5)
    third = len(recent) // 3
    if seen is None or third == 0:
        return None
    risen = recent.values[-third:].mean() - recent.values[:third].mean()
    if risen > _MIN_RISE * recent.values.std() > 0:
        return None
    said = [
        f"return {recent.values[:third].mean():.3g} at first, {recent.values[-third:].mean():.3g} at last"
    ]
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) and (same := float((low.values == high.values).mean())) >= 0.5:
        said.append(
            f"in {same:.0%} of the updates all episodes return the same, so they have little to learn from"
        )
    return replace(seen, details=tuple(said))
