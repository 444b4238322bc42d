"""Tests of the fit of a critic, and of the arithmetic of minibatches."""

import math
from dataclasses import replace

import pytest
import torch

from pgx.algos.common.critic_fit import critic_minibatch_conflicts, fit_critic, minibatch_conflicts
from pgx.compiler import Eager
from pgx.core.algorithm import Learner, Setting
from pgx.core.data import Batch, History
from pgx.core.specs import Continuous, Discrete
from pgx.networks.mlp import MLPCritic
from pgx.ops.optim import SGD, NoSteps
from pgx.ops.params import flatten
from tests.conftest import as_observations


def linear_task() -> tuple[torch.nn.Module, Batch]:
    """Return a critic without hidden layers, and targets that it can fit exactly."""
    generator = torch.Generator().manual_seed(0)
    critic = MLPCritic([], "tanh", 1.0, 1.0).make(Continuous((3,)), Discrete(2), generator)
    obs = torch.randn(64, 3, generator=generator)
    target = obs @ torch.tensor([1.0, -2.0, 0.5]) + 0.3
    empty = torch.zeros(64)
    return critic, Batch(as_observations(obs), empty, empty, empty, empty, target)


def learner(critic: torch.nn.Module) -> Learner:
    optimizer = SGD(0.1, "constant", None, 0.0).make(critic, Eager())
    return Learner(NoSteps(torch.nn.Module()), optimizer, Eager(), torch.Generator().manual_seed(0))


def test_a_critic_that_can_meet_its_targets_does() -> None:
    critic, batch = linear_task()
    loss = fit_critic(batch, learner(critic), 100, 16)["critic_loss"]
    assert loss < 1e-8
    assert torch.allclose(critic(batch.obs), batch.value_target, atol=1e-3)


def test_the_reported_loss_is_that_of_the_last_epoch_before_its_steps() -> None:
    critic, batch = linear_task()
    before = 0.5 * float((critic(batch.obs) - batch.value_target).square().mean().detach())
    assert fit_critic(batch, learner(critic), 1, 64)["critic_loss"] == pytest.approx(before)


def test_without_epochs_nothing_moves_and_no_loss_is_claimed() -> None:
    critic, batch = linear_task()
    start = [p.clone() for p in critic.parameters()]
    assert math.isnan(fit_critic(batch, learner(critic), 0, 64)["critic_loss"])
    assert all(torch.equal(a, b) for a, b in zip(start, critic.parameters(), strict=True))


def test_a_critic_is_fitted_to_single_rows_whatever_sequences_they_lie_in() -> None:
    """The critic does not use the history: its fit is the same with a recurrent and a feed-forward policy."""
    ends = []
    for recurrent in (False, True):
        critic, batch = linear_task()
        if recurrent:
            row, nothing = torch.arange(64), torch.zeros(32, 2, dtype=torch.bool)
            history = History(
                torch.zeros(32, 2, 3), nothing, torch.zeros(2, 1), nothing, step=row // 2, sequence=row % 2
            )
            batch = replace(batch, obs=replace(batch.obs, history=history))
        fit_critic(batch, learner(critic), 2, 16)
        ends.append(flatten(critic.parameters()))
    assert torch.equal(ends[0], ends[1])


def setting(rollout_steps: int | None, sequence_length: int | None = None) -> Setting:
    return Setting(rollout_steps, num_envs=16, policy="mlp", critic="mlp", sequence_length=sequence_length)


def test_minibatches_of_a_critic_need_no_whole_sequences() -> None:
    assert minibatch_conflicts(setting(128, 32), 16, "algo.minibatch_size") != []
    assert critic_minibatch_conflicts(setting(128, 32), 16) == []
    assert (
        critic_minibatch_conflicts(setting(128, 32), 60) == critic_minibatch_conflicts(setting(128), 60) != []
    )


def test_rows_of_whole_episodes_are_not_counted_beforehand() -> None:
    assert minibatch_conflicts(setting(None), 60, "algo.minibatch_size") == []


@pytest.mark.parametrize(("size", "fits"), [(64, True), (2048, True), (60, False), (4096, False)])
def test_minibatches_must_divide_the_batch(size: int, fits: bool) -> None:
    conflicts = minibatch_conflicts(setting(128), size, "algo.minibatch_size")
    assert (conflicts == []) == fits
    if not fits:
        assert (
            "128" in conflicts[0]
            and "16" in conflicts[0]
            and "2048" in conflicts[0]
            and str(size) in conflicts[0]
        )
