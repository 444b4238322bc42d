"""Normalization of observations and scaling of rewards by running statistics, which change between rollouts only."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgx.core.agent import State
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.specs import Continuous
from pgx.ops.returns import backward_recurrence

_EPSILON = float(
    np.finfo(np.float32).eps
)  # relative spacing of rewards, which many environments compute in float32


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
        """Merge the rows whose moments (`moments_of`) these are."""
        count, mean = moments["count"], moments["mean"]
        if count == 0:
            return
        delta, total = mean - self.mean, self.count + count
        self.squares = self.squares + moments["squares"] + delta.square() * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Population variance; 1 without rows."""
        return self.squares / self.count if self.count > 0 else torch.ones_like(self.squares)

    def deviation(self, epsilon: float) -> Tensor:
        """Return the population standard deviation: 0 for a constant component, 1 without rows.

        A component counts as constant if its deviation is at most epsilon * |mean|: such numbers differ by rounding
        only. The bound is relative to the data, so that deviation(a x) = |a| deviation(x).

        Args:
            epsilon: relative spacing of the observed numbers (`torch.finfo(dtype).eps`).

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

    The first row is subtracted before the sums, so that the mean of a constant is exact and its deviation is 0.
    """
    rows = rows.double()
    count = torch.tensor(float(len(rows)), dtype=torch.float64)
    if not len(rows):
        return {"count": count, "mean": rows.sum(0), "squares": rows.sum(0)}
    rest = rows - rows[0]
    mean = rest.mean(0)
    return {"count": count, "mean": rows[0] + mean, "squares": (rest - mean).square().sum(0)}


def to_network_dtype(obs: Tensor) -> Tensor:
    """Cast floating-point observations to torch's default dtype, which networks have; return others unchanged."""
    return obs.to(torch.get_default_dtype()) if obs.is_floating_point() else obs


@dataclass(frozen=True)
class CastToNetworkDtype:
    """Function that casts observations to the networks' dtype."""

    def __call__(self, obs: Tensor) -> Tensor:
        return to_network_dtype(obs)


@dataclass(frozen=True)
class Standardize:
    """Function clip((obs - mean) * scale, -clip, clip), computed in float64 and cast to the networks' dtype.

    The mean is subtracted before the cast: float32 cannot represent small differences next to an offset of 1e8.
    """

    mean: Tensor  # float64
    scale: Tensor  # float64; 0 for a constant component
    clip: float

    def __call__(self, obs: Tensor) -> Tensor:
        return to_network_dtype(((obs - self.mean) * self.scale).clamp(-self.clip, self.clip))


class Identity:
    """Normalizer that only casts observations to the networks' dtype."""

    normalize_fn = CastToNetworkDtype()
    count = None

    def __call__(self, obs: Tensor) -> Tensor:
        return self.normalize_fn(obs)

    def observe(self, obs: Tensor) -> None:
        """Do nothing."""

    def moments_of(self, obs: Tensor) -> State:
        return {}

    def merge(self, moments: State) -> None:
        """Do nothing."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""


class ObservationNormalizer:
    """Normalizer clip((obs - mean) / standard deviation, -clip, clip), with the moments of all earlier rollouts.

    A component that was constant so far becomes 0. No constant is added to the deviation, so the result does not depend
    on the unit or the offset of an observation.

    Args:
        obs: spec of an observation.
        clip: bound on the absolute value of each normalized component, > 0; infinite for none.
        device: of the networks.
    """

    def __init__(self, obs: Continuous, clip: float, device: torch.device) -> None:
        self.moments = RunningMoments(obs.shape)
        self.clip = clip
        self._epsilon = float(np.finfo(obs.dtype).eps)
        zeros = torch.zeros(obs.shape, dtype=torch.float64, device=device)
        self.normalize_fn = Standardize(zeros, torch.ones_like(zeros), clip)
        self._freeze()

    def _freeze(self) -> None:
        deviation = self.moments.deviation(self._epsilon)
        # In place, because compiled functions keep references to these tensors.
        self.normalize_fn.mean.copy_(self.moments.mean)
        self.normalize_fn.scale.copy_(torch.where(deviation > 0, 1 / deviation, 0.0))

    @property
    def count(self) -> int:
        """Number of observations merged so far."""
        return int(self.moments.count)

    def __call__(self, obs: Tensor) -> Tensor:
        """Normalize raw observations [..., *shape]."""
        return self.normalize_fn(obs)

    def observe(self, obs: Tensor) -> None:
        """Merge the rows [B, *shape] of a finished rollout."""
        self.merge(self.moments_of(obs))

    def moments_of(self, obs: Tensor) -> State:
        """Return the moments of the rows [B, *shape] of a finished rollout, for `merge` in any process."""
        return moments_of(obs.cpu())

    def merge(self, moments: State) -> None:
        """Merge the rows whose moments these are."""
        self.moments.merge(moments)
        self._freeze()

    def state_dict(self) -> State:
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.moments.load_state_dict(state)
        self._freeze()


class RewardScaler:
    """Division of rewards by the standard deviation of the running discounted return.

    R_t = γ R_{t-1} + r_t within each episode. All rewards of a rollout are divided by one number, the standard
    deviation of all R up to and including that rollout, and clipped. This changes the unit of the reward, and so of the
    critic. Without clipping it does not change which policy is best. The result does not depend on the unit of the raw
    rewards. As long as all R are equal, rewards are divided by |R|; rewards of 0 stay 0.

    Source: Engstrom et al., "Implementation matters in deep policy gradients", 2020, algorithm 1 of the appendix;
    there the divisor changes at every step.

    Args:
        discount: γ in [0, 1].
        clip: bound on the absolute value of each scaled reward, > 0; infinite for none.
        ranks: processes with further environments; all use the same divisor.
    """

    def __init__(self, discount: float, clip: float, ranks: Ranks = SINGLE_PROCESS) -> None:
        self.discount = discount
        self.clip = clip
        self.ranks = ranks
        self.moments = RunningMoments(())
        # Moments of the R of the last rollout, for a scaler in another process.
        self.latest: State = moments_of(torch.zeros(0))
        self._running: Tensor | None = None  # [N] R of each unfinished episode

    def scale(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Merge a rollout's raw rewards and scale them; Args as in `observe`.

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
        continues = torch.cat([torch.ones_like(done[:1]), ~done[:-1]])
        decay = self.discount * continues.double()
        if self._running is not None:
            raw = torch.cat([raw[:1] + self.discount * self._running, raw[1:]])
        returns = backward_recurrence(raw.flip(0), decay.flip(0)).flip(0)
        self._running = torch.where(done[-1], 0.0, returns[-1])
        self.latest = moments_of(returns[valid])
        for moments in self.ranks.gather(self.latest):
            self.moments.merge(moments)

    @property
    def divisor(self) -> float:
        """Standard deviation of all R; |R| if they are equal; 1 if all are 0 or there are none."""
        found = float(self.moments.deviation(_EPSILON)) or abs(float(self.moments.mean))
        return found or 1.0

    def shared(self, count: int) -> "list[RewardScaler]":
        """Return `count` scalers with the same divisor, each for the episodes of another group of environments."""
        scalers = [RewardScaler(self.discount, self.clip) for _ in range(count)]
        for scaler in scalers:
            scaler.moments = self.moments
        return scalers

    def begin(self) -> None:
        """Discard the returns of unfinished episodes, because all environments restart."""
        self._running = None

    def state_dict(self) -> State:
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.moments.load_state_dict(state)
