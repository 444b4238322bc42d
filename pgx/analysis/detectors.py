"""Detectors of problems: functions of a run and a bound that return the evidence, or None.

Also how a run ended, from its summary and its folder.
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

EndState = Literal["failed", "killed", "interrupted", "stopped", "pruned"]
_BAD_STATES: tuple[EndState, ...] = ("failed", "killed")


@dataclass(frozen=True)
class RunEnd:
    """End of a run that did not reach its last step.

    Args:
        state: kind of the end.
        steps: environment steps until then.
        cause: one line.
    """

    state: EndState
    steps: int
    cause: str

    @property
    def is_failure(self) -> bool:
        """True if the run failed or was killed, rather than stopped by the user or a search."""
        return self.state in _BAD_STATES

    @property
    def from_update(self) -> bool:
        """True if NaN or infinity in an update ended the run; `cause` names the command that reproduces it."""
        return self.cause.startswith(_NONFINITE_ERROR) and not self.from_environment

    @property
    def from_environment(self) -> bool:
        """True if NaN or infinity from an environment ended the run."""
        return self.cause.startswith(_NONFINITE_ERROR) and _FROM_ENVIRONMENT.search(self.cause) is not None


_NONFINITE_ERROR = "NotFiniteError"  # name of the exception in summary.json
_FROM_ENVIRONMENT = re.compile(r": the (observation|reward) of environment \d")


def run_end(run: DiagnosedRun) -> RunEnd | None:
    """Return how a run ended; None if it finished, is running, or its end is unknown."""
    if run.running:
        return None
    steps = int(run.summary.get("steps") or (run.rows[-1]["step"] if run.rows else 0))
    match run.summary.get("status"):
        case "failed":
            cause = " ".join(str(run.summary.get("error") or "summary.json gives no reason").split())
            return RunEnd("failed", steps, cause)
        case "interrupted":
            return RunEnd("interrupted", steps, "stopped before trainer.total_steps, by Ctrl-C or a signal")
        case "stopped":
            return RunEnd("stopped", steps, "stopped before trainer.total_steps, by a callback")
        case "pruned":
            return RunEnd("pruned", steps, "stopped by the search, because other trials were better")
        case None if run.config and run.running is False:
            cause = (
                "summary.json is missing and no process is running: the process was killed (out of memory, SIGKILL, "
                "or the machine stopped)"
            )
            return RunEnd("killed", steps, cause)
    return None


_MIN_FRACTION = 0.25  # of a run's windows; shorter episodes are transient


@dataclass(frozen=True)
class Detection:
    """Evidence of a problem: values of a metric, and when.

    Args:
        key: of the metric, in pgx.runs.metrics.
        first_step, last_step: environment steps between which the evidence lies.
        value: median of the values in question.
        fraction: of the run's windows, in (0, 1].
        details: further facts, for example config values.
    """

    key: str
    first_step: int
    last_step: int
    value: float
    fraction: float
    details: tuple[str, ...] = ()


Detector = Callable[[DiagnosedRun, float], Detection | None]
Criterion = Callable[[Array], NDArray[np.bool_]]


def detect_lasting(curve: MetricCurve, criterion: Criterion, min_fraction: float) -> Detection | None:
    """Return a detection if enough medians of a curve meet a criterion.

    Args:
        curve: of a metric.
        criterion: maps medians [m] to booleans [m].
        min_fraction: fraction of the medians that must meet it, in [0, 1].
    """
    medians, begins, ends = curve.medians()
    flagged = criterion(medians)
    if not flagged.any() or flagged.mean() < min_fraction:
        return None
    value = float(np.median(medians[flagged]))
    return Detection(curve.key, int(begins[flagged][0]), int(ends[flagged][-1]), value, float(flagged.mean()))


def stays_above(key: str, min_fraction: float = _MIN_FRACTION) -> Detector:
    """Return a detector of a metric above the bound."""
    return lambda run, bound: detect_lasting(run.curve(key), lambda medians: medians > bound, min_fraction)


def stays_below(key: str, min_fraction: float = _MIN_FRACTION) -> Detector:
    """Return a detector of a metric below the bound."""
    return lambda run, bound: detect_lasting(run.curve(key), lambda medians: medians < bound, min_fraction)


def relative_to(key: str, detector: Detector) -> Detector:
    """Return a detector whose bound is a multiple of a config value."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        unit = run.number(key)
        detection = None if unit is None else detector(run, bound * unit)
        return detection and replace(detection, details=(f"{key}={unit:g}",))

    return detect


def with_setting(
    key: str, beyond: Callable[[float, float], bool], detector: Detector, bound: float
) -> Detector:
    """Return a detector of a config value beyond the bound, if another detector finds an effect of it.

    Args:
        key: of the config value.
        beyond: maps (value, bound) to True if the value is beyond the bound.
        detector: of the effect.
        bound: of that detector.
    """

    def detect(run: DiagnosedRun, usual: float) -> Detection | None:
        value = run.number(key)
        if value is None or not beyond(value, usual):
            return None
        detection = detector(run, bound)
        return detection and replace(detection, details=(f"{key}={value:g}",))

    return detect


def any_of(*detectors: tuple[Detector, float]) -> Detector:
    """Return a detector that tries several detectors, each with its own bound, and returns the first detection."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        return next(
            (detection for detector, own in detectors if (detection := detector(run, own)) is not None), None
        )

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
    """Detect KL above the bound in half of the run, above twice that in early updates, or 20 times in the first."""
    return (
        stays_above("kl", 0.5)(run, bound)
        or early_updates_too_large(run, 2 * bound)
        or first_update_too_large(run, 20 * bound)
    )


def first_update_too_large(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect KL above the bound, in nats, in the first update, when the policy is broadest."""
    kl = run.curve("kl")
    if len(kl) == 0 or kl.values[0] <= bound:
        return None
    return Detection("kl", int(kl.steps[0]), int(kl.steps[0]), float(kl.values[0]), 1 / len(kl))


def updates_too_small(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect KL below the bound before the learning rate is annealed to a tenth of its initial value."""
    kl, rate = run.curves("kl", "learning_rate")
    if len(kl) == 0:
        return None
    due = rate.values >= 0.1 * rate.values[0]
    return detect_lasting(
        MetricCurve("kl", kl.steps[due], kl.values[due]), lambda medians: medians < bound, 0.5
    )


def whole_run(key: str, curve: MetricCurve, value: float) -> Detection:
    """Return a detection that covers all rows of a curve."""
    return Detection(key, int(curve.steps[0]), int(curve.steps[-1]), value, 1.0)


def identical_returns(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that the returns of all episodes differ by at most the bound."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or high.values.max() - low.values.min() > bound:
        return None
    return whole_run("episode_return", low, float(low.values[0]))


def typical_return(run: DiagnosedRun) -> tuple[MetricCurve, float]:
    """Return the curve of returns and the typical size of discounted returns, in reward.

    The size is the reward per step times the smaller of the episode length and 1 / (1 - discount).
    """
    returned, length = run.curves("episode_return", "episode_length")
    discount = run.number("algo.discount")
    if len(returned) == 0 or discount is None:
        return returned, np.nan
    horizon = np.minimum(length.values, 1 / max(1 - discount, 1e-6))
    return returned, float(np.median(np.abs(returned.values) / length.values * horizon))


def large_unscaled_returns(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect discounted returns above the bound without reward scaling: a critic's initial outputs are far smaller."""
    returned, scale = typical_return(run)
    if run.value("env.scale_reward") is not False or not scale > bound:
        return None
    detection = whole_run("episode_return", returned, float(np.median(returned.values)))
    return replace(detection, details=("env.scale_reward=false", f"discounted returns of about {scale:,.0f}"))


def few_rows(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect updates of fewer environment steps than the bound."""
    rows = run.steps_per_update()
    if rows is None or rows >= bound:
        return None
    detection = whole_run("iteration", run.curve("iteration"), rows)
    return replace(detection, details=("environment steps per update",))


def few_episodes(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect updates of fewer episodes than the bound."""
    episodes, iteration = run.curves("episodes", "iteration")
    if len(iteration) < 2:
        return None
    an_update = float(np.median(episodes.values[1:] / np.diff(iteration.values).clip(min=1)))
    if an_update >= bound:
        return None
    return replace(whole_run("episodes", episodes, an_update), details=("per update",))


def uncorrected_lag(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect a policy lag above the bound, in updates: measured, or else the value of runner.lag."""
    lag = run.curve("policy_lag")
    if len(lag):
        return detect_lasting(lag, lambda medians: medians > bound, _MIN_FRACTION)
    lag_setting, ess = run.number("runner.lag"), run.curve("ess")
    if lag_setting is None or lag_setting <= bound or len(ess) == 0:
        return None
    return replace(
        whole_run("ess", ess, float(np.median(ess.values))), details=(f"runner.lag={lag_setting:g}",)
    )


def entropy_held_up(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that entropy in the second half of a run is at least the bound times its initial value."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or not np.median(late) >= bound * entropy.values[0] > 0:
        return None
    return whole_run("entropy", entropy, float(np.median(late)))


def narrow_start(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect an initial log standard deviation below the bound, from the config."""
    began, entropy = run.number("policy.log_std_init"), run.curve("entropy")
    if began is None or began >= bound or len(entropy) == 0:
        return None
    detection = Detection(
        "entropy", int(entropy.steps[0]), int(entropy.steps[0]), float(entropy.values[0]), 1.0
    )
    return replace(detection, details=(f"policy.log_std_init={began:g}",))


def ever_above(key: str) -> Detector:
    """Return a detector of a metric above the bound in a single update."""

    def detect(run: DiagnosedRun, bound: float) -> Detection | None:
        curve = run.curve(key)
        over = curve.values > bound
        if not over.any():
            return None
        steps, value = curve.steps[over], float(np.median(curve.values[over]))
        return Detection(key, int(steps[0]), int(steps[-1]), value, float(over.mean()))

    return detect


# Effects of steps that are too long for the quadratic model of the objective.
full_step_fails = any_of(
    (stays_below("line_search_fraction"), 1.0),
    (stays_above("cg_residual"), 0.5),
    (relative_to("algo.max_kl", ever_above("kl")), 10.0),
)


def overdamped(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect KL below the bound times algo.max_kl, unless a line search shortens the steps."""
    fraction = run.curve("line_search_fraction").values
    if len(fraction) and np.median(fraction) < 1:
        return None
    return relative_to("algo.max_kl", stays_below("kl", 0.5))(run, bound)


kl_above_bound = any_of(
    (relative_to("algo.max_kl", stays_above("kl")), 3.0),
    (relative_to("algo.kl_target", stays_above("kl")), 3.0),
)


def gradient_clipped(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect a gradient norm above the bound times optimizer.max_grad_norm."""
    return relative_to("optimizer.max_grad_norm", stays_above("gradient_norm", 0.9))(run, bound)


_MIN_CRITIC_FRACTION = (
    1 / 3
)  # of a run: a critic falls behind for a while whenever the policy improves quickly
_CRITIC_WARM_UP = 0.1  # fraction of a run that is left out


def critic_errors(run: DiagnosedRun, key: str) -> tuple[MetricCurve, Array]:
    """Return a curve of explained variance, and the critic's error relative to the size of its targets [n].

    If all episodes return the same there is no variance to explain, and explained variance is noise below 0 although
    the critic is accurate; so the error is considered as well. Its unit is 1 if rewards are scaled by the standard
    deviation of the return, else the typical discounted return. The first tenth of the run is left out.
    """
    explained, loss = run.curves(key, "critic_loss")
    unit = 1.0 if run.value("env.scale_reward") is not False else typical_return(run)[1]
    error = np.sqrt(2 * loss.values) / (unit if np.isfinite(unit) and unit > 0 else 1.0)
    start = int(np.ceil(_CRITIC_WARM_UP * len(explained)))
    return MetricCurve(key, explained.steps[start:], explained.values[start:]), error[start:]


def critic_explains_nothing(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect explained variance at most the bound in a third of the run, with relative errors above 0.1."""
    explained, error = critic_errors(run, "explained_variance")
    wrong = MetricCurve(explained.key, explained.steps, np.where(error > 0.1, explained.values, np.inf))
    return detect_lasting(wrong, lambda medians: medians <= bound, _MIN_CRITIC_FRACTION)


def critic_diverges(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect relative errors of the critic above the bound, with negative explained variance."""
    explained, error = critic_errors(run, "explained_variance_after")
    wrong = MetricCurve("critic_loss", explained.steps, np.where(explained.values < 0, error, 0.0))
    detection = detect_lasting(wrong, lambda medians: medians > bound, 0.25)
    return detection and replace(detection, details=("error in units of the return",))


def gain_below_prediction(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that the actual gain of the surrogate is below the bound times the predicted gain."""
    gained, predicted = run.curves("surrogate_gain", "predicted_gain")
    due = predicted.values > 0
    ratio = MetricCurve("surrogate_gain", gained.steps[due], gained.values[due] / predicted.values[due])
    detection = detect_lasting(ratio, lambda medians: medians < bound, 0.5)
    return detection and replace(detection, details=("relative to health/predicted_gain",))


def line_search_rejects(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that the line search finds no step in more than the bound, a fraction of the updates."""
    fraction = run.curve("line_search_fraction")
    rejected = fraction.values == 0
    if not rejected.any() or rejected.mean() <= bound:
        return None
    steps = fraction.steps[rejected]
    return Detection(fraction.key, int(steps[0]), int(steps[-1]), 0.0, float(rejected.mean()))


def return_medians(run: DiagnosedRun) -> tuple[MetricCurve, Array, Array]:
    """Return the curve of the recent return, its medians, and the steps at which their windows end."""
    recent = run.curve("episode_return_recent")
    medians, _, ends = recent.medians()
    return recent, medians, ends


def return_lost(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that more than the bound, a fraction of the gain in return, is lost at the end."""
    recent, medians, ends = return_medians(run)
    if len(medians) == 0:
        return None
    best = int(medians.argmax())
    gained = medians[best] - medians[0]
    # Returns of a policy that learns nothing vary as well.
    noise = 0.5 * max(abs(medians[best]), abs(medians[0]))
    if not gained > noise or (medians[best] - medians[-1]) / gained <= bound:
        return None
    details = (f"it was {medians[best]:.4g} at {int(ends[best]):,} steps",)
    return Detection(recent.key, int(ends[best]), int(ends[-1]), float(medians[-1]), 1.0, details)


def short_horizon(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that the return fell by more than the bound, a fraction of the best, while rewards per step rose.

    Episodes must have become shorter, and at the best return longer than twice the horizon 1 / (1 - discount). Most of
    what is lost then lies beyond the horizon, so the return may fall while the discounted return, which is optimized,
    rises.
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
    details = (
        f"{earned[best]:.4g} in {lasted[best]:.0f} steps at {int(ends[best]):,} steps, "
        f"{earned[-1]:.4g} in {lasted[-1]:.0f} at the end",
        f"1 / (1 - discount) = {horizon:.0f} steps",
    )
    return Detection(returns.key, int(ends[best]), int(ends[-1]), float(earned[-1]), 1.0, details)


def exploration_lost(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect entropy below the bound times its initial value, while the return is not at its best."""
    entropy = run.curve("entropy")
    if len(entropy) == 0:
        return None
    # The initial entropy may be 0. log 2 is the largest entropy of a choice between two actions.
    began = max(float(entropy.values[0]), float(np.log(2)))
    detection = detect_lasting(entropy, lambda medians: medians < bound * began, 0.25)
    _, medians, _ = return_medians(run)
    if detection is None or len(medians) == 0:
        return None
    gained = medians.max() - medians[0]
    stuck = gained <= 0.1 * max(abs(medians[0]), 1e-9) or medians[-1] < medians[0] + 0.75 * gained
    return detection if stuck else None


def nonfinite_updates(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect more undone updates (NaN or infinite parameters) than the bound, or one that ended the run."""
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
    """Detect that an observation or a reward that was NaN or infinite ended the run."""
    end = run_end(run)
    if end is None or not end.from_environment:
        return None
    return Detection("updates_skipped", end.steps, end.steps, 1.0, 1.0, ("it ended the run",))


_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # entropy of a standard normal distribution, in nats
_SMALLEST_ENTROPY = 0.1  # nats per dimension, below which the entropy does not tell the number of dimensions

_MIN_RISE = 1.5  # standard deviations; the outer thirds of a linear curve differ by 2.3


def no_reward(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that all episodes return the bound, 0."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or low.values.min() != bound or high.values.max() != bound:
        return None
    return whole_run("episode_return", low, bound)


def zero_advantages(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect minibatches of one row with normalized advantages, or equal advantages although returns differ."""
    if run.number("algo.minibatch_size") == 1 and run.value("algo.normalize_advantage") == "minibatch":
        deviation = run.curve("advantage_std")
        details = ("algo.minibatch_size=1", "algo.normalize_advantage=minibatch")
        return replace(whole_run("advantage_std", deviation, 0.0), details=details)
    deviation, low, high = run.curves("advantage_std", "episode_return_min", "episode_return_max")
    due = low.values < high.values
    zero = due & (deviation.values <= bound)
    if not zero.any() or zero.sum() < 0.5 * due.sum():
        return None
    rows = run.steps_per_update()
    size = () if rows is None else (f"{rows:g} environment steps per update",)
    steps = deviation.steps[zero]
    return Detection("advantage_std", int(steps[0]), int(steps[-1]), 0.0, float(zero.mean()), size)


def actions_outside_bounds(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect that more than the bound, a fraction of the actions, is clipped while entropy does not fall."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or np.median(late) < entropy.values[0]:
        return None
    detection = detect_lasting(
        run.curve("clipped_action_fraction"), lambda medians: medians > bound, _MIN_FRACTION
    )
    return detection and replace(
        detection, details=(f"entropy {entropy.values[0]:.3g} to {entropy.values[-1]:.3g} nats",)
    )


def deviation_explodes(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect entropy above its initial value by more than the bound, in nats per action dimension.

    The number of dimensions is in the summary. While the run is running, and in runs of earlier versions, it follows
    from the initial entropy of a diagonal Gaussian of k dimensions, sum_i log(sigma_i) + k / 2 log(2 pi e), where all
    sigma_i are exp(policy.log_std_init).
    """
    entropy, began = run.curve("entropy"), run.number("policy.log_std_init")
    if len(entropy) == 0 or began is None:
        return None
    over = entropy.values[0] + bound * _action_dimensions(run, float(entropy.values[0]), began)
    detection = detect_lasting(entropy, lambda medians: medians > over, _MIN_FRACTION)
    return detection and replace(
        detection, details=(f"{entropy.values[0]:.3g} at {int(entropy.steps[0]):,} steps",)
    )


def _action_dimensions(run: DiagnosedRun, entropy: float, log_std: float) -> int:
    """Return the number of action dimensions: from the summary, or that of a Gaussian with this entropy."""
    dimensions = run.summary.get("action_dimensions")
    if isinstance(dimensions, int) and dimensions >= 1:
        return dimensions
    of_one = log_std + _NORMAL_ENTROPY
    return max(1, round(entropy / of_one)) if abs(of_one) > _SMALLEST_ENTROPY else 1


def policy_static(run: DiagnosedRun, bound: float) -> Detection | None:
    """Detect KL below the bound, in nats, in half of the updates, while the return does not rise."""
    kl, recent = run.curves("kl", "episode_return_recent")
    rate = run.curve("learning_rate")
    if len(rate):
        known = np.interp(kl.steps, rate.steps, rate.values)
        due = known >= 0.1 * known[0] if len(known) else known > 0
        kl = MetricCurve("kl", kl.steps[due], kl.values[due])
    detection = detect_lasting(kl, lambda medians: medians < bound, 0.5)
    third = len(recent) // 3
    if detection is None or third == 0:
        return None
    risen = recent.values[-third:].mean() - recent.values[:third].mean()
    if risen > _MIN_RISE * recent.values.std() > 0:
        return None
    details = [
        f"return {recent.values[:third].mean():.3g} at first, {recent.values[-third:].mean():.3g} at last"
    ]
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) and (same := float((low.values == high.values).mean())) >= 0.5:
        details.append(
            f"in {same:.0%} of the updates all episodes have the same return, so there is little to learn from"
        )
    return replace(detection, details=tuple(details))
