"""Health metrics of an update, measured around it on its whole batch by the same code for every rule."""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from pgx.algos.common.advantages import rollout_observations
from pgx.core.agent import Agent, Critic, Distribution, Metrics, Policy
from pgx.core.algorithm import Engine
from pgx.core.data import Batch, Rollout
from pgx.core.ranks import Ranks
from pgx.core.specs import ActionSpec, Continuous
from pgx.core.tensor_tree import call_with_tensors
from pgx.ops.losses import surrogate
from pgx.ops.params import flatten, gradient, split
from pgx.ops.stats import at_bound, clip_fraction, effective_sample_size, explained_variance, fraction_outside


@dataclass(frozen=True)
class BeforeUpdate:
    """Batch and policy parameters before an update."""

    batch: Batch
    parameters: Tensor  # [P] of the policy


def before_update(agent: Agent, batch: Batch) -> BeforeUpdate:
    """Return the state before the update on this batch."""
    return BeforeUpdate(batch, flatten(agent.policy.parameters()))


def measure(before: BeforeUpdate, agent: Agent, engine: Engine, clip_range: float) -> Metrics:
    """Compute the health metrics of an update, by the keys of pgx.runs.metrics.

    Args:
        before: result of `before_update` for the batch of the update.
        agent: agent after the update.
        engine: engine that executes the arithmetic.
        clip_range: half width of the interval around ratio 1; `clip_fraction` counts ratios outside it.

    Returns:
        Metrics in nats, fractions, and units of the advantage.
    """
    batch = before.batch
    values = engine.bind(_update_metrics, agent.policy, agent.critic, batch, clip_range, rows=len(batch))
    (found,) = values(before.parameters)
    return dict(zip(_KEYS, found.tolist(), strict=True))


@dataclass(frozen=True)
class BeforeNormalizerUpdate:
    """Policy distributions on rows of a rollout, before the normalizer is updated with it."""

    rollout: Rollout  # its valid rows are compared
    policy: Distribution


@torch.no_grad()
def before_normalizer_update(agent: Agent, rollout: Rollout) -> BeforeNormalizerUpdate | None:
    """Return the policy's distributions under the current statistics; None if the normalizer has none."""
    if agent.normalizer.count is None:
        return None
    if agent.policy.recurrent_state is None:
        rollout = replace(rollout, valid=_thinned(rollout.valid))
    return BeforeNormalizerUpdate(rollout, agent.policy(rollout_observations(agent, rollout)))


@torch.no_grad()
def normalizer_kl(before: BeforeNormalizerUpdate, agent: Agent, ranks: Ranks) -> float:
    """Return the mean KL(pi under the old statistics || pi under the new ones), nats, over the rows of all ranks.

    Args:
        before: result of `before_normalizer_update`.
        agent: agent with the updated statistics and the same policy.
        ranks: processes with the same statistics.
    """
    kl = before.policy.kl(agent.policy(rollout_observations(agent, before.rollout)))
    return float(ranks.mean(kl, kl.mean())[0])


def _thinned(valid: Tensor) -> Tensor:
    """Return valid [T, N] with at most about NORMALIZER_KL_ROWS true rows, evenly spaced in time-major order."""
    rows = valid.flatten().nonzero().squeeze(-1)
    kept = torch.zeros_like(valid).flatten()
    kept[rows[:: max(1, len(rows) // NORMALIZER_KL_ROWS)]] = True
    return kept.view(valid.shape)


NORMALIZER_KL_ROWS = 2048  # rows in the mean of normalizer_kl; its standard error is a few percent


def clipping(
    batch: Batch, agent: Agent, action: ActionSpec, reward: Tensor, reward_clip: float | None
) -> Metrics:
    """Return how much of a batch was changed by bounds: of the scaled reward, and of continuous actions.

    Args:
        batch: B rows, as the rule learned from them.
        agent: whose policy took the actions.
        action: what the environments take.
        reward: [B] scaled and clipped, of the same rows.
        reward_clip: bound on the scaled reward; None: rewards are not scaled.

    Returns:
        `clipped_reward_fraction` unless rewards are not scaled; `clipped_action_fraction` where actions are continuous
        and have a finite bound. Fractions in [0, 1], over the rows of all ranks.
    """
    found: Metrics = {}
    if reward_clip is not None:
        found["clipped_reward_fraction"] = float(batch.mean(at_bound(reward, reward_clip)))
    if isinstance(action, Continuous) and action.low is not None and action.high is not None:
        low, high = (torch.tensor(bounds).to(batch.action) for bounds in (action.low, action.high))
        if any(map(math.isfinite, (*action.low, *action.high))):
            # The executed action depends on the sample and the action space only, so one row of observations is enough.
            one = torch.zeros(min(1, len(batch)), dtype=torch.int64, device=low.device)
            with torch.no_grad():
                executed = agent.policy(batch.obs[one]).executed(batch.action)
            found["clipped_action_fraction"] = float(batch.mean(fraction_outside(executed, low, high)))
    return found


_KEYS = (
    "kl",
    "kl_max",
    "kl_reverse",
    "entropy",
    "ess",
    "clip_fraction",
    "ratio_min",
    "ratio_max",
    "surrogate_gain",
    "predicted_gain",
    "gradient_norm",
    "step_norm",
    "explained_variance",
    "explained_variance_after",
    "advantage_mean",
    "advantage_std",
)


def _update_metrics(
    policy: Policy, critic: Critic, batch: Batch, clip_range: float, parameters: Tensor
) -> tuple[Tensor]:
    """Compare policy and critic before and after an update, on its batch, over all ranks.

    With old and new policy at the batch's B observations: KL both ways, entropy, the importance weights
    w = π_new(a|s) / μ(a|s) of the behaviour policy's actions, the surrogate L = mean(w A), the gradient g of L at the
    old parameters and its first-order prediction g·Δθ, and the fraction of the value targets' variance that the critic
    explains.

    Args:
        policy, critic: networks after the update.
        batch: batch of B rows over all ranks.
        clip_range: half width of the interval around ratio 1.
        parameters: parameters of the policy before the update, [P].

    Returns:
        Values in the order of _KEYS, float64.
    """
    network = cast(nn.Module, policy)
    own = dict(network.named_parameters())
    parts = [part.detach().requires_grad_() for part in split(parameters, list(own.values()))]
    with torch.enable_grad():
        tracked = call_with_tensors([(network, dict(zip(own, parts, strict=True)))], policy, batch.obs)
        objective = surrogate(tracked.log_prob(batch.action) - batch.log_prob, batch.advantage)
        slope = gradient(objective, parts)
    objective, slope = batch.averaged(objective.detach(), slope)
    old = tracked.detach()
    with torch.no_grad():
        new = policy(batch.obs)
        columns = (
            old.kl(new),
            new.kl(old),
            new.entropy(),
            new.log_prob(batch.action) - batch.log_prob,
            batch.advantage,
            batch.value,
            critic(batch.obs),
            batch.value_target,
        )
        kl, reverse, entropy, log_ratio, advantage, value, value_after, target = batch.gather(columns)
        step = flatten(own.values()) - parameters
        found = (
            kl.mean(),
            kl.max(),
            reverse.mean(),
            entropy.mean(),
            effective_sample_size(log_ratio),
            clip_fraction(log_ratio, clip_range),
            log_ratio.min().exp(),
            log_ratio.max().exp(),
            surrogate(log_ratio, advantage) - objective,
            slope.dot(step),
            slope.norm(),
            step.norm(),
            _explained(critic, value, target),
            _explained(critic, value_after, target),
            advantage.mean(),
            advantage.std(correction=0),
        )
    return (torch.stack([value.double() for value in found]),)


def _explained(critic: Critic, value: Tensor, target: Tensor) -> Tensor:
    """Return the explained fraction of the targets' variance; NaN if there is no critic and all values are 0."""
    share = explained_variance(value, target)
    if next(critic.parameters(), None) is None:
        return torch.where(value.any(), share, math.nan)
    return share
