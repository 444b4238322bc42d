"""Multilayer perceptrons: policies with categorical or Gaussian heads, and critics."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from pgx.policies.distributions import Categorical, DiagonalGaussian, MultiCategorical
from pgx.schema import Count, Positive, Range
from pgx.types import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec

Activation = Literal["tanh", "relu", "elu", "gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}

LogStd = Annotated[float, Range(-20.0, 2.0)]  # nats; beyond it exp() is numerically a point or nonsense


class OneHot(nn.Module):
    """Integers [B] in 0..n-1 to unit vectors [B, n]."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, obs: Tensor) -> Tensor:
        # Rows of the identity: functional.one_hot has no rule for vmap, by which gradients of single rows are taken.
        return torch.eye(self.n, device=obs.device)[obs]


class Flat(nn.Module):
    """Arrays [B, ...] to vectors [B, n]; a number each [B] to [B, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs.reshape(len(obs), -1)


def perceptron(
    obs: ObsSpec,
    outputs: int,
    hidden: list[int],
    activation: Activation,
    hidden_gain: float,
    output_gain: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Layers from observations [B, ...] to [B, outputs], orthogonally initialised, biases zero.

    Source of the initialisation: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014; the gains usual for policies are in Andrychowicz et al., 2021, section 3.2.

    Args:
        obs: continuous observations are flattened, discrete ones become unit vectors.
        outputs: width of the last layer.
        hidden: widths of the layers before it.
        activation: between layers.
        hidden_gain, output_gain: scale of the orthogonal matrices.
        generator: the stream that initial weights are drawn from.
    """
    layers: list[nn.Module]
    if isinstance(obs, Discrete):
        width = obs.n
        layers = [OneHot(width)]
    else:
        width = math.prod(obs.shape)
        layers = [Flat()]
    for size in hidden:
        layers += [_linear(width, size, hidden_gain, generator), _ACTIVATIONS[activation]()]
        width = size
    layers.append(_linear(width, outputs, output_gain, generator))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    # skip_init: the default initialisation would draw from the global random stream.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class CategoricalPolicy(nn.Module):
    """pi(a|s) = softmax(net(s))."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(self.net(obs))


class MultiCategoricalPolicy(nn.Module):
    """One softmax per component of a MultiDiscrete action."""

    def __init__(self, net: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.sizes = sizes

    def forward(self, obs: Tensor) -> MultiCategorical:
        return MultiCategorical(self.net(obs), self.sizes)


class GaussianPolicy(nn.Module):
    """pi(a|s) = N(net(s), diag(exp(log_std))²), with a log std that does not depend on the state."""

    def __init__(self, net: nn.Module, actions: int, log_std_init: float) -> None:
        super().__init__()
        self.net = net
        self.log_std = nn.Parameter(torch.full((actions,), log_std_init))

    def forward(self, obs: Tensor) -> DiagonalGaussian:
        mean = self.net(obs)
        # A copy: a distribution that is kept from before an update must not move with the parameter.
        return DiagonalGaussian(mean, self.log_std.clone().expand_as(mean))


class Value(nn.Module):
    """V(s) = net(s), [B]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Tensor) -> Tensor:
        value: Tensor = self.net(obs).squeeze(-1)
        return value


def mlp_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    hidden: list[Count],
    activation: Activation,
    hidden_gain: Positive,
    output_gain: Positive,
    log_std_init: LogStd,
) -> nn.Module:
    """A perceptron with the head that the actions ask for.

    Args:
        obs, action: what the environment shows and takes; continuous actions have one dimension.
        generator: the stream that initial weights are drawn from.
        hidden, activation, hidden_gain, output_gain: see `perceptron`; a small output_gain makes the first
            policy nearly the same everywhere.
        log_std_init: nats; read for continuous actions alone.
    """

    def net(outputs: int) -> nn.Sequential:
        return perceptron(obs, outputs, hidden, activation, hidden_gain, output_gain, generator)

    match action:
        case Discrete(n):
            return CategoricalPolicy(net(n))
        case MultiDiscrete(sizes):
            return MultiCategoricalPolicy(net(sum(sizes)), sizes)
        case Continuous((actions,)):
            return GaussianPolicy(net(actions), actions, log_std_init)
    raise ValueError(f"a perceptron has no head for {action}")


def mlp_critic(
    obs: ObsSpec,
    generator: torch.Generator,
    hidden: list[Count],
    activation: Activation,
    hidden_gain: Positive,
    output_gain: Positive,
) -> nn.Module:
    """A perceptron with one output. Args as in `mlp_policy`."""
    return Value(perceptron(obs, 1, hidden, activation, hidden_gain, output_gain, generator))
