"""Heads: modules that turn the outputs of a network into action distributions and values."""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from pgx.core.agent import Metrics, RecurrentState
from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.core.metrics import Metric
from pgx.core.schema import Range
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks.distributions import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian

ContinuousHead = Literal["gaussian", "squashed_gaussian"]
LogStd = Annotated[float, Range(-20.0, 2.0)]  # nats; outside, exp() underflows to a point or is useless


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return logits [B, K] with minus infinity for forbidden actions; mask [B, K] bool, the allowed ones."""
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


class CategoricalPolicy(nn.Module):
    """Policy pi(a|s) = softmax(net(s))."""

    recurrent_state: RecurrentState | None = None

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Observations) -> Categorical:
        return Categorical(masked(self.net(obs.features), obs.action_mask))


class MultiCategoricalPolicy(nn.Module):
    """Policy with one softmax per component of a MultiDiscrete action."""

    recurrent_state: RecurrentState | None = None

    def __init__(self, net: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.sizes = sizes

    def forward(self, obs: Observations) -> MultiCategorical:
        return MultiCategorical(masked(self.net(obs.features), obs.action_mask), self.sizes)


class GaussianPolicy(nn.Module):
    """Policy pi(a|s) = N(net(s), diag(exp(log_std))²), whose log_std does not depend on the state."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "policy_std",
            "action",
            "standard deviation of the Gaussian, mean over its components; before the squashing, if there is one",
            "falls slowly while the return rises",
            section="policy",
        ),
    )
    recurrent_state: RecurrentState | None = None

    def __init__(self, net: nn.Module, actions: int, log_std_init: float) -> None:
        super().__init__()
        self.net = net
        self.log_std = nn.Parameter(torch.full((actions,), float(log_std_init)))

    def forward(self, obs: Observations) -> DiagonalGaussian:
        mean = self.net(obs.features)
        # A copy, because distributions from before an update must not change with the parameter.
        return DiagonalGaussian(mean, self.log_std.clone().expand_as(mean))

    def report(self) -> Metrics:
        """Return the mean standard deviation."""
        return {"policy_std": float(self.log_std.detach().exp().mean())}


class SquashedGaussianPolicy(nn.Module):
    """Policy of `GaussianPolicy`, squashed into the bounds [A] of the actions."""

    recurrent_state: RecurrentState | None = None

    def __init__(self, net: nn.Module, low: Tensor, high: Tensor, log_std_init: float) -> None:
        super().__init__()
        self.gaussian = GaussianPolicy(net, len(low), log_std_init)
        self.center: Tensor
        self.half_range: Tensor
        # Given by the environment: moved between devices with the module, but not part of checkpoints.
        self.register_buffer("center", (high + low) / 2, persistent=False)
        self.register_buffer("half_range", (high - low) / 2, persistent=False)

    def forward(self, obs: Observations) -> SquashedGaussian:
        gaussian: DiagonalGaussian = self.gaussian(obs)
        return SquashedGaussian(gaussian, self.center, self.half_range)


class ValueFunction(nn.Module):
    """Critic V(s) = net(s), [B]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Observations) -> Tensor:
        value: Tensor = self.net(obs.features).squeeze(-1)
        return value


def policy_for(
    action: ActionSpec, net: Callable[[int], nn.Module], log_std_init: float, continuous: ContinuousHead
) -> nn.Module:
    """Return a policy whose head fits the action space.

    Args:
        action: spec of the actions; continuous ones have one dimension.
        net: function from a number of outputs to a network from features [B, ...] to [B, outputs].
        log_std_init: initial log standard deviation in nats, of continuous actions.
        continuous: head for continuous actions; the squashed one needs finite bounds.

    Raises:
        UserError: the squashed head has no finite bounds.
        ValueError: there is no head for these actions.
    """
    match action:
        case Discrete(n):
            return CategoricalPolicy(net(n))
        case MultiDiscrete(sizes):
            return MultiCategoricalPolicy(net(sum(sizes)), sizes)
        case Continuous((actions,)) if continuous == "squashed_gaussian":
            return SquashedGaussianPolicy(net(actions), *_bounds(action), log_std_init)
        case Continuous((actions,)):
            return GaussianPolicy(net(actions), actions, log_std_init)
    raise ValueError(f"there is no head for {action}")


def _bounds(action: Continuous) -> tuple[Tensor, Tensor]:
    """Return the lower and upper bounds [A]; refuse infinite ones."""
    low = action.low or (-math.inf,) * action.shape[0]
    high = action.high or (math.inf,) * action.shape[0]
    pairs = list(zip(low, high, strict=True))
    # Twice such a bound overflows float32.
    endless = [
        f"{i} is in [{lo:g}, {hi:g}]" for i, (lo, hi) in enumerate(pairs) if max(abs(lo), abs(hi)) > 1e38
    ]
    if endless:
        raise UserError(
            f"policy.continuous=squashed_gaussian: expected actions with finite bounds; component "
            f"{', component '.join(endless)}; policy.continuous=gaussian takes these"
        )
    return torch.tensor(low), torch.tensor(high)
