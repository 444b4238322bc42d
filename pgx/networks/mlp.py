"""Multilayer perceptrons: policies with categorical or Gaussian heads, and critics."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pgx.core.defaults import DEFAULT
from pgx.core.schema import Count, Positive, Validated
from pgx.core.specs import ActionSpec, Discrete, Image, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, ValueFunction, policy_for

Activation = Literal["tanh", "relu", "elu", "gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}


class OneHot(nn.Module):
    """Map from integers [B] in 0..n-1 to unit vectors [B, n]."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, obs: Tensor) -> Tensor:
        # functional.one_hot has no vmap rule, which per-row gradients need.
        number = torch.arange(self.n, device=obs.device)
        return (obs.unsqueeze(-1) == number).to(torch.get_default_dtype())


class Scaled(nn.Module):
    """Map from integers 0..255 to [0, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs / 255.0


class Flat(nn.Module):
    """Map from arrays [B, ...] to vectors [B, n]; scalars [B] to [B, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        # len() would be a constant of compiled code, and -1 is ambiguous without rows.
        return obs.reshape(obs.shape[0], math.prod(obs.shape[1:]))


def encoder(obs: ObsSpec) -> tuple[list[nn.Module], int]:
    """Return layers without parameters from observations [B, ...] to vectors [B, width], and the width."""
    if isinstance(obs, Discrete):
        return [OneHot(obs.n)], obs.n
    return [Scaled(), Flat()] if isinstance(obs, Image) else [Flat()], math.prod(obs.shape)


def trunk(
    obs: ObsSpec, hidden: list[int], activation: Activation, hidden_gain: float, generator: torch.Generator
) -> tuple[nn.Sequential, int]:
    """Return a perceptron without its last layer, and its number of outputs. Args as in `perceptron`."""
    layers, width = encoder(obs)
    for size in hidden:
        layers += [linear_layer(width, size, hidden_gain, generator), _ACTIVATIONS[activation]()]
        width = size
    return nn.Sequential(*layers), width


def perceptron(
    obs: ObsSpec,
    outputs: int,
    hidden: list[int],
    activation: Activation,
    hidden_gain: float,
    output_gain: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return layers from observations [B, ...] to [B, outputs]: orthogonal weights, zero biases.

    Source of the initialization: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014; Andrychowicz et al., 2021, section 3.2, has the usual gains of policies.

    Args:
        obs: spec; images are scaled to [0, 1], arrays flattened, and discrete observations become unit vectors.
        outputs: width of the last layer.
        hidden: widths of the other layers.
        activation: between layers.
        hidden_gain, output_gain: scale of the orthogonal matrices.
        generator: random stream of the initial weights.
    """
    layers, width = trunk(obs, hidden, activation, hidden_gain, generator)
    return layers.append(linear_layer(width, outputs, output_gain, generator))


def linear_layer(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Return a layer with an orthogonal weight matrix, scaled by the gain, and zero biases."""
    # The default initialization draws from the global random stream. (skip_init avoids this, but imports sympy.)
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class MLPPolicy(Validated):
    """Perceptron policy: the distribution head fits the action space, which has one dimension if continuous.

    The layers are those of `perceptron`. A small output_gain makes the initial policy nearly independent of the state.
    """

    config_file: ClassVar[str] = "policy/mlp"

    hidden: list[Count] = DEFAULT  # widths of the hidden layers
    activation: Activation = DEFAULT  # between layers
    hidden_gain: Positive = DEFAULT  # scale of the orthogonal matrices of hidden layers
    output_gain: Positive = DEFAULT  # scale of the last orthogonal matrix
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with initial weights drawn from the generator."""

        def net(outputs: int) -> nn.Sequential:
            return perceptron(
                obs, outputs, self.hidden, self.activation, self.hidden_gain, self.output_gain, generator
            )

        return policy_for(action, net, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class MLPCritic(Validated):
    """Perceptron critic V(s); fields as in `MLPPolicy`."""

    config_file: ClassVar[str] = "critic/mlp"

    hidden: list[Count] = DEFAULT
    activation: Activation = DEFAULT
    hidden_gain: Positive = DEFAULT
    output_gain: Positive = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with initial weights drawn from the generator; the action space is unused."""
        return ValueFunction(
            perceptron(obs, 1, self.hidden, self.activation, self.hidden_gain, self.output_gain, generator)
        )
