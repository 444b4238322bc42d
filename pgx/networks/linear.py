"""Policies and critics that are linear in fixed features phi(s), and these feature maps.

Discrete actions have preferences W phi(s), continuous ones the mean W phi(s); a value is w · phi(s). W and w start at
zero: all actions are equally likely, all means and values 0. There is no bias apart from a constant feature, so the
score of a softmax policy is exactly phi(s, a) - E_pi[phi(s, .)].

Below, x is the observation as n numbers: continuous observations flattened, images scaled to [0, 1] and flattened.

Source: Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, section 13.1 (softmax in linear
preferences), 13.7 (Gaussian, there with a learned standard deviation of the state), 9.4 and 9.5 (linear values).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from pgx.core.defaults import DEFAULT
from pgx.core.errors import UserError
from pgx.core.schema import Count, Positive, Range, Validated
from pgx.core.specs import ActionSpec, Discrete, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, ValueFunction, policy_for
from pgx.networks.mlp import encoder

_MAX_FEATURES = 100_000  # features of one map
FeatureCount = Annotated[int, Range(1, _MAX_FEATURES)]


class Monomials(nn.Module):
    """Map to all monomials of x up to a degree: the products of `degree` components of (1, x), with repetition."""

    def __init__(self, numbers: int, degree: int) -> None:
        super().__init__()
        factors = torch.tensor([*itertools.combinations_with_replacement(range(numbers + 1), degree)])
        self.register_buffer("factors", factors, persistent=False)
        self.factors: Tensor  # [F, degree], indices into (1, x)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x[:, :1]), x], -1)[:, self.factors].prod(-1)


class Cosines(nn.Module):
    """Map to cos(π c · u) for every c in {0, ..., order}^n, where u is x clamped and scaled to the unit cube."""

    def __init__(self, numbers: int, order: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        frequencies = torch.tensor([*itertools.product(range(order + 1), repeat=numbers)]).float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor  # [F, n], c

    def forward(self, x: Tensor) -> Tensor:
        unit = (x.clamp(-self.scale, self.scale) / self.scale + 1) / 2
        return (math.pi * unit @ self.frequencies.T).cos()


class RandomCosines(nn.Module):
    """Map to √(2 / F) cos(ω x + b); ω and b are drawn once and belong to the saved state."""

    def __init__(self, numbers: int, count: int, length_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(count, numbers, generator=generator) / length_scale)
        self.register_buffer("phases", 2 * math.pi * torch.rand(count, generator=generator))
        self.frequencies: Tensor  # [F, n], ω
        self.phases: Tensor  # [F], b

    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2 / len(self.phases)) * (x @ self.frequencies.T + self.phases).cos()


def linear_features(section: str, obs: ObsSpec) -> tuple[nn.Module, int]:
    """Return the map to (1, x), or to the unit vector e_s of discrete observations; and the number of features.

    Args:
        section: policy or critic, for messages.
        obs: spec of the observations.

    Raises:
        UserError: there are more than 100,000 features.
    """
    layers, n = encoder(obs)
    count = n if isinstance(obs, Discrete) else n + 1
    _limit(f"{section}=linear: ", count, f"; {section}=mlp takes these")
    return nn.Sequential(*layers, *([] if count == n else [Monomials(n, degree=1)])), count


def polynomial_features(section: str, obs: ObsSpec, degree: int) -> tuple[nn.Module, int]:
    """Return the map to all monomials of x up to degree d, including 1; and their number, (n + d choose d).

    Args:
        section: policy or critic, for messages.
        obs: spec of continuous observations or images.
        degree: d >= 1.

    Raises:
        UserError: the observations are discrete, or there are more than 100,000 features.
    """
    layers, n = _numbers(section, "polynomial", obs)
    count = math.comb(n + degree, degree)
    arithmetic = f"{section}.degree={degree}: {n} numbers make ({n} + {degree} choose {degree}) = "
    _limit(arithmetic, count, f"; lower it, or choose {section}=random_fourier")
    return nn.Sequential(*layers, Monomials(n, degree)), count


def fourier_features(section: str, obs: ObsSpec, order: int, scale: float) -> tuple[nn.Module, int]:
    """Return the map to the cosine basis, and the number of features, (order + 1)^n.

    cos(π c · u), c in {0, ..., order}^n, u = (clamp(x, -scale, scale) / scale + 1) / 2.

    Source: Konidaris, Osentoski and Thomas, "Value function approximation in reinforcement learning using the Fourier
    basis", 2011. There states are in [0, 1]^n, and the learning rate of each feature is divided by |c|; here
    observations are clamped to [-scale, scale] and scaled to [0, 1], and all features have the same learning rate.

    Args:
        section: policy or critic, for messages.
        obs: spec of continuous observations or images.
        order: highest frequency in half periods over the interval, >= 1.
        scale: half width of the interval, in units of the normalized observation, > 0.

    Raises:
        UserError: the observations are discrete, or there are more than 100,000 features.
    """
    layers, n = _numbers(section, "fourier", obs)
    count = (order + 1) ** n
    arithmetic = f"{section}.order={order}: {n} numbers make ({order} + 1)^{n} = "
    _limit(arithmetic, count, f"; lower it, or choose {section}=random_fourier")
    return nn.Sequential(*layers, Cosines(n, order, scale)), count


def random_fourier_features(
    section: str, obs: ObsSpec, count: int, length_scale: float, generator: torch.Generator
) -> tuple[nn.Module, int]:
    """Return the map to random cosines, and the number of features, F.

    √(2 / F) cos(ω x + b), ω ~ N(0, I / length_scale²), b uniform in [0, 2π). The expectation of phi(x) · phi(y) is the
    kernel exp(-|x - y|² / (2 length_scale²)).

    Source: Rahimi and Recht, "Random features for large-scale kernel machines", 2007, algorithm 1.

    Args:
        section: policy or critic, for messages.
        obs: spec of continuous observations or images.
        count: F, 1 to 100,000.
        length_scale: distance between observations over which the features change, > 0.
        generator: random stream of ω and b.

    Raises:
        UserError: the observations are discrete.
    """
    layers, n = _numbers(section, "random_fourier", obs)
    return nn.Sequential(*layers, RandomCosines(n, count, length_scale, generator)), count


def _numbers(section: str, name: str, obs: ObsSpec) -> tuple[list[nn.Module], int]:
    """Return layers from observations to x [B, n], and n."""
    if isinstance(obs, Discrete):
        raise UserError(
            f"{section}={name}: needs observations that are arrays of numbers, got {obs.n:,} discrete ones; "
            f"{section}=tabular, linear or mlp takes these"
        )
    return encoder(obs)


def _limit(before: str, count: int, after: str) -> None:
    """Refuse more features than the limit."""
    if count > _MAX_FEATURES:
        shown = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise UserError(f"{before}{shown} features; the limit is {_MAX_FEATURES:,}{after}")


Features = tuple[nn.Module, int]  # phi, and its number of features


def _readout(features: Features, outputs: int) -> nn.Sequential:
    """Return the layer W phi(s) with W = 0."""
    phi, count = features
    with torch.random.fork_rng(devices=[]):  # the default initialization draws from it
        layer = nn.Linear(count, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(phi, layer)


def _policy(
    features: Features, action: ActionSpec, log_std_init: float, continuous: ContinuousHead
) -> nn.Module:
    return policy_for(action, lambda outputs: _readout(features, outputs), log_std_init, continuous)


def _critic(features: Features) -> nn.Module:
    return ValueFunction(_readout(features, 1))


@dataclass(frozen=True)
class LinearPolicy(Validated):
    """Policy that is linear in the observation and a constant, or in the unit vector of a discrete one.

    Continuous actions have one dimension.
    """

    config_file: ClassVar[str] = "policy/linear"

    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = linear_features("policy", obs)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class LinearCritic(Validated):
    """Critic that is linear in the observation and a constant, or in the unit vector of a discrete one."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(linear_features("critic", obs))


@dataclass(frozen=True)
class PolynomialPolicy(Validated):
    """Policy that is linear in all monomials of the observation up to a total degree.

    Continuous actions have one dimension.
    """

    config_file: ClassVar[str] = "policy/polynomial"

    degree: Count = DEFAULT  # highest total degree of a monomial
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = polynomial_features("policy", obs, self.degree)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class PolynomialCritic(Validated):
    """Critic that is linear in all monomials of the observation up to a total degree."""

    config_file: ClassVar[str] = "critic/polynomial"

    degree: Count = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(polynomial_features("critic", obs, self.degree))


@dataclass(frozen=True)
class FourierPolicy(Validated):
    """Policy that is linear in the Fourier basis; see `fourier`.

    Continuous actions have one dimension.
    """

    config_file: ClassVar[str] = "policy/fourier"

    order: Count = DEFAULT  # highest frequency, in half periods over the interval
    scale: Positive = DEFAULT  # half width of the interval, in units of the observation
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = fourier_features("policy", obs, self.order, self.scale)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class FourierCritic(Validated):
    """Critic that is linear in the Fourier basis; see `fourier`."""

    config_file: ClassVar[str] = "critic/fourier"

    order: Count = DEFAULT
    scale: Positive = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(fourier_features("critic", obs, self.order, self.scale))


@dataclass(frozen=True)
class RandomFourierPolicy(Validated):
    """Policy that is linear in random Fourier features; see `random_fourier`.

    Continuous actions have one dimension.
    """

    config_file: ClassVar[str] = "policy/random_fourier"

    count: FeatureCount = DEFAULT  # F, number of features
    length_scale: Positive = DEFAULT  # distance of observations over which the features change
    log_std_init: LogStd = DEFAULT  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead = DEFAULT  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights and features drawn from the generator."""
        features = random_fourier_features("policy", obs, self.count, self.length_scale, generator)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class RandomFourierCritic(Validated):
    """Critic that is linear in random Fourier features; see `random_fourier`."""

    config_file: ClassVar[str] = "critic/random_fourier"

    count: FeatureCount = DEFAULT
    length_scale: Positive = DEFAULT

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights and features drawn from the generator; the action space is unused."""
        return _critic(random_fourier_features("critic", obs, self.count, self.length_scale, generator))
