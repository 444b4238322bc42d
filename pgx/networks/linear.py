"""Feature maps phi(s) without trainable parameters: what linear policies and critics are linear in.

Continuous observations are flattened, images scaled to [0, 1] and flattened: x below is what comes out, n numbers.
Each function gives the map, observations [B, ...] to features [B, F], and F.

Policies and critics that are linear in features which do not learn.

Discrete actions have preferences W phi(s), continuous ones the mean W phi(s); a value is w · phi(s). W and w start
at zero: every action is as likely as another, every mean and value 0. There is no bias beside the features' own
constant, so that the score of a softmax policy is phi(s, a) - E_pi[phi(s, .)] and nothing else.

Source: Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, section 13.1 (softmax in linear
preferences), 13.7 (Gaussian, there with a learned standard deviation of the state), 9.4 and 9.5 (linear values).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from pgx.core.errors import UserError
from pgx.core.schema import Count, Positive, Range, Validated
from pgx.core.specs import ActionSpec, Discrete, ObsSpec
from pgx.networks.heads import ContinuousHead, LogStd, ValueFunction, policy_for
from pgx.networks.mlp import encoder

_MAX_FEATURES = 100_000  # features of one map
FeatureCount = Annotated[int, Range(1, _MAX_FEATURES)]


class Monomials(nn.Module):
    """All products of `degree` components of (1, x), with repetition: every monomial up to that degree, once."""

    def __init__(self, numbers: int, degree: int) -> None:
        super().__init__()
        factors = torch.tensor([*itertools.combinations_with_replacement(range(numbers + 1), degree)])
        self.register_buffer("factors", factors, persistent=False)
        self.factors: Tensor  # [F, degree], which components of (1, x) are multiplied

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x[:, :1]), x], -1)[:, self.factors].prod(-1)


class Cosines(nn.Module):
    """cos(π c · u) for every c in {0, ..., order}^n, with x squashed into the unit cube as u."""

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
    """√(2 / F) cos(ω x + b), with ω and b drawn once: they belong to the saved state."""

    def __init__(self, numbers: int, count: int, length_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(count, numbers, generator=generator) / length_scale)
        self.register_buffer("phases", 2 * math.pi * torch.rand(count, generator=generator))
        self.frequencies: Tensor  # [F, n], ω
        self.phases: Tensor  # [F], b

    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2 / len(self.phases)) * (x @ self.frequencies.T + self.phases).cos()


def plain(section: str, obs: ObsSpec) -> tuple[nn.Module, int]:
    """(1, x); the unit vector e_s where observations are discrete, and then no constant beside it.

    Args:
        section: policy or critic, for messages; here and below.
        obs: what the environment shows.

    Raises:
        UserError: more than 100,000 features.
    """
    layers, n = encoder(obs)
    count = n if isinstance(obs, Discrete) else n + 1
    _limit(f"{section}=linear: ", count, f"; {section}=mlp takes these")
    return nn.Sequential(*layers, *([] if count == n else [Monomials(n, degree=1)])), count


def polynomial(section: str, obs: ObsSpec, degree: int) -> tuple[nn.Module, int]:
    """Every monomial of x up to a total degree d, the constant included: (n + d choose d) features.

    Args:
        obs: continuous or an image.
        degree: d >= 1.

    Raises:
        UserError: discrete observations, or more than 100,000 features.
    """
    layers, n = _numbers(section, "polynomial", obs)
    count = math.comb(n + degree, degree)
    arithmetic = f"{section}.degree={degree}: {n} numbers make ({n} + {degree} choose {degree}) = "
    _limit(arithmetic, count, f"; lower it, or choose {section}=random_fourier")
    return nn.Sequential(*layers, Monomials(n, degree)), count


def fourier(section: str, obs: ObsSpec, order: int, scale: float) -> tuple[nn.Module, int]:
    """The cosine basis cos(π c · u), c in {0, ..., order}^n, of u = (clamp(x, -scale, scale) / scale + 1) / 2.

    Source: Konidaris, Osentoski and Thomas, "Value function approximation in reinforcement learning using the Fourier
    basis", 2011. There the state is given in [0, 1]^n, and each feature's learning rate is divided by |c|: here
    observations are clamped to [-scale, scale] and mapped to it, and all features share one learning rate.

    Args:
        obs: continuous or an image.
        order: the highest frequency, in half periods over the interval, >= 1; (order + 1)^n features.
        scale: half width of the interval in units of the observation as the network sees it, > 0.

    Raises:
        UserError: discrete observations, or more than 100,000 features.
    """
    layers, n = _numbers(section, "fourier", obs)
    count = (order + 1) ** n
    arithmetic = f"{section}.order={order}: {n} numbers make ({order} + 1)^{n} = "
    _limit(arithmetic, count, f"; lower it, or choose {section}=random_fourier")
    return nn.Sequential(*layers, Cosines(n, order, scale)), count


def random_fourier(
    section: str, obs: ObsSpec, count: int, length_scale: float, generator: torch.Generator
) -> tuple[nn.Module, int]:
    """√(2 / F) cos(ω x + b), ω ~ N(0, I / length_scale²), b uniform in [0, 2π).

    The mean of phi(x) · phi(y) over the draws is the kernel exp(-|x - y|² / (2 length_scale²)).

    Source: Rahimi and Recht, "Random features for large-scale kernel machines", 2007, algorithm 1.

    Args:
        obs: continuous or an image.
        count: F, 1 to 100,000.
        length_scale: the distance of observations over which the features change, > 0.
        generator: the stream that ω and b are drawn from.

    Raises:
        UserError: discrete observations.
    """
    layers, n = _numbers(section, "random_fourier", obs)
    return nn.Sequential(*layers, RandomCosines(n, count, length_scale, generator)), count


def _numbers(section: str, name: str, obs: ObsSpec) -> tuple[list[nn.Module], int]:
    """The layers from observations to x [B, n], and n."""
    if isinstance(obs, Discrete):
        raise UserError(
            f"{section}={name}: needs observations that are arrays of numbers, got {obs.n:,} discrete ones; "
            f"{section}=tabular, linear or mlp takes these"
        )
    return encoder(obs)


def _limit(before: str, count: int, after: str) -> None:
    """That features are few enough to be formed."""
    if count > _MAX_FEATURES:
        shown = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise UserError(f"{before}{shown} features; the limit is {_MAX_FEATURES:,}{after}")


Features = tuple[nn.Module, int]  # phi, and how many numbers it gives


def _readout(features: Features, outputs: int) -> nn.Sequential:
    """W phi(s), W = 0."""
    phi, count = features
    with torch.random.fork_rng(devices=[]):  # from which the default initialisation draws
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

    log_std_init: LogStd  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = plain("policy", obs)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class LinearCritic(Validated):
    """Critic that is linear in the observation and a constant, or in the unit vector of a discrete one."""

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(plain("critic", obs))


@dataclass(frozen=True)
class PolynomialPolicy(Validated):
    """Policy that is linear in all monomials of the observation up to a total degree.

    Continuous actions have one dimension.
    """

    degree: Count  # highest total degree of a monomial
    log_std_init: LogStd  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = polynomial("policy", obs, self.degree)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class PolynomialCritic(Validated):
    """Critic that is linear in all monomials of the observation up to a total degree."""

    degree: Count

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(polynomial("critic", obs, self.degree))


@dataclass(frozen=True)
class FourierPolicy(Validated):
    """Policy that is linear in the Fourier basis; see `fourier`.

    Continuous actions have one dimension.
    """

    order: Count  # highest frequency, in half periods over the interval
    scale: Positive  # half width of the interval, in units of the observation
    log_std_init: LogStd  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights."""
        features = fourier("policy", obs, self.order, self.scale)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class FourierCritic(Validated):
    """Critic that is linear in the Fourier basis; see `fourier`."""

    order: Count
    scale: Positive

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights; the action space is unused."""
        return _critic(fourier("critic", obs, self.order, self.scale))


@dataclass(frozen=True)
class RandomFourierPolicy(Validated):
    """Policy that is linear in random Fourier features; see `random_fourier`.

    Continuous actions have one dimension.
    """

    count: FeatureCount  # F, number of features
    length_scale: Positive  # distance of observations over which the features change
    log_std_init: LogStd  # initial log standard deviation, continuous actions only
    continuous: ContinuousHead  # distribution of continuous actions

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the policy with zero weights and features drawn from the generator."""
        features = random_fourier("policy", obs, self.count, self.length_scale, generator)
        return _policy(features, action, self.log_std_init, self.continuous)


@dataclass(frozen=True)
class RandomFourierCritic(Validated):
    """Critic that is linear in random Fourier features; see `random_fourier`."""

    count: FeatureCount
    length_scale: Positive

    def make(self, obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
        """Return the critic with zero weights and features drawn from the generator; the action space is unused."""
        return _critic(random_fourier("critic", obs, self.count, self.length_scale, generator))
