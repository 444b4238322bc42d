"""Ranks: two ranks, each with its own rows, compute what one process computes from all rows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import critic_loss
from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.algorithm import OptimizerSpec
from pgx.core.data import Batch, Rollout
from pgx.core.ranks import SINGLE_PROCESS, Ranks, Shard, shard_of
from pgx.core.specs import Continuous, Discrete
from pgx.envs.normalizers import Identity
from pgx.networks.mlp import MLPCritic, MLPPolicy
from pgx.ops.fisher import gauss_newton_product, mean_over_ranks
from pgx.ops.optim import LBFGS, SGD
from pgx.ops.params import flatten
from pgx.ops.stats import standardize
from tests.conftest import as_observations
from tests.thread_ranks import on_ranks

ROWS_OF_RANKS = [
    torch.tensor([0, 2, 5]),
    torch.tensor([1, 3, 4, 6, 7]),
]  # the rows of each rank among all eight
ROWS = 8


def critic() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return MLPCritic([], "tanh", 1.0, 1.0).make(Continuous((2,)), Discrete(2), generator).double()


def batch() -> Batch:
    """Return eight rows whose halves have different means and deviations."""
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    target = torch.arange(ROWS, dtype=torch.float64) ** 2
    empty = torch.zeros(ROWS, dtype=torch.float64)
    return Batch(as_observations(obs), empty, empty, empty, target, target)


def part(ranks: Ranks) -> Batch:
    """Return the rows of one rank, with their positions among those of both."""
    own = ROWS_OF_RANKS[ranks.rank]
    return replace(batch().rows(own), shard=Shard(ranks, ROWS, own))


SPECS: dict[str, OptimizerSpec] = {
    "sgd, clipped": SGD(learning_rate=0.1, schedule="constant", max_grad_norm=1.0, momentum=0.0),
    "lbfgs": LBFGS(learning_rate=1.0, schedule="constant", iterations=2, history_size=5),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_step_is_along_the_gradient_of_all_rows_clipped_after_the_mean(spec: OptimizerSpec) -> None:
    def step(ranks: Ranks, rows: Batch) -> tuple[Tensor, Tensor]:
        network = critic()
        optimizer = spec.make(network, Eager(), ranks)
        loss = optimizer.step(critic_loss, rows)
        return loss, flatten(network.parameters())

    loss, expected = step(SINGLE_PROCESS, batch())
    for own_loss, weights in on_ranks(2, lambda ranks: step(ranks, part(ranks))):
        torch.testing.assert_close(own_loss, loss)
        torch.testing.assert_close(weights, expected)


def test_a_fisher_product_is_over_the_rows_of_all_ranks() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = (
        MLPPolicy([], "tanh", 1.0, 1.0, 0.0, "gaussian")
        .make(Continuous((2,)), Continuous((1,)), generator)
        .double()
    )
    vector = torch.ones(sum(p.numel() for p in policy.parameters()), dtype=torch.float64)
    expected = gauss_newton_product(policy, batch().obs)(vector)

    def product(ranks: Ranks) -> Tensor:
        rows = part(ranks)
        return mean_over_ranks(gauss_newton_product(policy, rows.obs), rows)(vector)

    for found in on_ranks(2, product):
        torch.testing.assert_close(found, expected)


def test_numbers_are_standardized_over_the_rows_of_all_ranks() -> None:
    expected = standardize(batch().advantage)

    def standardized(ranks: Ranks) -> Tensor:
        rows = part(ranks)
        return standardize(rows.advantage, rows.mean)

    for own, found in zip(ROWS_OF_RANKS, on_ranks(2, standardized), strict=True):
        torch.testing.assert_close(found, expected[own])


def rollout(envs: slice, ranks: Ranks) -> Rollout:
    """Return three steps of some of four environments; one row is invalid."""
    generator = torch.Generator().manual_seed(2)
    obs = torch.randn(4, 4, 2, generator=generator)
    never, time = torch.zeros(3, 4, dtype=torch.bool), torch.arange(3).unsqueeze(1).expand(3, 4)
    valid = ~never
    valid[1, 2] = False
    everything = Rollout(
        obs=obs[:-1],
        action=torch.zeros(3, 4, dtype=torch.int64),
        log_prob=torch.zeros(3, 4),
        reward=torch.arange(12.0).view(3, 4),
        next_obs=obs[1:],
        terminated=never,
        truncated=never,
        valid=valid,
        time=time,
    )
    columns = ("obs", "action", "log_prob", "reward", "next_obs", "terminated", "truncated", "valid", "time")
    own = replace(everything, **{name: getattr(everything, name)[:, envs] for name in columns})
    return replace(own, shard=shard_of(ranks, own.valid))


def test_advantages_of_ranks_are_those_of_one_process() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = MLPPolicy([], "tanh", 1.0, 1.0, 0.0, "gaussian").make(Continuous((2,)), Discrete(2), generator)
    agent = Agent(
        policy, MLPCritic([], "tanh", 1.0, 1.0).make(Continuous((2,)), Discrete(2), generator), Identity()
    )
    whole = gae_batch(agent, rollout(slice(0, 4), SINGLE_PROCESS), 0.9, 0.8, normalize=True)
    parts = [slice(0, 1), slice(1, 4)]
    for own in on_ranks(2, lambda r: gae_batch(agent, rollout(parts[r.rank], r), 0.9, 0.8, normalize=True)):
        assert own.shard is not None and own.shard.total == len(whole)
        torch.testing.assert_close(own.advantage, whole.advantage[own.shard.position])
        torch.testing.assert_close(own.value_target, whole.value_target[own.shard.position])
