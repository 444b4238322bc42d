"""The health of an update: measured around it, on its whole batch, by the same code for every rule."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pgx.ops.losses import surrogate
from pgx.ops.params import flatten, gradient
from pgx.ops.stats import clip_fraction, effective_sample_size, explained_variance
from pgx.types import Agent, Batch, Distribution, Metrics


@dataclass(frozen=True)
class Before:
    """What is remembered of an agent before an update."""

    batch: Batch
    distribution: Distribution  # at every row, detached
    objective: float  # the surrogate
    gradient: Tensor  # [P] of the surrogate
    parameters: Tensor  # [P]


def look(agent: Agent, batch: Batch) -> Before:
    """Remember an agent before the update that is about to learn from this batch."""
    parameters = list(agent.policy.parameters())
    distribution = agent.policy(batch.obs)
    objective = surrogate(distribution.log_prob(batch.action) - batch.log_prob, batch.advantage)
    return Before(
        batch=batch,
        distribution=distribution.detach(),
        objective=float(objective.detach()),
        gradient=gradient(objective, parameters),
        parameters=flatten(parameters),
    )


@torch.no_grad()
def measure(before: Before, agent: Agent, clip_range: float) -> Metrics:
    """The update's health, by the keys of pgx.metrics.

    With old and new policy at the batch's B observations: KL both ways, entropy, the importance weights
    w = pi_new(a|s) / mu(a|s) of the behaviour policy's actions, the surrogate L = mean(w A) and its first-order
    prediction g·Δθ, and the share of the value targets' variance that the critic explains.

    Args:
        before: from `look`, on the batch that the rule learned from.
        agent: after the update.
        clip_range: half width of the interval around ratio 1 that `clip_fraction` counts outside of.

    Returns:
        Metrics in nats, shares, and units of the advantage.
    """
    batch, old = before.batch, before.distribution
    new = agent.policy(batch.obs)
    kl = old.kl(new)
    log_ratio = new.log_prob(batch.action) - batch.log_prob
    step = flatten(agent.policy.parameters()) - before.parameters
    return {
        "kl": float(kl.mean()),
        "kl_max": float(kl.max()),
        "kl_reverse": float(new.kl(old).mean()),
        "entropy": float(new.entropy().mean()),
        "ess": effective_sample_size(log_ratio),
        "clip_fraction": clip_fraction(log_ratio, clip_range),
        "ratio_min": float(log_ratio.min().exp()),
        "ratio_max": float(log_ratio.max().exp()),
        "surrogate_gain": float(surrogate(log_ratio, batch.advantage)) - before.objective,
        "predicted_gain": float(before.gradient.dot(step)),
        "gradient_norm": float(before.gradient.norm()),
        "step_norm": float(step.norm()),
        "explained_variance": _explained(agent, batch, batch.value),
        "explained_variance_after": _explained(agent, batch, agent.critic(batch.obs)),
        "advantage_mean": float(batch.advantage.mean()),
        "advantage_std": float(batch.advantage.std(correction=0)),
    }


def _explained(agent: Agent, batch: Batch, value: Tensor) -> float:
    """Share of the targets' variance that values explain; NaN where there is no critic, and none of them is not 0."""
    if next(agent.critic.parameters(), None) is None and not bool(value.any()):
        return math.nan
    return explained_variance(value, batch.value_target)
