"""Convolutional networks for images: the stacks of DQN and IMPALA, with the heads of perceptrons."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pgx.core.defaults import DEFAULT
from pgx.core.errors import UserError
from pgx.core.schema import Count, Positive, Validated
from pgx.core.specs import ActionSpec, Image, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, ValueFunction, policy_for
from pgx.networks.mlp import Flat, Scaled

Stack = Literal["nature", "impala"]
Layout = Literal["auto", "first", "last"]

_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, window, stride of each convolution
_IMPALA = (16, 32, 32)  # channels of each section
_RESIDUALS = 2  # in each section


class ChannelsFirst(nn.Module):
    """Map from images [B, H, W, C] to [B, C, H, W]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.movedim(-1, 1)


class Residual(nn.Module):
    """Residual block x + conv(relu(conv(relu(x)))) of two 3 x 3 convolutions with equal numbers of channels."""

    def __init__(self, channels: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 3, 1, 1, gain, generator)
        # With full gains the signal would grow in every block, so the gain falls with the number of blocks.
        branch_gain = gain / math.sqrt(_RESIDUALS * len(_IMPALA))
        self.second = _convolution(channels, channels, 3, 1, 1, branch_gain, generator)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x.relu()).relu())
        return x + y


def convolutional(
    section: Literal["policy", "critic"],
    obs: ObsSpec,
    outputs: int,
    stack: Stack,
    layout: Layout,
    hidden: int,
    hidden_gain: float,
    output_gain: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return layers from images uint8 [B, ...] to [B, outputs]: pixels / 255, a stack, a dense layer, the outputs.

    Source: Mnih et al., "Human-level control through deep reinforcement learning", 2015, methods, model architecture
    (nature); Espeholt et al., "IMPALA", 2018, figure 3, the large network without its LSTM (impala). The initial
    weights differ from theirs: orthogonal as in `perceptron`, with the weights of a window as one row, and zero biases.
    Residual blocks are scaled by the root of their number as in Zhang et al., "Fixup initialization", 2019.

    Args:
        section: of the config, for messages.
        obs: images.
        outputs: width of the last layer.
        stack: convolutional layers.
        layout: dimension of the channels; auto: the last if it is shorter than the first, else the first.
        hidden: width of the dense layer.
        hidden_gain, output_gain: scale of the orthogonal matrices.
        generator: random stream of the initial weights.

    Raises:
        UserError: the observations are not images, or too small for the stack.
    """
    if not isinstance(obs, Image):
        raise UserError(
            f"{section}=cnn: expected images (uint8 in three dimensions), got observations {obs}; "
            f"{section}=mlp takes them"
        )
    last = obs.shape[2] < obs.shape[0] if layout == "auto" else layout == "last"
    height, width, channels = obs.shape if last else (*obs.shape[1:], obs.shape[0])
    layers: list[nn.Module] = [Scaled(), *([ChannelsFirst()] if last else [])]
    if stack == "nature":
        layers += _nature(channels, hidden_gain, generator)
        pixels = _NATURE[-1][0] * _nature_size(section, height) * _nature_size(section, width)
    else:
        layers += _impala(channels, hidden_gain, generator)
        pixels = _IMPALA[-1] * _impala_size(height) * _impala_size(width)
    layers += [Flat(), _dense(pixels, hidden, hidden_gain, generator), nn.ReLU()]
    return nn.Sequential(*layers, _dense(hidden, outputs, output_gain, generator))


def _nature(channels: int, gain: float, generator: torch.Generator) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for filters, window, stride in _NATURE:
        layers += [_convolution(channels, filters, window, stride, 0, gain, generator), nn.ReLU()]
        channels = filters
    return layers


def _impala(channels: int, gain: float, generator: torch.Generator) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for filters in _IMPALA:
        layers += [
            _convolution(channels, filters, 3, 1, 1, gain, generator),
            nn.MaxPool2d(3, stride=2, padding=1),
            *(Residual(filters, gain, generator) for _ in range(_RESIDUALS)),
        ]
        channels = filters
    return [*layers, nn.ReLU()]


def _nature_size(section: str, size: int) -> int:
    """Return the pixels along one side after the three convolutions."""
    sizes = [size]
    for _, window, stride in _NATURE:
        if sizes[-1] < window:
            raise UserError(
                f"{section}.stack=nature: images of {size} pixels a side are too small: "
                f"{' -> '.join(map(str, sizes))}, where a window of {window} does not fit (the least is 36); "
                f"{section}.stack=impala takes any size, and so does {section}=mlp"
            )
        sizes.append((sizes[-1] - window) // stride + 1)
    return sizes[-1]


def _impala_size(size: int) -> int:
    """Return the pixels along one side after all sections, each of which halves them, rounding up."""
    for _ in _IMPALA:
        size = -(-size // 2)
    return size


def _convolution(
    inputs: int,
    outputs: int,
    window: int,
    stride: int,
    padding: int,
    gain: float,
    generator: torch.Generator,
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the default initialization draws from it
        layer = nn.Conv2d(inputs, outputs, window, stride=stride, padding=padding)
    return _orthogonal(layer, gain, generator)


def _dense(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(inputs, outputs)
    return _orthogonal(layer, gain, generator)


def _orthogonal(layer: nn.Conv2d | nn.Linear, gain: float, generator: torch.Generator) -> nn.Module:
    assert layer.bias is not None
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class CNNPolicy(Validated):
    """Convolutional policy: the distribution head fits the action space. Layers as in `convolutional`."""

    config_file: ClassVar[str] = "policy/cnn"

    stack: Stack = DEFAULT  # convolutional layers
    layout: Layout = DEFAULT  # dimension of the channels in an image
    hidden: Count = DEFAULT  # width of the dense layer
    hidden_gain: Positive = DEFAULT  # scale of the orthogonal matrices of hidden layers
    output_gain: Positive = DEFAULT  # scale of the last orthogonal matrix
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with initial weights drawn from the generator."""

        def net(outputs: int) -> nn.Sequential:
            return convolutional(
                "policy",
                obs,
                outputs,
                self.stack,
                self.layout,
                self.hidden,
                self.hidden_gain,
                self.output_gain,
                generator,
            )

        return policy_for(action, net, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class CNNCritic(Validated):
    """Convolutional critic V(s); fields as in `CNNPolicy`."""

    config_file: ClassVar[str] = "critic/cnn"

    stack: Stack = DEFAULT
    layout: Layout = DEFAULT
    hidden: Count = DEFAULT
    hidden_gain: Positive = DEFAULT
    output_gain: Positive = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with initial weights drawn from the generator; the action space is unused."""
        return ValueFunction(
            convolutional(
                "critic",
                obs,
                1,
                self.stack,
                self.layout,
                self.hidden,
                self.hidden_gain,
                self.output_gain,
                generator,
            )
        )
