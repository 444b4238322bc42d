"""Signs of a critic's sickness, and of what becomes of the steps that are taken by it."""

from dataclasses import replace

import numpy as np

from pgx.analysis.ending import ending_of
from pgx.analysis.recorded import Curve, Numbers, Recorded
from pgx.analysis.signs import Evidence, spell, typical_value

LONG = 1 / 3  # share of a run: a critic falls behind for a while whenever the policy learns much
FIRST = 0.1  # share of a run that no critic is judged by


def errors(run: Recorded, key: str) -> tuple[Curve, Numbers]:
    """An explained variance, and the critic's error in units of what it has to learn, each [n].

    Where all episodes return the same there is no variance to explain, and the explained share is noise below 0
    while the critic is right to a hundredth; so its error is looked at beside it. The unit is 1 where rewards are
    scaled by the deviation of the return, and elsewhere the scale of discounted returns.
    """
    explained, loss = run.curves(key, "critic_loss")
    unit = 1.0 if run.value("env.scale_reward") is not False else typical_value(run)[1]
    error = np.sqrt(2 * loss.values) / (unit if np.isfinite(unit) and unit > 0 else 1.0)
    start = int(np.ceil(FIRST * len(explained)))
    return Curve(key, explained.steps[start:], explained.values[start:]), error[start:]


def explains_nothing(run: Recorded, bound: float) -> Evidence | None:
    """Explained variance at or below the bound for a third of the run, with errors that matter."""
    explained, error = errors(run, "explained_variance")
    wrong = Curve(explained.key, explained.steps, np.where(error > 0.1, explained.values, np.inf))
    return spell(wrong, lambda medians: medians <= bound, LONG)


def diverges(run: Recorded, bound: float) -> Evidence | None:
    """The critic's error is larger than the bound, in units of the return, and it explains less than nothing."""
    explained, error = errors(run, "explained_variance_after")
    wrong = Curve("critic_loss", explained.steps, np.where(explained.values < 0, error, 0.0))
    seen = spell(wrong, lambda medians: medians > bound, 0.25)
    return seen and replace(seen, said=("the error's size in units of the return",))


def gains_apart(run: Recorded, bound: float) -> Evidence | None:
    """The actual gain of the surrogate is less than the bound's share of the one predicted."""
    gained, predicted = run.curves("surrogate_gain", "predicted_gain")
    due = predicted.values > 0
    ratio = Curve("surrogate_gain", gained.steps[due], gained.values[due] / predicted.values[due])
    seen = spell(ratio, lambda medians: medians < bound, 0.5)
    return seen and replace(seen, said=("as a share of health/predicted_gain",))


def search_rejects(run: Recorded, bound: float) -> Evidence | None:
    """The line search finds no step in more than the bound's share of the looks."""
    fraction = run.curve("line_search_fraction")
    rejected = fraction.values == 0
    if not rejected.any() or rejected.mean() <= bound:
        return None
    steps = fraction.steps[rejected]
    return Evidence(fraction.key, int(steps[0]), int(steps[-1]), 0.0, float(rejected.mean()))


def progress(run: Recorded) -> tuple[Curve, Numbers, Numbers]:
    """The recent return, its medians, and the steps at which their windows end."""
    recent = run.curve("episode_return_recent")
    medians, _, ends = recent.medians()
    return recent, medians, ends


def lost(run: Recorded, bound: float) -> Evidence | None:
    """More than the bound's share of what the return had gained is gone at the end."""
    recent, medians, ends = progress(run)
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
    return Evidence(recent.key, int(ends[best]), int(ends[-1]), float(medians[-1]), 1.0, said)


def short_horizon(run: Recorded, bound: float) -> Evidence | None:
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
    return Evidence(returns.key, int(ends[best]), int(ends[-1]), float(earned[-1]), 1.0, said)


def stopped_exploring(run: Recorded, bound: float) -> Evidence | None:
    """Entropy below the bound's share of what it began with, while the return is not at its best."""
    entropy = run.curve("entropy")
    if len(entropy) == 0:
        return None
    # A policy may begin without any: log 2 is the most that the smallest choice there is can have.
    began = max(float(entropy.values[0]), float(np.log(2)))
    seen = spell(entropy, lambda medians: medians < bound * began, 0.25)
    _, medians, _ = progress(run)
    if seen is None or len(medians) == 0:
        return None
    gained = medians.max() - medians[0]
    stuck = gained <= 0.1 * max(abs(medians[0]), 1e-9) or medians[-1] < medians[0] + 0.75 * gained
    return seen if stuck else None


def undone(run: Recorded, bound: float) -> Evidence | None:
    """More updates than the bound made parameters NaN or infinite and were undone; or one ended the run."""
    skipped = run.curve("updates_skipped")
    if len(skipped) and skipped.values[-1] > bound:
        share = len(skipped) / len(run.rows)
        return Evidence(
            skipped.key, int(skipped.steps[0]), int(skipped.steps[-1]), float(skipped.values[-1]), share
        )
    ending = ending_of(run)
    if ending is None or not ending.of_numbers:
        return None
    return Evidence("updates_skipped", ending.steps, ending.steps, 1.0, 1.0, ("it ended the run",))


def environment_not_finite(run: Recorded, bound: float) -> Evidence | None:
    """Return evidence if an observation or a reward was NaN or infinite and ended the run."""
    ending = ending_of(run)
    if ending is None or not ending.of_environment:
        return None
    return Evidence("updates_skipped", ending.steps, ending.steps, 1.0, 1.0, ("it ended the run",))
