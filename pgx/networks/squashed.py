"""A Gaussian squashed into bounds by tanh. All densities in nats."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pgx.networks.distributions import DiagonalGaussian


@dataclass(frozen=True)
class SquashedGaussian:
    """a = center + half_range tanh(u), u ~ N(mean, diag(exp(log_std))²): actions strictly within bounds.

    The action that is sampled, stored and asked about is u [B, A]; `executed` gives the a of the environment.
    Near a bound a has too few digits to tell u: in float32 all u > 9 give the bound itself, and an inverse that
    stops short of it would make ratios and scores wrong for just those samples. With u both are exact, everywhere.
    tanh loses nothing between the two, so that KL, ratios and Fisher metric are those of the Gaussian.

    Source: Haarnoja et al., "Soft actor-critic", 2018, appendix C (enforcing action bounds), for the density.
    """

    gaussian: DiagonalGaussian  # of u
    center: Tensor  # [A]
    half_range: Tensor  # [A], > 0

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        return self.gaussian.coordinates

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
        """The u whose a is the median of every component; the peaks of the density may be at the bounds."""
        return self.gaussian.mode()

    def executed(self, action: Tensor) -> Tensor:
        return self.center + self.half_range * action.tanh()

    def _log_slope(self, action: Tensor) -> Tensor:
        """log da/du = log half_range + 2 (log 2 - u - softplus(-2u)), per component."""
        # log(1 - tanh(u)²) itself is log 0 from u = 9 on.
        return self.half_range.log() + 2 * (math.log(2) - action - softplus(-2 * action))

    def log_prob(self, action: Tensor) -> Tensor:
        """log N(u) - Σ_i log da_i/du_i: the density of the executed action."""
        return self.gaussian.log_prob(action) - self._log_slope(action).sum(-1)

    def entropy(self) -> Tensor:
        """H(u) + Σ_i E[log da_i/du_i], of the executed action.

        The expectations have no closed form; they are sums over 81 points spread evenly over six standard deviations
        to both sides. For a smooth integrand such a sum converges exponentially in their spacing: it is right to 1e-4
        for log_std <= 2, to 1e-7 for log_std <= 1. (As many Gauss-Hermite points are right to 1e-2 at log_std = 2: most
        of them lie where there is next to no probability.)
        """
        mean, log_std = self.gaussian.coordinates
        z = torch.linspace(-6, 6, 81, dtype=mean.dtype, device=mean.device).unsqueeze(-1)
        points = mean.unsqueeze(-2) + log_std.exp().unsqueeze(-2) * z  # [B, 81, A]
        weight = (-0.5 * z.square()).softmax(0)
        return self.gaussian.entropy() + (weight * self._log_slope(points)).sum((-2, -1))

    def kl(self, other: Self) -> Tensor:
        """That of the Gaussians."""
        return self.gaussian.kl(other.gaussian)

    def fisher(self, tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """That of the Gaussian."""
        return self.gaussian.fisher(tangent)
