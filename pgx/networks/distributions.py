"""Action distributions (see `pgx.core.agent.Distribution`): small objects without per-call validation.

All densities are in nats.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pgx.ops.divergences import categorical_kl, gaussian_kl

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """pi(a) = softmax(logits)_a over K actions; logits [B, K], actions [B] int64."""

    logits: Tensor

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def detach(self) -> Self:
        return type(self)(self.logits.detach())

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.logits[index])

    def _log_probs(self) -> Tensor:
        return self.logits.log_softmax(-1)

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        """Draw log E, [steps, B, K], of exponential variables E with rate 1."""
        return self.logits.new_empty(steps, *self.logits.shape).exponential_(generator=generator).log()

    def sampled(self, noise: Tensor) -> Tensor:
        # The smallest of K exponential variables E_a / pi_a is that of a with probability pi_a.
        return (self.logits - noise).argmax(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.sampled(self.noise(1, generator)[0])

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def executed(self, action: Tensor) -> Tensor:
        return action

    def log_prob(self, action: Tensor) -> Tensor:
        return self._log_probs().gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return -Σ_a π_a log π_a."""
        log_probs = self._log_probs()
        return -_expectation(log_probs, log_probs)

    def kl(self, other: Self) -> Tensor:
        """Return KL(π || π') = Σ_a π_a (log π_a - log π'_a), computed by `categorical_kl`."""
        log_probs, others = (d.logits.double().log_softmax(-1) for d in (self, other))
        return categorical_kl(log_probs, others).to(self.logits.dtype)

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return (diag(π) - π πᵀ) t for each row."""
        probs = self.logits.softmax(-1)
        (t,) = tangent
        return (probs * (t - (probs * t).sum(-1, keepdim=True)),)


def _expectation(log_probs: Tensor, x: Tensor) -> Tensor:
    """Return Σ_a π_a x_a; actions with π_a = 0 count 0 for every x_a (0 log 0 = 0)."""
    probs = log_probs.exp()
    # Masking the product instead would hide 0 * inf from the value, but not from the gradient.
    return (probs * torch.where(probs > 0, x, 0.0)).sum(-1)


@dataclass(frozen=True)
class MultiCategorical:
    """Product of m independent categoricals; logits [B, K_1 + ... + K_m], actions [B, m] int64."""

    logits: Tensor
    sizes: tuple[int, ...]  # K_1, ..., K_m

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _parts(self) -> list[Categorical]:
        return [Categorical(part) for part in torch.split(self.logits, list(self.sizes), -1)]

    def detach(self) -> Self:
        return type(self)(self.logits.detach(), self.sizes)

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.logits[index], self.sizes)

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of all categoricals, [steps, B, K_1 + ... + K_m]."""
        return torch.cat([part.noise(steps, generator) for part in self._parts()], -1)

    def sampled(self, noise: Tensor) -> Tensor:
        pairs = zip(self._parts(), torch.split(noise, list(self.sizes), -1), strict=True)
        return torch.stack([part.sampled(own) for part, own in pairs], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.sampled(self.noise(1, generator)[0])

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self._parts()], -1)

    def executed(self, action: Tensor) -> Tensor:
        return action

    def log_prob(self, action: Tensor) -> Tensor:
        """Return Σ_i log π_i(a_i)."""
        pairs = zip(self._parts(), action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(a) for part, a in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """Return Σ_i H(π_i)."""
        return torch.stack([part.entropy() for part in self._parts()]).sum(0)

    def kl(self, other: Self) -> Tensor:
        """Return Σ_i KL(π_i || π'_i)."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return torch.stack([mine.kl(theirs) for mine, theirs in pairs]).sum(0)

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the block-diagonal metric of the categoricals times the tangent."""
        tangents = torch.split(tangent[0], list(self.sizes), -1)
        pairs = zip(self._parts(), tangents, strict=True)
        return (torch.cat([part.fisher((t,))[0] for part, t in pairs], -1),)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_std))²); mean and log_std [B, A], actions [B, A]."""

    mean: Tensor
    log_std: Tensor

    @property
    def params(self) -> tuple[Tensor, ...]:
        return (self.mean, self.log_std)

    def detach(self) -> Self:
        return type(self)(self.mean.detach(), self.log_std.detach())

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.mean[index], self.log_std[index])

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers, [steps, B, A]."""
        return self.mean.new_empty(steps, *self.mean.shape).normal_(generator=generator)

    def sampled(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.sampled(self.noise(1, generator)[0])

    def mode(self) -> Tensor:
        return self.mean

    def executed(self, action: Tensor) -> Tensor:
        return action

    def log_prob(self, action: Tensor) -> Tensor:
        """Return -Σ_i [ (a_i - μ_i)² / 2σ_i² + log σ_i + log √(2π) ]."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + _HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Return Σ_i [ log σ_i + 1/2 + log √(2π) ]."""
        return (self.log_std + (0.5 + _HALF_LOG_2PI)).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return KL = Σ_i [ log σ'_i - log σ_i + (σ_i² + (μ_i - μ'_i)²) / 2σ'_i² - 1/2 ].

        Computed by `gaussian_kl`.
        """
        params = (x.double() for x in (*self.params, *other.params))
        return gaussian_kl(*params).to(self.mean.dtype)

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return diag(1/σ², 2) t, in the parameters (mean, log_std)."""
        mean_tangent, log_std_tangent = tangent
        return mean_tangent * (-2 * self.log_std).exp(), 2 * log_std_tangent


@dataclass(frozen=True)
class SquashedGaussian:
    """a = center + half_range tanh(u), u ~ N(mean, diag(exp(log_std))²): actions strictly within bounds.

    Samples, stored actions and arguments of `log_prob` are u [B, A]; `executed` maps u to the action a of the
    environment. u cannot be computed from a near a bound: in float32 all u > 9 give the bound itself, and a clamped
    inverse would make ratios and scores wrong for these samples. With u both are exact. tanh is invertible, so KL,
    ratios and Fisher metric are those of the Gaussian.

    Source: Haarnoja et al., "Soft actor-critic", 2018, appendix C (enforcing action bounds), for the density.
    """

    gaussian: DiagonalGaussian  # of u
    center: Tensor  # [A]
    half_range: Tensor  # [A], > 0

    @property
    def params(self) -> tuple[Tensor, ...]:
        return self.gaussian.params

    def detach(self) -> Self:
        return type(self)(self.gaussian.detach(), self.center, self.half_range)

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.gaussian.rows(index), self.center, self.half_range)

    def noise(self, steps: int, generator: torch.Generator) -> Tensor:
        return self.gaussian.noise(steps, generator)

    def sampled(self, noise: Tensor) -> Tensor:
        return self.gaussian.sampled(noise)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.gaussian.sample(generator)

    def mode(self) -> Tensor:
        """Return the mean of u, for which each component of a is the median; the density of a may peak at a bound."""
        return self.gaussian.mode()

    def executed(self, action: Tensor) -> Tensor:
        return self.center + self.half_range * action.tanh()

    def _log_slope(self, action: Tensor) -> Tensor:
        """Return log da/du = log half_range + 2 (log 2 - u - softplus(-2u)), per component."""
        # In float32 log(1 - tanh(u)²) is log 0 for u > 9.
        return self.half_range.log() + 2 * (math.log(2) - action - softplus(-2 * action))

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log N(u) - Σ_i log da_i/du_i, the density of the executed action."""
        return self.gaussian.log_prob(action) - self._log_slope(action).sum(-1)

    def entropy(self) -> Tensor:
        """Return H(u) + Σ_i E[log da_i/du_i], the entropy of the executed action.

        The expectations have no closed form. They are computed as sums over 81 points at equal distances within six
        standard deviations of the mean. For a smooth integrand the error of such a sum falls exponentially with the
        number of points: it is 1e-4 for log_std <= 2 and 1e-7 for log_std <= 1. (81 Gauss-Hermite points have an error
        of 1e-2 at log_std = 2, because most of them have almost no probability.)
        """
        mean, log_std = self.gaussian.params
        z = torch.linspace(-6, 6, 81, dtype=mean.dtype, device=mean.device).unsqueeze(-1)
        points = mean.unsqueeze(-2) + log_std.exp().unsqueeze(-2) * z  # [B, 81, A]
        weight = (-0.5 * z.square()).softmax(0)
        return self.gaussian.entropy() + (weight * self._log_slope(points)).sum((-2, -1))

    def kl(self, other: Self) -> Tensor:
        """Return the KL of the Gaussians of u."""
        return self.gaussian.kl(other.gaussian)

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the Fisher metric of the Gaussian of u times the tangent."""
        return self.gaussian.fisher(tangent)
