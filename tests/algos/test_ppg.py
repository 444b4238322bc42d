"""Tests of PPG against its definition: PPO between auxiliary phases, their effect, and the stored data."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgx.algos.ppg import PPG
from pgx.compiler import Eager
from pgx.core.agent import Agent, Critic, Metrics, Policy
from pgx.core.algorithm import Learner, Optimizer, Setting
from pgx.core.data import Batch, Observations, Rollout
from pgx.core.errors import UserError
from pgx.core.specs import Continuous
from pgx.envs.normalizers import Identity
from pgx.networks.tabular import Zero
from pgx.networks.two_headed import TwoHeadedPolicy
from pgx.ops.optim import NoSteps
from pgx.ops.optim.first_order import AdamTransform
from pgx.ops.optim.gradient_steps import GradientSteps
from pgx.ops.params import flatten, split
from pgx.ops.stats import explained_variance
from pgx.runs.checkpoints import serialize
from pgx.runs.metrics import tagged, tags_of
from pgx.training.trainer import Trainer
from tests.conftest import Make, as_observations, parameters
from tests.widening import Widening, kl_of_widening

SHARED = ["algo.network=shared", "critic=none", "critic_optimizer=none"]
NETWORKS = {"dual": [], "shared": SHARED}
ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
CASES = list(zip(ENVS, NETWORKS, strict=True))  # each of both once
FEW = ["algo=ppg", "algo.policy_epochs=2", "algo.value_epochs=2", "algo.auxiliary_epochs=2"]
PARTS = 4  # minibatches of 64 rows in a batch of 256


def step(trainer: Trainer) -> tuple[Rollout, Metrics]:
    """Run one iteration as the trainer does."""
    rollout = trainer.runner.collect(trainer.agent)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    trainer.agent.normalizer.observe(rollout.obs[rollout.valid])
    return rollout, metrics


def part(trainer: Trainer, name: str) -> Tensor:
    """Return a copy of the parameters of the policy's trunk, actor or value_head."""
    return flatten(getattr(trainer.agent.policy, name).parameters())


def steps_of(trainer: Trainer, name: str) -> int:
    """Return the number of gradient steps of the policy's optimizer on a part of the policy."""
    own = {id(p) for p in getattr(trainer.agent.policy, name).parameters()}
    counts = steps_by_coordinate(trainer.learner.optimizer, trainer.agent.policy)
    (steps,) = {count for p, of in counts for count in of if id(p) in own}
    return steps


def steps_by_coordinate(optimizer: Optimizer, network: Policy | Critic) -> list[tuple[Tensor, set[int]]]:
    """Return each parameter with the numbers of Adam steps t of its coordinates, from the total weight 1 - beta1^t."""
    assert isinstance(optimizer, GradientSteps) and isinstance(
        optimizer.gradient_step.transform, AdamTransform
    )
    total = optimizer.state_dict()["moments"][2].double()
    taken = (torch.log1p(-total) / math.log(optimizer.gradient_step.transform.beta1)).round().long()
    parameters = list(network.parameters())
    return [
        (p, set(of.flatten().tolist())) for p, of in zip(parameters, split(taken, parameters), strict=True)
    ]


def half_error(trainer: Trainer, batch: Batch) -> float:
    """Return half the mean squared error of the policy's value head."""
    with torch.no_grad():
        return float(0.5 * (trainer.agent.policy.value(batch.obs) - batch.value_target).square().mean())


def without_advantage(trainer: Trainer) -> None:
    estimate = trainer.algorithm.estimate

    def flat(agent: object, rollout: Rollout) -> object:
        batch = estimate(agent, rollout)
        return replace(batch, advantage=torch.zeros(len(batch)))

    trainer.algorithm.estimate = flat


@pytest.mark.parametrize(
    "settings",
    [
        ["env=CartPole-v1"],
        ["env=CartPole-v1", "algo.normalize_advantage=batch", "algo.entropy_coefficient=0.01"],
        ["env=Pendulum-v1"],
    ],
)
@pytest.mark.parametrize("clipped", [False, True])
def test_before_its_first_auxiliary_phase_it_is_ppo_to_the_bit(
    make: Make, settings: list[str], clipped: bool
) -> None:
    """With clipping up to rounding: the norm of a gradient is summed in another order of parameters."""
    settings = settings if clipped else [*settings, "optimizer.max_grad_norm=null"]
    ppo = make("algo=ppo", "algo.epochs=3", *settings, name="ppo")
    ppg = make(
        "algo=ppg",
        "algo.policy_iterations=8",
        "algo.policy_epochs=3",
        "algo.value_epochs=3",
        *settings,
        name="ppg",
    )
    ppo.agent.critic.load_state_dict(ppg.agent.critic.state_dict())

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-3, atol=1e-4) if clipped else torch.equal(a, b)

    for _ in range(1 if clipped else 3):
        rollout, metrics = step(ppg)
        expected, reported = step(ppo)
        assert torch.equal(rollout.action, expected.action)
        assert metrics["critic_loss"] == reported["critic_loss"]
    obs = ppo.algorithm.estimate(ppo.agent, expected).obs
    pairs = zip(ppg.agent.policy(obs).params, ppo.agent.policy(obs).params, strict=True)
    assert all(same(a, b) for a, b in pairs)
    assert torch.equal(ppg.agent.critic(obs), ppo.agent.critic(obs))


@pytest.mark.parametrize(("env", "network"), [*CASES, ("env=CartPole-v1", "shared")])
def test_without_advantage_the_policy_phase_moves_the_value_function_alone(
    make: Make, env: str, network: str
) -> None:
    trainer = make(*FEW, *NETWORKS[network], env, "algo.normalize_advantage=off", "algo.policy_iterations=4")
    without_advantage(trainer)
    before = {name: part(trainer, name) for name in ("trunk", "actor", "value_head")}
    critic = parameters(trainer)
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    old = trainer.agent.policy(batch.obs).detach()
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    new = trainer.agent.policy(batch.obs)
    assert all(torch.equal(a, b) for a, b in zip(old.params, new.params, strict=True))
    moved = {name for name, then in before.items() if not torch.equal(part(trainer, name), then)}
    assert moved == ({"value_head"} if network == "shared" else set())
    assert not torch.equal(parameters(trainer), critic)  # one of the two value functions has learned
    value = trainer.algorithm.estimate(trainer.agent, rollout).value
    error, start = ((v - batch.value_target).square().mean() for v in (value, batch.value))
    assert float(error) < float(start)


@pytest.mark.parametrize("network", NETWORKS)
def test_each_part_takes_the_steps_of_its_own_epochs(make: Make, network: str) -> None:
    """E_pi and E_V passes in each of two iterations of a policy phase, then E_aux over both batches together."""
    trainer = make(
        "algo=ppg",
        *NETWORKS[network],
        "env=CartPole-v1",
        "algo.policy_epochs=1",
        "algo.value_epochs=3",
        "algo.policy_iterations=2",
        "algo.auxiliary_epochs=5",
        "algo.auxiliary_minibatch_size=128",
    )
    policy_steps, head_steps = PARTS, 3 * PARTS if network == "shared" else 0
    first, _ = step(trainer)
    assert steps_of(trainer, "trunk") == steps_of(trainer, "actor") == policy_steps
    assert steps_of(trainer, "value_head") == head_steps
    second, _ = step(trainer)
    parts = round((first.steps + second.steps) / 128)
    for name, steps in (("trunk", policy_steps), ("actor", policy_steps), ("value_head", head_steps)):
        assert steps_of(trainer, name) == 2 * steps + 5 * parts
    if network == "dual":
        counts = steps_by_coordinate(trainer.learner.critic_optimizer, trainer.agent.critic)
        assert set.union(*(of for _, of in counts)) == {2 * 3 * PARTS + 5 * parts}


@pytest.mark.parametrize(("env", "network"), CASES)
def test_the_auxiliary_phase_teaches_the_trunk_the_values(make: Make, env: str, network: str) -> None:
    errors, moved = [], []
    for epochs in (1, 20):
        trainer = make(
            *FEW,
            *NETWORKS[network],
            env,
            "algo.normalize_advantage=off",
            "algo.policy_iterations=1",
            f"algo.auxiliary_epochs={epochs}",
            "optimizer.learning_rate=1e-3",
            "algo.beta_clone=0.1",
            "algo.auxiliary_minibatch_size=64",
            name=str(epochs),
        )
        without_advantage(trainer)
        start = part(trainer, "trunk")
        rollout = trainer.runner.collect(trainer.agent)
        batch = trainer.algorithm.estimate(trainer.agent, rollout)
        first = half_error(trainer, batch)
        metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        errors.append(metrics["auxiliary_loss"])
        assert errors[-1] == pytest.approx(half_error(trainer, batch), rel=1e-5)
        moved.append(float((part(trainer, "trunk") - start).norm()))
        assert errors[-1] < first
    assert errors[1] < 0.3 * errors[0]
    assert moved[1] > moved[0] > 0
    with torch.no_grad():  # each state its own target, and not what all have in common
        assert float(explained_variance(trainer.agent.policy.value(batch.obs), batch.value_target)) > 0.1


@pytest.mark.parametrize(("env", "network"), CASES)
def test_the_price_of_divergence_holds_the_actions_in_the_auxiliary_phase(
    make: Make, env: str, network: str
) -> None:
    divergences = {}
    for beta in (0, 1, 1000):
        trainer = make(
            *FEW,
            *NETWORKS[network],
            env,
            "algo.policy_iterations=1",
            "algo.auxiliary_epochs=10",
            "algo.auxiliary_minibatch_size=64",
            f"algo.beta_clone={beta}",
            "policy.output_gain=1.0",
            "optimizer.learning_rate=3e-3",
            name=str(beta),
        )
        _, metrics = step(trainer)
        divergences[beta] = metrics["auxiliary_kl"]
    assert divergences[0] > 5 * divergences[1] > 0
    assert divergences[0] > 50 * divergences[1000] and divergences[1] > divergences[1000]


def test_the_divergence_reported_is_that_of_the_auxiliary_phase_alone(make: Make) -> None:
    """The policy phase has moved the policy before; without advantage it has not, and both are one number."""
    for flat in (False, True):
        trainer = make(
            *FEW, "env=CartPole-v1", "algo.policy_iterations=1", "policy.output_gain=1.0", name=str(flat)
        )
        if flat:
            without_advantage(trainer)
        rollout = trainer.runner.collect(trainer.agent)
        batch = trainer.algorithm.estimate(trainer.agent, rollout)
        old = trainer.agent.policy(batch.obs).detach()
        metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        whole = float(old.kl(trainer.agent.policy(batch.obs)).mean().detach())
        assert metrics["auxiliary_kl"] > 0
        assert (metrics["auxiliary_kl"] == pytest.approx(whole, rel=1e-4)) == flat


@pytest.mark.parametrize("by", [0.5, -0.5])
def test_the_divergence_reported_is_from_the_old_policy_to_the_new(by: float) -> None:
    """The KL is KL(old || new); the reverse differs if the standard deviation changes."""
    one = Continuous((1,))
    policy = TwoHeadedPolicy([], "tanh", 1.0, 1.0, 1.0, 0.0, "gaussian").make(one, one, torch.Generator())
    optimizer = Widening(policy, policy.actor.log_std, by)
    learner = Learner(optimizer, NoSteps(Zero()), Eager(), torch.Generator())
    rule = PPG(0.99, 0.95, "off", 0.2, 0.0, "shared", 1, 1, 1, 4, 1, 4, 1.0)
    agent = Agent(policy, Zero(), Identity())
    metrics = rule._auxiliary_phase(agent, learner, as_observations(torch.zeros(4, 1)), torch.zeros(4))
    assert metrics["auxiliary_kl"] == pytest.approx(kl_of_widening(by))


@pytest.mark.parametrize("env", ENVS)
def test_the_joint_loss_is_that_of_the_definition_away_from_the_old_policy(make: Make, env: str) -> None:
    trainer = make("algo=ppg", env, "algo.beta_clone=3", "policy.output_gain=1.0")
    rule, policy = trainer.algorithm, trainer.agent.policy
    batch = rule.estimate(trainer.agent, trainer.runner.collect(trainer.agent))
    old = policy(batch.obs).detach()
    with torch.no_grad():
        for p in policy.actor.parameters():
            p += torch.sin(torch.arange(p.numel()) + 1.0).view_as(p)
        loss = float(rule._joint_loss(policy, batch.obs, old, batch.value_target))
        two = [d.params for d in (old, policy(batch.obs))]
    if env == "env=CartPole-v1":
        made = [torch.distributions.Categorical(logits=logits) for (logits,) in two]
        kl = torch.distributions.kl_divergence(*made)
    else:
        kl = torch.distributions.kl_divergence(
            *(torch.distributions.Normal(mean, log_std.exp()) for mean, log_std in two)
        ).sum(-1)
    assert float(kl.mean()) > 0.01
    assert loss == pytest.approx(half_error(trainer, batch) + 3 * float(kl.mean()), rel=1e-5)


@pytest.mark.parametrize("env", [*ENVS, "env=FrozenLake-v1"])
def test_a_phase_stores_its_rows_learns_from_all_and_drops_them(make: Make, env: str) -> None:
    trainer = make(*FEW, env, "algo.policy_iterations=3")
    learned: list[tuple[Observations, Tensor]] = []
    auxiliary = trainer.algorithm._auxiliary_phase

    def watched(agent: object, learner: object, obs: Observations, value_target: Tensor) -> Metrics:
        learned.append((obs, value_target))
        return auxiliary(agent, learner, obs, value_target)

    trainer.algorithm._auxiliary_phase = watched
    for _ in range(2):  # two phases
        rollouts, targets = [], []
        for iteration in range(3):
            rollout = trainer.runner.collect(trainer.agent)
            rollouts.append(rollout)
            targets.append(trainer.algorithm.estimate(trainer.agent, rollout).value_target)
            metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
            ended = iteration == 2
            assert metrics["auxiliary_phase"] == ended
            assert ("auxiliary_loss" in metrics) == ("auxiliary_kl" in metrics) == ended
            assert tagged(metrics, tags_of(trainer._declared()))
            kept = trainer.learner.state["phase"]
            assert len(kept) == (0 if ended else iteration + 1)
            for stored, kept_rollout, target in zip(kept, rollouts, targets, strict=False):
                assert torch.equal(stored["obs"], kept_rollout.obs[kept_rollout.valid])
                assert torch.equal(stored["time"], kept_rollout.time[kept_rollout.valid])
                assert torch.equal(stored["value_target"], target)
                assert stored.keys() == {"obs", "time", "value_target"}
            if not ended:  # after the last one it is still where the auxiliary phase saw through it
                trainer.agent.normalizer.observe(rollout.obs[rollout.valid])
        obs, value_target = learned.pop()
        raw = torch.cat([r.obs[r.valid] for r in rollouts])
        assert torch.equal(obs.features, trainer.agent.normalizer(raw))
        assert torch.equal(obs.time, torch.cat([r.time[r.valid] for r in rollouts]))
        assert torch.equal(value_target, torch.cat(targets))
        trainer.agent.normalizer.observe(rollout.obs[rollout.valid])


def test_the_actions_that_could_be_taken_are_part_of_what_a_phase_keeps(make: Make) -> None:
    trainer = make(*FEW, "env=CartPole-v1", "algo.policy_iterations=2")
    generator = torch.Generator().manual_seed(0)
    for ended in (False, True):
        rollout = trainer.runner.collect(trainer.agent)
        taken = torch.nn.functional.one_hot(rollout.action, 2).bool()
        mask = taken | (torch.rand(taken.shape, generator=generator) < 0.5)
        masked = replace(rollout, action_mask=mask)
        metrics = trainer.algorithm.update(trainer.agent, trainer.learner, masked, 0.0)
        if not ended:
            (stored,) = trainer.learner.state["phase"]
            assert torch.equal(stored["action_mask"], mask[rollout.valid])
    assert 0 < metrics["auxiliary_kl"] < 1
    assert bool(parameters(trainer).isfinite().all())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_resumed_in_mid_phase_goes_on_to_the_bit(make: Make, network: str) -> None:
    settings = [*FEW, *NETWORKS[network], "env=Pendulum-v1", "algo.policy_iterations=3"]
    one, two, forgetful = (make(*settings, f"seed={seed}", name=str(seed)) for seed in range(3))
    step(one)
    one.writer.checkpoints.save(
        serialize(one.state_dict()), ["last"]
    )  # through a file, tensors and plain values only
    two.load_state_dict(one.writer.checkpoints.load("last"))
    state = copy.deepcopy(one.state_dict())
    state["learner"]["memory"] = {
        "phase": [dict(s, obs=-s["obs"]) for s in state["learner"]["memory"]["phase"]]
    }
    forgetful.load_state_dict(state)
    for _ in range(2):
        rollout = one.runner.collect(one.agent)
        metrics = [t.algorithm.update(t.agent, t.learner, rollout, 0.5) for t in (one, two, forgetful)]
    assert metrics[0] == metrics[1] and metrics[0]["auxiliary_phase"] == 1
    assert torch.equal(parameters(one), parameters(two))
    assert not torch.equal(parameters(one), parameters(forgetful))


def test_a_state_that_was_taken_does_not_change_with_the_updates_after_it(make: Make) -> None:
    trainer = make(*FEW, "env=CartPole-v1", "algo.policy_iterations=4")
    step(trainer)
    memory = trainer.state_dict()["learner"]["memory"]
    step(trainer)
    assert len(memory["phase"]) == 1 and len(trainer.learner.state["phase"]) == 2


def test_the_value_head_gives_the_advantages_of_a_shared_network(make: Make) -> None:
    trainer = make(*FEW, *SHARED, "env=CartPole-v1", "algo.gae_lambda=0")
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    assert torch.allclose(batch.value, trainer.agent.policy.value(batch.obs).detach(), atol=1e-6)
    with torch.no_grad():  # a value that is higher by c everywhere: targets are higher by γ c where V goes on
        trainer.agent.policy.value_head.bias += 10.0
    higher = trainer.algorithm.estimate(trainer.agent, rollout)
    goes_on = ~rollout.terminated[rollout.valid]
    rise = (higher.value_target - batch.value_target) / (10 * trainer.algorithm.discount)
    assert torch.allclose(rise, goes_on.float(), atol=1e-4)


def test_the_loss_reported_of_a_shared_network_is_the_mean_over_the_last_pass_of_its_value_head(
    make: Make,
) -> None:
    trainer = make(*FEW, *SHARED, "env=CartPole-v1")
    losses: list[Tensor] = []
    sweep = trainer.learner.optimizer.step_minibatches

    def kept(*arguments: Any) -> Tensor:
        losses.append(sweep(*arguments))
        return losses[-1]

    trainer.learner.optimizer.step_minibatches = kept
    _, metrics = step(trainer)
    assert metrics["critic_loss"] == pytest.approx(float(losses[-1].mean()))


def test_networks_that_do_not_fit_are_refused(make: Make) -> None:
    for wrong, words in (
        (["algo=ppg", "algo.network=shared"], "critic=mlp: ppg, as configured, does not use a critic"),
        (["algo=ppg", "critic_optimizer=none"], "critic_optimizer=none: ppg needs an optimizer"),
        (
            ["algo=ppg", "policy=mlp"],
            "policy=mlp: ppg, as configured, needs a value head; set policy=two_headed",
        ),
        (
            ["algo=ppo", "policy=two_headed"],
            "policy=two_headed: ppo, as configured, does not use a value head",
        ),
    ):
        with pytest.raises(UserError, match=words):
            make(*wrong, "env=CartPole-v1")


def test_indivisible_batches_and_recurrent_policies_are_refused_with_the_arithmetic(make: Make) -> None:
    rule = make("algo=ppg", "env=CartPole-v1", "algo.policy_iterations=3").algorithm
    rule.minibatch_size, rule.auxiliary_minibatch_size = 60, 500
    setting = Setting(rollout_steps=64, num_envs=4, policy="two_headed", critic="mlp", sequence_length=None)
    minibatch, auxiliary = rule.conflicts(setting)
    assert minibatch.startswith("algo.minibatch_size:")
    assert auxiliary.startswith("algo.auxiliary_minibatch_size:")
    assert "3 x 256 rows = 768" in auxiliary and "768 / 500" in auxiliary
    assert not rule.conflicts(
        replace(setting, rollout_steps=None)
    )  # whole episodes: nobody knows how many rows
    (recurrent,) = rule.conflicts(replace(setting, rollout_steps=None, policy="gru", sequence_length=1))
    assert recurrent.startswith("policy=gru:") and "policy=two_headed" in recurrent
