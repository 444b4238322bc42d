"""From a rollout to a batch: the critic's values, advantages and targets of its valid rows."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pgx.algos.common.sequences import cut_sequences
from pgx.core.agent import Agent, Normalizer
from pgx.core.data import Batch, Observations, Rollout
from pgx.ops.returns import gae
from pgx.ops.stats import standardize


@torch.no_grad()
def rollout_values(
    value_of: Callable[[Observations], Tensor], normalizer: Normalizer, rollout: Rollout
) -> tuple[Tensor, Tensor]:
    """V(s_t) and V(s_{t+1}) of every row, [T, N] each, with each observation passed through the critic once.

    At a terminated row the second number belongs to whatever came next; V = 0 there is the estimators' matter.
    Inside an episode the successor of row t is the observation of row t + 1; only the successors after the
    last row and at truncations are observations of their own.

    Args:
        value_of: the critic, or another function of B observations.
        normalizer: what it looks through.
        rollout: T steps of N environments.
    """
    own = rollout.truncated.clone()
    own[-1] = True
    obs = torch.cat([rollout.obs.flatten(0, 1), rollout.next_obs[own]])
    time = torch.cat([rollout.time.flatten(), rollout.time[own] + 1])
    values = value_of(Observations(normalizer(obs), time))
    value = values[: own.numel()].view(own.shape)
    next_value = torch.cat([value[1:], value[-1:]])
    next_value[own] = values[own.numel() :]
    return value, next_value


@torch.no_grad()
def rollout_observations(agent: Agent, rollout: Rollout) -> Observations:
    """The valid rows of a rollout as the networks see them, time-major."""
    rows, mask = valid_rows(rollout), rollout.action_mask
    history = None if agent.policy.recurrent_state is None else cut_sequences(agent, rollout)
    return Observations(
        features=agent.normalizer(rows(rollout.obs)),
        time=rows(rollout.time),
        action_mask=None if mask is None else rows(mask),
        history=history,
    )


def valid_rows(rollout: Rollout) -> Callable[[Tensor], Tensor]:
    """x [T, N, ...] -> its valid rows, time-major: x[valid], but that the mask is searched once for many x."""
    index = rollout.valid.flatten().nonzero().squeeze(-1)
    return lambda x: x.flatten(0, 1).index_select(0, index)


@torch.no_grad()
def rollout_log_ratio(agent: Agent, rollout: Rollout) -> Tensor:
    """log π(a|s) - log μ(a|s), the agent's policy to the one that acted, nats; [T, N], 0 in rows that are not data."""
    valid = rollout.valid
    log_prob = agent.policy(rollout_observations(agent, rollout)).log_prob(rollout.action[valid])
    log_ratio = torch.zeros_like(rollout.log_prob)
    log_ratio[valid] = log_prob - rollout.log_prob[valid]
    return log_ratio


@torch.no_grad()
def make_batch(
    agent: Agent, rollout: Rollout, value: Tensor, advantage: Tensor, value_target: Tensor
) -> Batch:
    """The valid rows of a rollout and of [T, N] estimates over it, time-major, observations normalized."""
    rows = valid_rows(rollout)
    return Batch(
        obs=rollout_observations(agent, rollout),
        action=rows(rollout.action),
        log_prob=rows(rollout.log_prob),
        value=rows(value),
        advantage=rows(advantage),
        value_target=rows(value_target),
        shard=rollout.shard,
    )


def gae_batch(agent: Agent, rollout: Rollout, discount: float, gae_lambda: float, normalize: bool) -> Batch:
    """Generalized advantages, and the λ-returns A + V as value targets.

    Args:
        discount, gae_lambda: γ and λ in [0, 1].
        normalize: advantages to mean 0 and standard deviation 1 over the batch; targets stay as they are.
    """
    value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
    advantage = gae(
        rollout.reward, value, next_value, rollout.terminated, rollout.truncated, discount, gae_lambda
    )
    batch = make_batch(agent, rollout, value, advantage, advantage + value)
    return replace(batch, advantage=standardize(batch.advantage, batch.mean)) if normalize else batch
