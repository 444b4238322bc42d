"""Signs of updates that have nothing to learn from, and of policies that stand still or that only widen."""

import math
from dataclasses import replace

import numpy as np

from pgx.analysis.recorded import Curve, Recorded
from pgx.analysis.signs import LASTING, Evidence, spell, whole_run

HALF_LOG_2_PI_E = 0.5 * math.log(2 * math.pi * math.e)  # entropy of a standard normal distribution, in nats
SMALLEST_ENTROPY = 0.1  # nats of one dimension, below which the number of dimensions cannot be told from it

RISEN = 1.5  # standard deviations; thirds of a curve that rises evenly differ by 2.3


def no_reward(run: Recorded, bound: float) -> Evidence | None:
    """All episodes of the run return the bound, 0."""
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) == 0 or low.values.min() != bound or high.values.max() != bound:
        return None
    return whole_run("episode_return", low, bound)


def zero_advantages(run: Recorded, bound: float) -> Evidence | None:
    """Minibatches of one row are normalised, or the advantages do not differ where the returns do."""
    if run.number("algo.minibatch_size") == 1 and run.value("algo.normalize_advantage") == "minibatch":
        deviation = run.curve("advantage_std")
        said = ("algo.minibatch_size=1", "algo.normalize_advantage=minibatch")
        return replace(whole_run("advantage_std", deviation, 0.0), said=said)
    deviation, low, high = run.curves("advantage_std", "episode_return_min", "episode_return_max")
    due = low.values < high.values
    zero = due & (deviation.values <= bound)
    if not zero.any() or zero.sum() < 0.5 * due.sum():
        return None
    rows = run.rows_an_update()
    size = () if rows is None else (f"{rows:g} environment steps an update",)
    steps = deviation.steps[zero]
    return Evidence("advantage_std", int(steps[0]), int(steps[-1]), 0.0, float(zero.mean()), size)


def outside_bounds(run: Recorded, bound: float) -> Evidence | None:
    """More than the bound's fraction of the actions is clipped while entropy does not fall."""
    entropy = run.curve("entropy")
    late = entropy.values[len(entropy) // 2 :]
    if len(late) == 0 or np.median(late) < entropy.values[0]:
        return None
    seen = spell(run.curve("clipped_action_fraction"), lambda medians: medians > bound, LASTING)
    return seen and replace(seen, said=(f"entropy {entropy.values[0]:.3g} to {entropy.values[-1]:.3g} nats",))


def deviation_explodes(run: Recorded, bound: float) -> Evidence | None:
    """Entropy exceeds its beginning by the bound, in nats, for each dimension of the actions.

    The summary of a run has their number. Before its end, and in runs of earlier versions, it follows from the entropy
    of a diagonal Gaussian of k dimensions, sum_i log(sigma_i) + k / 2 log(2 pi e), at the beginning of a run, where all
    sigma_i are exp(policy.log_std_init).
    """
    entropy, began = run.curve("entropy"), run.number("policy.log_std_init")
    if len(entropy) == 0 or began is None:
        return None
    over = entropy.values[0] + bound * _action_dimensions(run, float(entropy.values[0]), began)
    seen = spell(entropy, lambda medians: medians > over, LASTING)
    return seen and replace(seen, said=(f"{entropy.values[0]:.3g} at {int(entropy.steps[0]):,} steps",))


def _action_dimensions(run: Recorded, entropy: float, log_std: float) -> int:
    """The components of an action: those that the summary tells, or those of a Gaussian with this entropy."""
    told = run.summary.get("action_dimensions")
    if isinstance(told, int) and told >= 1:
        return told
    of_one = log_std + HALF_LOG_2_PI_E
    return max(1, round(entropy / of_one)) if abs(of_one) > SMALLEST_ENTROPY else 1


def stands_still(run: Recorded, bound: float) -> Evidence | None:
    """KL is below the bound, in nats, in half of the updates, and the return does not rise."""
    kl, recent = run.curves("kl", "episode_return_recent")
    rate = run.curve("learning_rate")
    if len(rate):
        known = np.interp(kl.steps, rate.steps, rate.values)
        due = known >= 0.1 * known[0] if len(known) else known > 0
        kl = Curve("kl", kl.steps[due], kl.values[due])
    seen = spell(kl, lambda medians: medians < bound, 0.5)
    third = len(recent) // 3
    if seen is None or third == 0:
        return None
    risen = recent.values[-third:].mean() - recent.values[:third].mean()
    if risen > RISEN * recent.values.std() > 0:
        return None
    said = [
        f"return {recent.values[:third].mean():.3g} at first, {recent.values[-third:].mean():.3g} at last"
    ]
    low, high = run.curves("episode_return_min", "episode_return_max")
    if len(low) and (same := float((low.values == high.values).mean())) >= 0.5:
        said.append(
            f"in {same:.0%} of the updates all episodes return the same, so they have little to learn from"
        )
    return replace(seen, said=tuple(said))
