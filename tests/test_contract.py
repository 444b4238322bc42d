"""Laws of all update rules, which are found by their files in configs/algo."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pgx.algos import rule, rules
from pgx.algos.common.advantages import rollout_values
from pgx.core.algorithm import Loss, Optimizer
from pgx.core.data import rows_of
from pgx.core.schema import parameter_types
from pgx.ops.optim.gradient_steps import row_count
from pgx.ops.params import flatten
from pgx.ops.returns import gae
from pgx.ops.stats import effective_sample_size
from pgx.runs.metrics import tagged, tags_of
from tests.conftest import Make, parameters, small

RULES = rules()
OF_ANOTHER_POLICY = {"off_policy_reinforce"}  # their data is from another policy
ENVS = {
    "discrete": ["env=CartPole-v1"],
    "continuous": ["env=Pendulum-v1"],
    "discrete observations": ["env=FrozenLake-v1", "env.backend=gymnasium"],
    "multi-discrete": ["env=tests.environments:TwoButtons-v0"],
}


# Each rule with two kinds, each kind with every other rule; `make test-all` has the others.
PAIRS = [
    pytest.param(name, kind, id=f"{name}-{kind}", marks=[] if (i + j) % 2 else pytest.mark.system)
    for i, name in enumerate(RULES)
    for j, kind in enumerate(ENVS)
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_an_update_changes_the_policy_stays_finite_and_reports_known_metrics(
    make: Make, name: str, kind: str
) -> None:
    trainer = make(*small(name), *ENVS[kind])
    rollout = trainer.runner.collect(trainer.agent)
    while not trainer.algorithm.estimate(trainer.agent, rollout).advantage.std() > 0:
        rollout = trainer.runner.collect(trainer.agent)  # a batch of a task with rare rewards may have none
    before = parameters(trainer)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    after = parameters(trainer)
    assert not torch.equal(before, after)
    assert bool(after.isfinite().all())
    reported = tagged(metrics, tags_of(trainer._declared()))
    assert all(tag.startswith("algo/") for tag in reported)


@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in PAIRS if pair.values[0] not in OF_ANOTHER_POLICY]
)
def test_the_first_ratio_is_one(make: Make, name: str, kind: str) -> None:
    trainer = make(*small(name), *ENVS[kind])
    for _ in range(2):  # the second time after the normalizer has changed
        rollout = trainer.runner.collect(trainer.agent)
        batch = trainer.algorithm.estimate(trainer.agent, rollout)
        log_ratio = trainer.agent.policy(batch.obs).log_prob(batch.action).detach() - batch.log_prob
        assert float(log_ratio.abs().max()) < 2e-5
        assert float(effective_sample_size(log_ratio)) == pytest.approx(1)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        trainer.agent.normalizer.observe(rollout.obs[rollout.valid])


@pytest.mark.parametrize("name", RULES)
def test_at_the_end_of_the_schedule_rates_are_zero_and_optimizers_change_nothing(
    make: Make, name: str
) -> None:
    """A rule that anneals too late, for another progress, or not at all changes parameters here."""
    uses = make(*small(name), "env=CartPole-v1").algorithm.uses
    used = sorted(uses & {"optimizer", "critic_optimizer"})
    trainer = make(*small(name), "env=CartPole-v1", *(f"{group}.schedule=linear" for group in used))
    agent = trainer.agent
    nets = {"optimizer": agent.policy, "critic_optimizer": agent.critic}
    before = [flatten(nets[group].parameters()) for group in used]
    rollout = trainer.runner.collect(agent)
    for _ in range(3):  # a phase of PPG has this length
        metrics = trainer.algorithm.update(agent, trainer.learner, rollout, 1.0)
    rates = {key: value for key, value in metrics.items() if key.endswith("learning_rate")}
    assert rates == {group.replace("optimizer", "learning_rate"): 0.0 for group in used}
    for group, start in zip(used, before, strict=True):
        assert torch.equal(flatten(nets[group].parameters()), start), group


@dataclass(eq=False)
class Steps:
    """Recorded steps of an optimizer."""

    asked: list[tuple[Loss, tuple[Any, ...]]] = field(default_factory=list)  # losses with their data
    losses: list[Tensor] = field(default_factory=list)  # reported loss of each
    orders: list[list[int]] = field(default_factory=list)  # rows of each epoch


def recorded_steps(optimizer: Optimizer) -> Steps:
    """Record the steps of an optimizer; return the growing record."""
    steps, step, sweep = Steps(), optimizer.step, optimizer.step_minibatches

    def recorded_descend(loss: Loss, *data: Any) -> Tensor:
        steps.asked.append((loss, data))
        steps.losses.append(step(loss, *data))
        return steps.losses[-1]

    def recorded_sweep(loss: Loss, data: tuple[Any, ...], minibatches: Sequence[Tensor]) -> Tensor:
        steps.asked.append((loss, data))
        steps.losses.append(sweep(loss, data, minibatches))
        steps.orders.append(torch.cat(list(minibatches)).tolist())
        return steps.losses[-1]

    optimizer.step, optimizer.step_minibatches = recorded_descend, recorded_sweep
    return steps


@pytest.mark.parametrize("name", RULES)
def test_a_pass_takes_every_row_once_in_a_new_order_and_the_last_ones_mean_loss_is_reported(
    make: Make, name: str
) -> None:
    trainer = make(*small(name), "env=CartPole-v1")
    of_policy = recorded_steps(trainer.learner.optimizer)
    of_critic = recorded_steps(trainer.learner.critic_optimizer)
    rollout = trainer.runner.collect(trainer.agent)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    for orders in (of_policy.orders, of_critic.orders):
        assert all(sorted(order) == list(range(rollout.steps)) for order in orders)
        assert all(before != order for before, order in pairwise(orders))
    if of_critic.losses:
        assert metrics["critic_loss"] == pytest.approx(float(of_critic.losses[-1].mean()))
    else:
        assert "critic_optimizer" not in trainer.algorithm.uses


@pytest.mark.parametrize("name", [name for name in RULES if name != "reinforce"])  # it sums over an episode
def test_each_loss_is_a_mean_over_rows(make: Make, name: str) -> None:
    """Repeating the rows of a batch does not change its loss, so steps do not grow with the number of rows."""
    bonus = ["algo.entropy_coefficient=0.1"] if "entropy_coefficient" in parameter_types(rule(name)) else []
    trainer = make(*small(name), *bonus, "env=CartPole-v1")
    agent, learner = trainer.agent, trainer.learner
    steps = {
        recorded_steps(learner.optimizer): agent.policy,
        recorded_steps(learner.critic_optimizer): agent.critic,
    }
    trainer.algorithm.update(agent, learner, trainer.runner.collect(agent), 0.0)
    assert any(of.asked for of in steps)
    for of, network in steps.items():
        for loss, data in {loss: (loss, data) for loss, data in of.asked}.values():
            twice = rows_of(data, torch.arange(row_count(data)).repeat(2))
            torch.testing.assert_close(loss(network, *twice), loss(network, *data), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RULES if "gae_lambda" in parameter_types(rule(name))])
def test_targets_are_the_lambda_returns_of_the_values_in_the_config(make: Make, name: str) -> None:
    trainer = make(*small(name), "env=CartPole-v1", "algo.discount=0.9", "algo.gae_lambda=0.7")
    agent, rollout = trainer.agent, trainer.runner.collect(trainer.agent)
    value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
    ends = rollout.terminated, rollout.truncated
    expected = (value + gae(rollout.reward, value, next_value, *ends, 0.9, 0.7))[rollout.valid]
    torch.testing.assert_close(trainer.algorithm.estimate(agent, rollout).value_target, expected)


@pytest.mark.parametrize("kind", ENVS)
def test_a_distribution_kept_from_before_an_update_does_not_move_with_it(make: Make, kind: str) -> None:
    trainer = make(*small(RULES[0]), *ENVS[kind])
    batch = trainer.algorithm.estimate(trainer.agent, trainer.runner.collect(trainer.agent))
    old = trainer.agent.policy(batch.obs).detach()
    kept = [c.clone() for c in old.params]
    with torch.no_grad():
        for p in trainer.agent.policy.parameters():
            p += 0.1
    assert all(torch.equal(now, then) for now, then in zip(old.params, kept, strict=True))
    assert float(old.kl(trainer.agent.policy(batch.obs)).mean().detach()) > 0


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if i % 3 == 0 else pytest.mark.system) for i, name in enumerate(RULES)],
)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(make: Make, name: str) -> None:
    ends = []
    for run, seed in enumerate((7, 7, 8)):
        trainer = make(*small(name), "env=Pendulum-v1", f"seed={seed}", name=f"run{run}")
        trainer.train()
        ends.append(parameters(trainer))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_every_stream_of_a_run_depends_on_its_seed_and_purpose(make: Make) -> None:
    one, two = (make(*small("ppo"), "env=Pendulum-v1", f"seed={seed}") for seed in (0, 1))
    streams = [(t.runner.state_dict()["sampling"], t.learner.state_dict()["generator"]) for t in (one, two)]
    assert all(not torch.equal(a, b) for a, b in zip(*streams, strict=True))
    assert not torch.equal(*streams[0])  # and on its purpose
    assert not torch.equal(parameters(one), parameters(two))
    assert not torch.equal(one.runner.collect(one.agent).obs[0], two.runner.collect(two.agent).obs[0])


@pytest.mark.parametrize("name", RULES)
def test_saved_and_loaded_the_next_update_is_the_same_to_the_bit(make: Make, name: str) -> None:
    one, two = make(*small(name), "env=Pendulum-v1"), make(*small(name), "env=Pendulum-v1", "seed=3")
    one.algorithm.update(one.agent, one.learner, one.runner.collect(one.agent), 0.0)
    rollout = one.runner.collect(one.agent)
    state = copy.deepcopy(one.state_dict())
    two.load_state_dict(state)
    for trainer in (one, two):
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.5)
    assert torch.equal(parameters(one), parameters(two))


@pytest.mark.parametrize("name", RULES)
def test_an_estimate_changes_nothing(make: Make, name: str) -> None:
    trainer = make(*small(name), "env=Pendulum-v1")
    rollout = trainer.runner.collect(trainer.agent)
    before = parameters(trainer)
    first = trainer.algorithm.estimate(trainer.agent, rollout)
    second = trainer.algorithm.estimate(trainer.agent, rollout)
    assert torch.equal(before, parameters(trainer))
    assert torch.equal(first.advantage, second.advantage)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_checks_its_own_values(name: str) -> None:
    values = dict.fromkeys(parameter_types(rule(name)), -1)
    with pytest.raises(ValueError, match="discount"):
        rule(name)(**values)
