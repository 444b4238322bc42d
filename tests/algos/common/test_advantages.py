"""Tests of batches made from rollouts: bootstrapped values, valid rows and minibatches."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from pgx.algos.common.advantages import gae_batch, rollout_log_ratio, rollout_values
from pgx.core.agent import Agent
from pgx.core.data import Batch, Observations, Rollout, rows_of
from pgx.core.specs import Continuous, Discrete, ObsSpec
from pgx.envs.normalizers import Identity, ObservationNormalizer
from pgx.networks.distributions import DiagonalGaussian
from pgx.networks.mlp import MLPCritic, MLPPolicy
from pgx.ops.returns import gae
from tests.conftest import as_observations

STEPS, ENVS = 12, 5
SEEDS = [0, 1, 2]
VECTOR = Continuous((3,))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agent_for(obs: ObsSpec) -> Agent:
    generator = torch.Generator().manual_seed(0)
    policy = MLPPolicy([8], "tanh", 1.0, 1.0, log_std_init=0.0, continuous="gaussian").make(
        obs, Discrete(2), generator
    )
    critic = MLPCritic([8], "tanh", 1.0, 1.0).make(obs, Discrete(2), generator)
    if isinstance(obs, Discrete):
        return Agent(policy, critic, Identity())
    normalizer = ObservationNormalizer(obs, clip=5.0, device=torch.device("cpu"))
    normalizer.observe(2 * normal(1, 50, *obs.shape) + 1)
    return Agent(policy, critic, normalizer)


def rollout_with_ends(seed: int, obs: ObsSpec = VECTOR) -> Rollout:
    """Return a rollout of episodes that end at random; the row after an end starts at another observation."""
    generator = torch.Generator().manual_seed(seed)

    def observations() -> Tensor:
        if isinstance(obs, Discrete):
            return torch.randint(obs.n, (STEPS, ENVS), generator=generator)
        return torch.randn((STEPS, ENVS, *obs.shape), generator=generator)

    def event(probability: float) -> Tensor:
        return torch.rand((STEPS, ENVS), generator=generator) < probability

    first, successor = observations(), observations()
    terminated, truncated = event(0.15), event(0.15)
    truncated[3, 0], truncated[-1, 1], terminated[5, 2], terminated[-1, 3] = True, True, True, True
    goes_on = ~(terminated | truncated)
    goes_on[-1] = False
    successor[goes_on] = torch.cat([first[1:], first[-1:]])[goes_on]
    return Rollout(
        obs=first,
        action=torch.randint(2, (STEPS, ENVS), generator=generator),
        log_prob=torch.randn((STEPS, ENVS), generator=generator),
        reward=torch.randn((STEPS, ENVS), generator=generator),
        next_obs=successor,
        terminated=terminated,
        truncated=truncated,
        valid=torch.ones((STEPS, ENVS), dtype=torch.bool),
        time=steps_since_the_start(terminated | truncated),
    )


def steps_since_the_start(done: Tensor) -> Tensor:
    time = torch.zeros(done.shape, dtype=torch.int64)
    for t in range(1, len(done)):
        time[t] = torch.where(done[t - 1], 0, time[t - 1] + 1)
    return time


POISON = 1e6


def rollout_with_reset_rows(seed: int) -> Rollout:
    """Return a rollout with a reset row after each end, with wrong values in everything except obs."""
    rollout = rollout_with_ends(seed)
    done = rollout.terminated | rollout.truncated
    for t in range(1, STEPS):  # no two ends in a row: the row between them resets
        done[t] &= ~done[t - 1]
    terminated, truncated = rollout.terminated & done, rollout.truncated & done
    reset = torch.cat([torch.zeros_like(done[:1]), done[:-1]])
    next_obs = torch.cat([rollout.obs[1:], rollout.next_obs[-1:]])  # a reset row shows the true successor
    return replace(
        rollout,
        next_obs=next_obs,
        terminated=terminated,
        truncated=truncated,
        valid=~reset,
        action=rollout.action.masked_fill(reset, -7),
        log_prob=rollout.log_prob.masked_fill(reset, POISON),
        reward=rollout.reward.masked_fill(reset, POISON),
    )


def values_one_by_one(agent: Agent, rollout: Rollout) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        value = torch.stack([agent.critic(as_observations(agent.normalizer(row))) for row in rollout.obs])
        next_value = torch.stack(
            [agent.critic(as_observations(agent.normalizer(row))) for row in rollout.next_obs]
        )
    return value, next_value


@pytest.mark.parametrize("obs", [VECTOR, Continuous((2, 2)), Discrete(40)])
@pytest.mark.parametrize("seed", SEEDS)
def test_values_are_those_of_each_observation_and_its_true_successor(seed: int, obs: ObsSpec) -> None:
    """At a termination V(s') is not used, so its value is arbitrary."""
    agent, rollout = agent_for(obs), rollout_with_ends(seed, obs)
    value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
    expected, expected_next = values_one_by_one(agent, rollout)
    read = ~rollout.terminated
    assert (rollout.truncated & read)[:-1].any()
    assert torch.allclose(value, expected, atol=1e-6)
    assert torch.allclose(next_value[read], expected_next[read], atol=1e-6)
    assert not value.requires_grad and not next_value.requires_grad


@pytest.mark.parametrize("make", [rollout_with_ends, rollout_with_reset_rows])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_holds_the_advantages_of_the_valid_rows_in_order(
    seed: int, make: Callable[[int], Rollout]
) -> None:
    agent, rollout = agent_for(VECTOR), make(seed)
    value, next_value = values_one_by_one(agent, rollout)
    advantage = gae(rollout.reward, value, next_value, rollout.terminated, rollout.truncated, 0.9, 0.8)
    batch, valid = gae_batch(agent, rollout, 0.9, 0.8, normalize=False), rollout.valid
    assert len(batch) == rollout.steps
    assert torch.allclose(batch.advantage, advantage[valid], atol=1e-5)
    assert torch.allclose(batch.value_target, (advantage + value)[valid], atol=1e-5)
    assert torch.allclose(batch.value, value[valid], atol=1e-6)
    assert torch.equal(batch.action, rollout.action[valid])
    assert torch.equal(batch.log_prob, rollout.log_prob[valid])
    assert torch.equal(batch.obs.features, agent.normalizer(rollout.obs[valid]))
    assert torch.equal(batch.obs.time, rollout.time[valid])
    assert not any(column.requires_grad for column in columns(batch).values())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_rows_that_only_reset_never_reach_a_batch(seed: int, normalize: bool) -> None:
    rollout = rollout_with_reset_rows(seed)
    assert (~rollout.valid).sum() > 3
    batch = gae_batch(agent_for(VECTOR), rollout, 0.99, 0.95, normalize)
    assert len(batch) == int(rollout.valid.sum())
    assert (batch.action >= 0).all()
    for name, column in columns(batch).items():
        assert column.abs().max() < 1000, name


@pytest.mark.parametrize("normalize", [False, True])
def test_values_in_reset_rows_change_no_estimate(normalize: bool) -> None:
    agent, rollout = agent_for(VECTOR), rollout_with_reset_rows(0)
    harmless = replace(rollout, reward=rollout.reward.masked_fill(~rollout.valid, 0.0))
    poisoned, clean = (gae_batch(agent, r, 0.99, 0.95, normalize) for r in (rollout, harmless))
    for name, column in columns(poisoned).items():
        assert torch.equal(column, columns(clean)[name]), name


@pytest.mark.parametrize("make", [rollout_with_ends, rollout_with_reset_rows])
def test_normalising_touches_the_advantage_alone(make: Callable[[int], Rollout]) -> None:
    agent, rollout = agent_for(VECTOR), make(0)
    plain, normalized = (gae_batch(agent, rollout, 0.9, 0.8, normalize) for normalize in (False, True))
    for name, column in columns(plain).items():
        assert torch.equal(column, columns(normalized)[name]) == (name != "advantage"), name
    assert float(normalized.advantage.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(normalized.advantage.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(
        plain.advantage - plain.advantage.mean(),
        normalized.advantage * plain.advantage.std(correction=0),
        atol=1e-5,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_log_ratios_are_of_the_policy_to_the_one_that_acted_and_zero_where_nothing_was_done(
    seed: int,
) -> None:
    agent, rollout = agent_for(VECTOR), rollout_with_reset_rows(seed)
    valid, log_ratio = rollout.valid, rollout_log_ratio(agent, rollout)
    now = (
        agent.policy(as_observations(agent.normalizer(rollout.obs[valid])))
        .log_prob(rollout.action[valid])
        .detach()
    )
    assert torch.allclose(log_ratio[valid], now - rollout.log_prob[valid], atol=1e-6)
    assert not log_ratio[~valid].any() and not log_ratio.requires_grad


def test_estimating_changes_neither_agent_nor_rollout() -> None:
    agent, rollout = agent_for(VECTOR), rollout_with_ends(0)
    probe = normal(5, 4, 3)
    before = agent.normalizer(probe), agent.critic(as_observations(agent.normalizer(probe)))
    gae_batch(agent, rollout, 0.9, 0.8, normalize=True)
    untouched = rollout_with_ends(0)
    for name, column in columns(rollout).items():
        assert torch.equal(column, columns(untouched)[name]), name
    assert torch.equal(agent.normalizer(probe), before[0])
    assert torch.equal(agent.critic(as_observations(agent.normalizer(probe))), before[1])
    assert all(p.grad is None for p in agent.critic.parameters())


def columns(rows: Batch | Rollout) -> dict[str, Tensor]:
    """Return every tensor by name, including those of the observations."""
    values = {field.name: getattr(rows, field.name) for field in fields(rows)}
    obs = values["obs"]
    if isinstance(obs, Observations):
        values |= {"obs": obs.features, "time": obs.time}
    return {name: value for name, value in values.items() if value is not None}


def numbered_batch(rows: int) -> Batch:
    """Return a batch in which every column of row k is k."""
    k = torch.arange(rows, dtype=torch.float32)
    return Batch(
        obs=Observations(torch.stack([k, k], 1), k.long()),
        action=k.long(),
        log_prob=k,
        value=k,
        advantage=k,
        value_target=k,
    )


@pytest.mark.parametrize(
    ("rows", "size"), [(64, 16), (61, 16), (67, 16), (10, 4), (7, 7), (5, 64), (9, 1), (100, 33)]
)
def test_minibatches_deal_out_every_row_once_in_parts_of_nearly_equal_length(rows: int, size: int) -> None:
    parts = numbered_batch(rows).minibatches(size, torch.Generator().manual_seed(0))
    lengths = [len(index) for index in parts]
    assert len(parts) == max(1, round(rows / size))
    assert max(lengths) - min(lengths) <= 1
    assert Counter(torch.cat(parts).tolist()) == Counter(range(rows))


def test_minibatches_keep_the_columns_of_a_row_together() -> None:
    batch = numbered_batch(50)
    for index in batch.minibatches(8, torch.Generator().manual_seed(0)):
        part = batch.rows(index)
        assert len(part) == len(index)
        for name, column in columns(part).items():
            numbers = column if column.dim() == 1 else column[:, 1]
            assert torch.equal(numbers.long(), index), name


def test_rows_of_what_a_loss_takes_are_those_of_each_of_its_parts() -> None:
    """Batches, observations, distributions and tensors select the same rows; scalars belong to all rows."""
    batch, index = numbered_batch(50), torch.tensor([7, 3, 3, 49])
    k = torch.arange(50.0)
    data = (
        batch,
        batch.obs,
        DiagonalGaussian(torch.stack([k, k], 1), torch.zeros(50, 2)),
        k,
        torch.tensor(7.0),
    )
    rows, obs, distribution, numbers, shared = rows_of(data, index)
    assert rows.log_prob.long().tolist() == obs.time.tolist() == numbers.long().tolist() == index.tolist()
    assert distribution.mean[:, 1].long().tolist() == index.tolist()
    assert distribution.log_std.shape == (4, 2)
    assert shared.item() == 7.0 and shared.shape == ()


def test_minibatches_are_shuffled_by_the_given_generator() -> None:
    batch, generator = numbered_batch(50), torch.Generator().manual_seed(3)

    def order(g: torch.Generator) -> list[int]:
        return torch.cat(batch.minibatches(8, g)).tolist()

    first, second = order(generator), order(generator)
    assert first != sorted(first) and first != second
    assert first == order(torch.Generator().manual_seed(3))
