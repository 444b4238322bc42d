"""Policies and critics that are linear in features which do not learn.

Discrete actions have preferences W phi(s), continuous ones the mean W phi(s); a value is w · phi(s). W and w start
at zero: every action is as likely as another, every mean and value 0. There is no bias beside the features' own
constant, so that the score of a softmax policy is phi(s, a) - E_pi[phi(s, .)] and nothing else.

Source: Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, section 13.1 (softmax in linear
preferences), 13.7 (Gaussian, there with a learned standard deviation of the state), 9.4 and 9.5 (linear values).
"""

import torch
from torch import nn

from pgx.core.schema import Count, Positive
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.networks.features import FeatureCount, fourier, plain, polynomial, random_fourier
from pgx.networks.heads import ContinuousHead, LogStd, Value, policy_for

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
    return Value(_readout(features, 1))


def linear_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    log_std_init: LogStd,
    continuous: ContinuousHead,
) -> nn.Module:
    """Linear in the observation and a constant, or in the unit vector of a discrete one.

    Args:
        obs, action: what the environment shows and takes; continuous actions have one dimension. Here and below.
        generator: the stream that random features are drawn from; the other kinds draw nothing.
        log_std_init, continuous: start and kind of the head; read for continuous actions alone.
    """
    return _policy(plain("policy", obs), action, log_std_init, continuous)


def linear_critic(obs: ObsSpec, action: ActionSpec, generator: torch.Generator) -> nn.Module:
    """As `linear_policy`; a state's value needs nothing of the actions."""
    return _critic(plain("critic", obs))


def polynomial_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    degree: Count,
    log_std_init: LogStd,
    continuous: ContinuousHead,
) -> nn.Module:
    """Linear in all monomials of the observation up to a total degree."""
    return _policy(polynomial("policy", obs, degree), action, log_std_init, continuous)


def polynomial_critic(
    obs: ObsSpec, action: ActionSpec, generator: torch.Generator, degree: Count
) -> nn.Module:
    """As `polynomial_policy`."""
    return _critic(polynomial("critic", obs, degree))


def fourier_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    order: Count,
    scale: Positive,
    log_std_init: LogStd,
    continuous: ContinuousHead,
) -> nn.Module:
    """Linear in the Fourier basis; `order` and `scale` as in `features.fourier`."""
    return _policy(fourier("policy", obs, order, scale), action, log_std_init, continuous)


def fourier_critic(
    obs: ObsSpec, action: ActionSpec, generator: torch.Generator, order: Count, scale: Positive
) -> nn.Module:
    """As `fourier_policy`."""
    return _critic(fourier("critic", obs, order, scale))


def random_fourier_policy(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    count: FeatureCount,
    length_scale: Positive,
    log_std_init: LogStd,
    continuous: ContinuousHead,
) -> nn.Module:
    """Linear in random Fourier features; `count` and `length_scale` as in `features.random_fourier`."""
    features = random_fourier("policy", obs, count, length_scale, generator)
    return _policy(features, action, log_std_init, continuous)


def random_fourier_critic(
    obs: ObsSpec,
    action: ActionSpec,
    generator: torch.Generator,
    count: FeatureCount,
    length_scale: Positive,
) -> nn.Module:
    """As `random_fourier_policy`, with features of its own."""
    return _critic(random_fourier("critic", obs, count, length_scale, generator))
