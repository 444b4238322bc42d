"""Running statistics of observations and returns. They move between rollouts only."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgx.core.agent import State
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.specs import Continuous
from pgx.ops.returns import backward_recurrence

EPSILON = float(np.finfo(np.float32).eps)  # of rewards, which many environments compute in float32


class RunningMoments:
    """Mean and variance of all rows seen, merged batch by batch in float64.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979, eq. 2.1.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.squares = torch.zeros(shape, dtype=torch.float64)  # sum of squared deviations from the mean

    def observe(self, rows: Tensor) -> None:
        """Merge rows [B, *shape]."""
        self.merge(moments_of(rows))

    def merge(self, moments: State) -> None:
        """Merge the rows that moments (`moments_of`) are of."""
        count, mean = moments["count"], moments["mean"]
        if count == 0:
            return
        delta, total = mean - self.mean, self.count + count
        self.squares = self.squares + moments["squares"] + delta.square() * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Population variance; 1 before anything was seen."""
        return self.squares / self.count if self.count > 0 else torch.ones_like(self.squares)

    def deviation(self, epsilon: float) -> Tensor:
        """Return the population standard deviation, 0 for a constant; 1 before anything was seen.

        A component counts as constant if its deviation is at most epsilon * |mean|: such numbers differ by rounding
        alone. The bound is relative to the data, so the result has the unit of the data: deviation(a x) = |a|
        deviation(x).

        Args:
            epsilon: relative spacing of the numbers that were observed (`torch.finfo(dtype).eps`).

        Returns:
            [*shape], >= 0, float64.
        """
        deviation = self.variance.sqrt()
        return torch.where(deviation <= epsilon * self.mean.abs(), 0.0, deviation)

    def state_dict(self) -> State:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


def moments_of(rows: Tensor) -> State:
    """Return count, mean and summed squared deviations of rows [B, *shape], as RunningMoments stores them.

    The first row is subtracted before anything is summed: a constant has exactly its own mean and no deviation.
    """
    rows = rows.double()
    count = torch.tensor(float(len(rows)), dtype=torch.float64)
    if not len(rows):
        return {"count": count, "mean": rows.sum(0), "squares": rows.sum(0)}
    rest = rows - rows[0]
    mean = rest.mean(0)
    return {"count": count, "mean": rows[0] + mean, "squares": (rest - mean).square().sum(0)}


def in_precision_of_networks(obs: Tensor) -> Tensor:
    """Return floating observations in torch's default dtype, in which networks are made; other dtypes stay."""
    return obs.to(torch.get_default_dtype()) if obs.is_floating_point() else obs


@dataclass(frozen=True)
class Unchanged:
    """Observations as they are, in the precision of the networks."""

    def __call__(self, obs: Tensor) -> Tensor:
        return in_precision_of_networks(obs)


@dataclass(frozen=True)
class Standardized:
    """clip((obs - mean) * scale, -clip, clip), computed in float64 and returned in the precision of the networks.

    An offset of 1e8 leaves float32 no digits of an observation, so the mean is subtracted before the cast.
    """

    mean: Tensor  # float64
    scale: Tensor  # float64; 0 for a constant component
    clip: float

    def __call__(self, obs: Tensor) -> Tensor:
        return in_precision_of_networks(((obs - self.mean) * self.scale).clamp(-self.clip, self.clip))


class Identity:
    """No normalization: observations as they are, in the precision of the networks."""

    normalize_fn = Unchanged()
    seen = None

    def __call__(self, obs: Tensor) -> Tensor:
        return self.normalize_fn(obs)

    def observe(self, obs: Tensor) -> None:
        """Nothing to learn."""

    def moments_of(self, obs: Tensor) -> State:
        """Nothing to know of."""
        return {}

    def merge(self, moments: State) -> None:
        """Nothing to learn."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to restore."""


class ObservationNormalizer:
    """clip((obs - mean) / standard deviation, -clip, clip), with the moments of the rollouts before this one.

    A component that has been constant is 0. No other floor keeps the deviation from 0, so the result does not depend
    on the unit or the offset of an observation.

    Args:
        obs: what the environment shows.
        clip: bound on each normalised component, > 0; infinite for none.
        device: where the networks are.
    """

    def __init__(self, obs: Continuous, clip: float, device: torch.device) -> None:
        self.moments = RunningMoments(obs.shape)
        self.clip = clip
        self._epsilon = float(np.finfo(obs.dtype).eps)
        zeros = torch.zeros(obs.shape, dtype=torch.float64, device=device)
        self.normalize_fn = Standardized(zeros, torch.ones_like(zeros), clip)
        self._freeze()

    def _freeze(self) -> None:
        deviation = self.moments.deviation(self._epsilon)
        # In place: what was bound to the lens sees through it as it becomes.
        self.normalize_fn.mean.copy_(self.moments.mean)
        self.normalize_fn.scale.copy_(torch.where(deviation > 0, 1 / deviation, 0.0))

    @property
    def seen(self) -> int:
        """Observations merged so far."""
        return int(self.moments.count)

    def __call__(self, obs: Tensor) -> Tensor:
        """obs [..., *shape] raw; the same shape back."""
        return self.normalize_fn(obs)

    def observe(self, obs: Tensor) -> None:
        """Merge the rows [B, *shape] of a finished rollout."""
        self.merge(self.moments_of(obs))

    def moments_of(self, obs: Tensor) -> State:
        """What there is to learn from the rows [B, *shape] of a finished rollout, for `merge` here or elsewhere."""
        return moments_of(obs.cpu())

    def merge(self, moments: State) -> None:
        """Learn from the rows that these moments are of."""
        self.moments.merge(moments)
        self._freeze()

    def state_dict(self) -> State:
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.moments.load_state_dict(state)
        self._freeze()


class RewardScaler:
    """Divides rewards by the standard deviation of the running discounted return.

    R_t = γ R_{t-1} + r_t within each episode; a rollout's rewards are divided by one number, the root of the
    variance of all R seen up to and including that rollout, and clipped. It changes the unit of reward, and
    with it that of the critic, never which policy is best (but for the clipping). The result does not depend on the
    unit of the raw rewards. As long as all R are equal, they are divided by |R|; rewards of 0 stay 0.

    Source: Engstrom et al., "Implementation matters in deep policy gradients", 2020, algorithm 1 of the appendix;
    there the number moves at every step.

    Args:
        discount: γ in [0, 1].
        clip: bound on each scaled reward, > 0; infinite for none.
        ranks: who step the other environments; the number is one for all.
    """

    def __init__(self, discount: float, clip: float, ranks: Ranks = SINGLE_PROCESS) -> None:
        self.discount = discount
        self.clip = clip
        self.ranks = ranks
        self.moments = RunningMoments(())
        self.latest: State = moments_of(
            torch.zeros(0)
        )  # of the R of the last rollout, for a scaler elsewhere
        self._running: Tensor | None = None  # [N] R of each episode under way

    def scale(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Learn from a rollout's raw rewards and scale them; Args as in `observe`.

        Returns:
            [T, N], float32.
        """
        self.observe(reward, done, valid)
        return self.scaled(reward)

    def scaled(self, reward: Tensor) -> Tensor:
        """Divide raw rewards of any shape by the divisor, and clip them; float32."""
        return (reward.double() / self.divisor).clamp(-self.clip, self.clip).float()

    def observe(self, reward: Tensor, done: Tensor, valid: Tensor) -> None:
        """Merge the discounted returns of a rollout.

        Args:
            reward: [T, N] raw, float32 or float64.
            done, valid: [T, N] bool; an episode ends after a row that is done.
        """
        raw = reward.double()
        goes_on = torch.cat([torch.ones_like(done[:1]), ~done[:-1]])
        decay = self.discount * goes_on.double()
        if self._running is not None:
            raw = torch.cat([raw[:1] + self.discount * self._running, raw[1:]])
        returns = backward_recurrence(raw.flip(0), decay.flip(0)).flip(0)
        self._running = torch.where(done[-1], 0.0, returns[-1])
        self.latest = moments_of(returns[valid])
        for moments in self.ranks.gather(self.latest):
            self.moments.merge(moments)

    @property
    def divisor(self) -> float:
        """Standard deviation of all R; |R| as long as they are equal; 1 if they are 0, or before any was seen."""
        found = float(self.moments.deviation(EPSILON)) or abs(float(self.moments.mean))
        return found or 1.0

    def shared(self, count: int) -> "list[RewardScaler]":
        """Scalers for so many groups of environments, each with episodes of its own, that divide by one number."""
        scalers = [RewardScaler(self.discount, self.clip) for _ in range(count)]
        for scaler in scalers:
            scaler.moments = self.moments
        return scalers

    def begin(self) -> None:
        """Forget the episodes under way: every environment starts anew."""
        self._running = None

    def state_dict(self) -> State:
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.moments.load_state_dict(state)
