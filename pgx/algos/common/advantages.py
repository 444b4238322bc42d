"""Conversion of a rollout to a batch: values, advantages and value targets of its valid rows."""

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
    """Compute V(s_t) and V(s_{t+1}) of every row, with one evaluation of each observation.

    Within an episode the successor of row t is the observation of row t + 1. Only the successors at truncations and
    after the last row are separate observations.

    Args:
        value_of: the critic, or another function of B observations.
        normalizer: normalizer of the observations.
        rollout: T steps of N environments.

    Returns:
        V(s_t) and V(s_{t+1}), [T, N] each. At a terminated row V(s_{t+1}) has no meaning; estimators use 0 there.
    """
    separate = rollout.truncated.clone()
    separate[-1] = True
    obs = torch.cat([rollout.obs.flatten(0, 1), rollout.next_obs[separate]])
    time = torch.cat([rollout.time.flatten(), rollout.time[separate] + 1])
    values = value_of(Observations(normalizer(obs), time))
    value = values[: separate.numel()].view(separate.shape)
    next_value = torch.cat([value[1:], value[-1:]])
    next_value[separate] = values[separate.numel() :]
    return value, next_value


@torch.no_grad()
def rollout_observations(agent: Agent, rollout: Rollout) -> Observations:
    """Return the observations of the valid rows as input of the networks, time-major."""
    rows, mask = valid_rows(rollout), rollout.action_mask
    history = None if agent.policy.recurrent_state is None else cut_sequences(agent, rollout)
    return Observations(
        features=agent.normalizer(rows(rollout.obs)),
        time=rows(rollout.time),
        action_mask=None if mask is None else rows(mask),
        history=history,
    )


def valid_rows(rollout: Rollout) -> Callable[[Tensor], Tensor]:
    """Return x [T, N, ...] -> x[valid], time-major, which evaluates the mask once for many x."""
    index = rollout.valid.flatten().nonzero().squeeze(-1)
    return lambda x: x.flatten(0, 1).index_select(0, index)


@torch.no_grad()
def rollout_log_ratio(agent: Agent, rollout: Rollout) -> Tensor:
    """Return log π(a|s) - log μ(a|s) of the agent's policy π and the behavior policy μ.

    The result is [T, N], in nats, and 0 in rows that are not valid.
    """
    valid = rollout.valid
    log_prob = agent.policy(rollout_observations(agent, rollout)).log_prob(rollout.action[valid])
    log_ratio = torch.zeros_like(rollout.log_prob)
    log_ratio[valid] = log_prob - rollout.log_prob[valid]
    return log_ratio


@torch.no_grad()
def make_batch(
    agent: Agent, rollout: Rollout, value: Tensor, advantage: Tensor, value_target: Tensor
) -> Batch:
    """Make a batch of the valid rows of a rollout and of estimates [T, N] over it: time-major, normalized."""
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
