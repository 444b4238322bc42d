"""Every rule works with every policy, or refuses it before an environment exists."""

from dataclasses import replace

import pytest
import torch

from pgx.algos import rule, rules
from pgx.core.errors import UserError
from pgx.core.paths import config_choices
from pgx.core.schema import parameter_types
from pgx.ops.params import flatten
from pgx.ops.stats import effective_sample_size
from tests.conftest import Make, small

RULES = rules()
CARTPOLE, PENDULUM, LAKE, BUTTONS, CATCH = (
    ["env=CartPole-v1"],
    ["env=Pendulum-v1"],
    ["env=FrozenLake-v1", "env.backend=gymnasium"],
    ["env=tests.environments:TwoButtons-v0"],
    ["env=tests.environments:Catch-v0"],
)
PLAYGROUNDS = {
    "mlp": [CARTPOLE, PENDULUM, LAKE, BUTTONS, CATCH],
    "two_headed": [CARTPOLE, PENDULUM, LAKE, BUTTONS],
    "tabular": [LAKE, BUTTONS],
    "linear": [CARTPOLE, PENDULUM, LAKE, BUTTONS],
    "polynomial": [CARTPOLE, PENDULUM],
    "fourier": [CARTPOLE, PENDULUM],
    "random_fourier": [CARTPOLE, PENDULUM],
    "cnn": [CATCH],
    "gru": [CARTPOLE, PENDULUM],
    "lstm": [CARTPOLE, BUTTONS],
}
# PPG stores observations without the history that a recurrent policy reads. It alone uses a value head.
REFUSED = {
    *(("ppg", policy) for policy in PLAYGROUNDS if policy != "two_headed"),
    *((name, "two_headed") for name in RULES if name != "ppg"),
    ("off_policy_reinforce", "gru"),
    ("off_policy_reinforce", "lstm"),
}
# It learns from steps of another policy, so its first ratios differ from 1.
OFF_POLICY = {"off_policy_reinforce"}


def test_every_policy_is_tried() -> None:
    assert set(PLAYGROUNDS) == set(config_choices("policy"))


def named(env: list[str]) -> str:
    return env[0].split("=")[1].split(":")[-1]


# The first tier tests each rule with every fourth policy, on alternating environments.
PAIRS = [
    pytest.param(
        name,
        policy,
        env,
        id=f"{name}-{policy}-{named(env)}",
        marks=[] if which == number % len(tried) and number % 4 == place % 4 else pytest.mark.system,
    )
    for number, name in enumerate(RULES)
    for place, (policy, envs) in enumerate(PLAYGROUNDS.items())
    if (name, policy) not in REFUSED
    for tried in [envs if policy != "mlp" else envs[-1:]]  # tests/test_contract.py has the others
    for which, env in enumerate(tried)
]


@pytest.mark.parametrize(("name", "policy", "env"), PAIRS)
def test_a_rule_learns_by_any_policy_that_it_takes(
    make: Make, name: str, policy: str, env: list[str]
) -> None:
    trainer = make(*small(name), f"policy={policy}", *env)
    agent, algorithm = trainer.agent, trainer.algorithm
    rollout = trainer.runner.collect(agent)
    while not algorithm.estimate(agent, rollout).advantage.abs().max() > 0:
        rollout = trainer.runner.collect(agent)  # a batch of a task with rare rewards may have none
    batch = algorithm.estimate(agent, rollout)
    assert len(batch) == rollout.steps and bool(batch.advantage.isfinite().all())
    if name not in OFF_POLICY:
        log_ratio = agent.policy(batch.obs).log_prob(batch.action).detach() - batch.log_prob
        assert float(log_ratio.abs().max()) < 2e-5
        assert float(effective_sample_size(log_ratio)) == pytest.approx(1)
    before = flatten(agent.policy.parameters())
    algorithm.update(agent, trainer.learner, rollout, 0.0)
    after = flatten(agent.policy.parameters())
    assert not torch.equal(before, after) and bool(after.isfinite().all())


@pytest.mark.parametrize(("name", "policy"), sorted(REFUSED))
def test_a_policy_that_a_rule_cannot_take_is_refused_before_any_environment_exists(
    make: Make, name: str, policy: str
) -> None:
    recorded = ["dataset=nowhere"] if name in OFF_POLICY else []
    with pytest.raises(UserError, match=r"policy|recurrent") as refusal:
        make(*small(name), f"policy={policy}", "env=tests.environments:Unmakeable-v0", *recorded)
    assert "Unmakeable" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["algo=reinforce", "runner=sync"], "runner"),
        (["algo=off_policy_reinforce", "runner=dataset", "dataset=null"], "dataset=PATH"),
        (["algo=ppo", "runner=dataset", "dataset=somewhere"], "runner=dataset"),
        (["algo=ppo", "critic=none"], "critic_optimizer"),
        (["algo=ppo", "critic=q"], "critic=q"),
        (["algo=reinforce", "critic=mlp"], "critic=mlp"),
        (["algo=reinforce", "algo.baseline=value"], "critic=none"),
        (["algo=ppo", "optimizer=none"], "optimizer=none"),
        (["algo=trpo", "optimizer=adam"], "optimizer=adam"),
        (["algo=npg", "policy=gru", "algo.solver=compatible", "algo.fisher=empirical"], "is recurrent"),
        (["algo=actor_critic", "algo.form=td", "critic=q"], "critic=q"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_incompatible_policies_are_refused_before_any_environment_exists(
    make: Make, overrides: list[str], key: str
) -> None:
    with pytest.raises(UserError, match=key) as refusal:
        make(*overrides, "env=tests.environments:Unmakeable-v0")
    assert "Unmakeable" not in str(refusal.value)


@pytest.mark.parametrize("name", RULES)
def test_without_advantage_and_entropy_bonus_the_policy_stays(make: Make, name: str) -> None:
    keys = parameter_types(rule(name))
    quiet = {
        "entropy_coefficient": "0",
        "policy_iterations": "100",
    }  # and no auxiliary phase, which changes the shared layers
    overrides = [f"algo.{key}={value}" for key, value in quiet.items() if key in keys]
    if "optimizer" in make(*small(name), "env=CartPole-v1").algorithm.uses:
        overrides.append("optimizer=sgd")  # others scale rounding errors of a zero gradient up to a full step
    trainer = make(*small(name), "env=CartPole-v1", *overrides)
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    flat = replace(batch, advantage=torch.zeros_like(batch.advantage))
    trainer.algorithm.estimate = lambda agent, rollout: flat  # type: ignore[method-assign]
    before = flatten(trainer.agent.policy.parameters())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert torch.allclose(before, flatten(trainer.agent.policy.parameters()), atol=1e-6)
