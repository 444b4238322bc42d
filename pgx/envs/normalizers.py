"""Running statistics of observations and returns. They move between rollouts only."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pgx.ops.returns import backward_recurrence
from pgx.types import ALONE, Ranks, State


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

    def state_dict(self) -> State:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


def moments_of(rows: Tensor) -> State:
    """Count, mean and squared deviations from it of rows [B, *shape], as RunningMoments has them."""
    rows = rows.double()
    count = torch.tensor(float(len(rows)), dtype=torch.float64)
    mean = rows.mean(0) if len(rows) else torch.zeros_like(rows.sum(0))
    return {"count": count, "mean": mean, "squares": (rows - mean).square().sum(0)}


@dataclass(frozen=True)
class Unchanged:
    """Observations as they are."""

    def __call__(self, obs: Tensor) -> Tensor:
        return obs


@dataclass(frozen=True)
class Standardized:
    """clip((obs - mean) * scale, -clip, clip)."""

    mean: Tensor
    scale: Tensor
    clip: float

    def __call__(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean) * self.scale).clamp(-self.clip, self.clip)


class Identity:
    """Observations as they are."""

    lens = Unchanged()

    def __call__(self, obs: Tensor) -> Tensor:
        return obs

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

    Args:
        shape: of one observation.
        clip: bound on each normalised component, > 0; infinite for none.
        device: where the networks are.
    """

    def __init__(self, shape: tuple[int, ...], clip: float, device: torch.device) -> None:
        self.moments = RunningMoments(shape)
        self.clip = clip
        zeros = torch.zeros(shape, device=device)
        self.lens = Standardized(zeros, torch.ones_like(zeros), clip)
        self._freeze()

    def _freeze(self) -> None:
        # A component that never moves has variance 0: the floor leaves it at 0 instead of dividing by it.
        # In place: what was bound to the lens sees through it as it becomes.
        self.lens.mean.copy_(self.moments.mean)
        self.lens.scale.copy_((self.moments.variance + 1e-8).rsqrt())

    def __call__(self, obs: Tensor) -> Tensor:
        """obs [..., *shape] raw; the same shape back."""
        return self.lens(obs)

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
    with it that of the critic, never which policy is best (but for the clipping).

    Source: Engstrom et al., "Implementation matters in deep policy gradients", 2020, algorithm 1 of the appendix;
    there the number moves at every step.

    Args:
        discount: γ in [0, 1].
        clip: bound on each scaled reward, > 0; infinite for none.
        ranks: who step the other environments; the number is one for all.
    """

    def __init__(self, discount: float, clip: float, ranks: Ranks = ALONE) -> None:
        self.discount = discount
        self.clip = clip
        self.ranks = ranks
        self.moments = RunningMoments(())
        self.latest: State = moments_of(
            torch.zeros(0)
        )  # of the R of the last rollout, for a scaler elsewhere
        self._running: Tensor | None = None  # [N] R of each episode under way

    def scale(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Learn from a rollout's raw rewards and scale them.

        Args:
            reward: [T, N] raw.
            done, valid: [T, N] bool; an episode ends after a row that is done.

        Returns:
            [T, N].
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
        deviation = math.sqrt(float(self.moments.variance) + 1e-8)
        return (reward / deviation).clamp(-self.clip, self.clip)

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
