"""Multilayer perceptrons: policies with categorical or Gaussian heads, and critics."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pgx.core.schema import Count, Positive
from pgx.core.specs import ActionSpec, Discrete, Image, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, Value, policy_for

Activation = Literal["tanh", "relu", "elu", "gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}


class OneHot(nn.Module):
    """Integers [B] in 0..n-1 to unit vectors [B, n]."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, obs: Tensor) -> Tensor:
        # functional.one_hot has no rule for vmap, by which gradients of single rows are taken.
        number = torch.arange(self.n, device=obs.device)
        return (obs.unsqueeze(-1) == number).to(torch.get_default_dtype())


class Scaled(nn.Module):
    """Whole numbers 0..255 to [0, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs / 255.0


class Flat(nn.Module):
    """Arrays [B, ...] to vectors [B, n]; a number each [B] to [B, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        # len() would make the number a constant of compiled code; -1 means nothing where there are no rows.
        return obs.reshape(obs.shape[0], math.prod(obs.shape[1:]))


def encoder(obs: ObsSpec) -> tuple[list[nn.Module], int]:
    """Layers from observations [B, ...] to vectors [B, width], and the width; nothing in them is learned."""
    if isinstance(obs, Discrete):
        return [OneHot(obs.n)], obs.n
    return [Scaled(), Flat()] if isinstance(obs, Image) else [Flat()], math.prod(obs.shape)


def trunk(
    obs: ObsSpec, hidden: list[int], activation: Activation, hidden_gain: float, generator: torch.Generator
) -> tuple[nn.Sequential, int]:
    """A perceptron but for its last layer, and how many numbers it gives; args as in `perceptron`."""
    layers, width = encoder(obs)
    for size in hidden:
        layers += [linear(width, size, hidden_gain, generator), _ACTIVATIONS[activation]()]
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
    """Layers from observations [B, ...] to [B, outputs], orthogonally initialised, biases zero.

    Source of the initialisation: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014; the gains usual for policies are in Andrychowicz et al., 2021, section 3.2.

    Args:
        obs: continuous observations are flattened, images scaled to [0, 1] first; discrete ones become unit vectors.
        outputs: width of the last layer.
        hidden: widths of the layers before it.
        activation: between layers.
        hidden_gain, output_gain: scale of the orthogonal matrices.
        generator: the stream that initial weights are drawn from.
    """
    layers, width = trunk(obs, hidden, activation, hidden_gain, generator)
    return layers.append(linear(width, outputs, output_gain, generator))


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """One layer, orthogonally initialised, its bias zero."""
    # The default initialisation draws from the global random stream. (skip_init, made for this, imports sympy.)
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    hidden: list[Count],
    activation: Activation,
    hidden_gain: Positive,
    output_gain: Positive,
    log_std_init: LogStd,
    continuous: ContinuousHead,
) -> nn.Module:
    """A perceptron with the head that the actions ask for.

    Args:
        obs, action: what the environment shows and takes; continuous actions have one dimension.
        generator: the stream that initial weights are drawn from.
        hidden, activation, hidden_gain, output_gain: see `perceptron`; a small output_gain makes the first
            policy nearly the same everywhere.
        log_std_init, continuous: start and kind of the head; read for continuous actions alone.
    """

    def net(outputs: int) -> nn.Sequential:
        return perceptron(obs, outputs, hidden, activation, hidden_gain, output_gain, generator)

    return policy_for(action, net, log_std_init, continuous)


def mlp_critic(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    hidden: list[Count],
    activation: Activation,
    hidden_gain: Positive,
    output_gain: Positive,
) -> nn.Module:
    """A perceptron with one output. Args as in `mlp_policy`; a state's value needs nothing of the actions."""
    return Value(perceptron(obs, 1, hidden, activation, hidden_gain, output_gain, generator))
