"""Tests of actor-critic against exact values: the expectation of its three weights, and the fit of V and Q."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgx.algos.actor_critic import ActorCritic
from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.algorithm import Learner, Optimizer, Setting
from pgx.core.data import Batch, Rollout
from pgx.core.errors import UserError
from pgx.core.specs import Discrete
from pgx.envs.normalizers import Identity
from pgx.networks.action_values import QCritic
from pgx.networks.heads import CategoricalPolicy
from pgx.networks.mlp import perceptron
from pgx.ops.losses import value_loss
from pgx.ops.optim import SGD, Adam, NoSteps
from pgx.ops.stats import standardize
from tests import oracle
from tests.conftest import Make, parameters
from tests.oracle import TabularMDP, chain, gridworld, random_mdp

DISCOUNT = 0.9
STEPS = 8  # episodes are cut here, long before most of them end
MDPS = [chain(), gridworld(), random_mdp(6, 3, seed=0)]
over_mdps = pytest.mark.parametrize("mdp", MDPS, ids=lambda mdp: mdp.name)

TARGETS: dict[str, dict[str, Any]] = {
    "one step": {"n_steps": 1, "gae_lambda": None},
    "three steps": {"n_steps": 3, "gae_lambda": None},
    "lambda": {"n_steps": None, "gae_lambda": 0.7},
    "to the end": {"n_steps": None, "gae_lambda": 1.0},
}
WAYS: dict[str, dict[str, Any]] = {
    "q": {"form": "q"},
    "advantage": {"form": "advantage"},
    **{f"td, {name}": {"form": "td"} | target for name, target in TARGETS.items()},
}
over_ways = pytest.mark.parametrize("way", WAYS)


def rule(**changes: Any) -> ActorCritic:
    values: dict[str, Any] = {
        "discount": DISCOUNT,
        "form": "advantage",
        "n_steps": 1,
        "gae_lambda": None,
        "normalize_advantage": False,
        "entropy_coefficient": 0.0,
        "critic_steps": 1,
    }
    return ActorCritic(**values | changes)


def logits(mdp: TabularMDP) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return 0.7 * torch.randn(mdp.states, mdp.actions, generator=generator, dtype=torch.float64)


def tabular_agent(mdp: TabularMDP, value: Tensor, action_value: Tensor) -> Agent:
    """Return the softmax policy of `logits` and a critic with these values, [S] and [S, A]."""
    generator, space = torch.Generator().manual_seed(0), (Discrete(mdp.states), Discrete(mdp.actions))
    policy = CategoricalPolicy(perceptron(space[0], mdp.actions, [], "tanh", 1.0, 1.0, generator))
    critic = QCritic([], "tanh", 1.0, 1.0).make(*space, generator)
    with torch.no_grad():
        policy.net[-1].weight.copy_(logits(mdp).T)
        critic.state.net[-1].weight.copy_(value[None])
        critic.action.net[-1].weight.copy_(action_value.T)
    return Agent(policy, critic, Identity())


def knowing_agent(mdp: TabularMDP) -> Agent:
    """Return an agent whose critic is exact, except for wrong values at terminal states, which must not be used."""
    pi = logits(mdp).softmax(-1)
    value = oracle.state_values(mdp, pi, DISCOUNT).masked_fill(mdp.terminal, 100.0)
    return tabular_agent(mdp, value, oracle.action_values(mdp, pi, DISCOUNT))


def sampled(mdp: TabularMDP, episodes: int, seed: int = 0, steps: int = STEPS) -> Rollout:
    generator = torch.Generator().manual_seed(seed)
    rows = oracle.simulate(mdp, logits(mdp).softmax(-1), episodes, steps, generator)
    return Rollout(**{key: x.float() if x.is_floating_point() else x for key, x in rows.items()})


def gradients(mdp: TabularMDP, batch: Batch, rollout: Rollout, discount: float = 1.0) -> Tensor:
    """Σ_t discount^t w_t d log pi(a_t|s_t) / dθ of every episode, [N, S, A]; w is the rule's weight."""
    pi, (state, action) = logits(mdp).softmax(-1), (batch.obs.features, batch.action)
    score = torch.eye(mdp.actions, dtype=torch.float64)[action] - pi[state]
    rows = score * (batch.advantage.double() * discount ** rollout.time[rollout.valid])[:, None]
    episode = torch.arange(rollout.valid.shape[1]).expand(rollout.valid.shape)[rollout.valid]
    sums = torch.zeros(rollout.valid.shape[1], mdp.states, mdp.actions, dtype=torch.float64)
    return sums.index_put_((episode, state), rows, accumulate=True)


def exact_gradient(mdp: TabularMDP, discount: float = 1.0) -> Tensor:
    """Σ_t discount^t Σ_s P(s_t = s) pi(a|s) A(s, a) over the first STEPS steps, [S, A]; A is discounted always."""
    pi = logits(mdp).softmax(-1)
    visits = oracle.finite_horizon_visitation(mdp, pi, STEPS, discount).sum(0)
    return visits[:, None] * pi * oracle.advantages(mdp, pi, DISCOUNT)


def within_errors(samples: Tensor, exact: Tensor) -> None:
    """Assert that the mean of samples [N, ...] is `exact` within five standard errors and single precision."""
    error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - exact).abs() <= 5 * error + 1e-5).all()


def learner(agent: Agent, policy: Optimizer | None = None, critic: Optimizer | None = None) -> Learner:
    stays = NoSteps(agent.policy), NoSteps(agent.critic)
    generator = torch.Generator().manual_seed(0)
    return Learner(policy or stays[0], critic or stays[1], Eager(), generator)


# --- the weight of grad log pi ---


@over_mdps
@over_ways
def test_with_an_exact_critic_every_form_has_the_exact_gradient_for_its_expectation(
    mdp: TabularMDP, way: str
) -> None:
    """The rule weights states by their visits; with the factor discount^t it is the gradient of J."""
    rollout = sampled(mdp, episodes=3000)
    assert rollout.truncated.any() and (rollout.terminated.any() or not mdp.terminal.any())
    batch = rule(**WAYS[way]).estimate(knowing_agent(mdp), rollout)
    for discount in (1.0, DISCOUNT):
        exact = exact_gradient(mdp, discount)
        each = gradients(mdp, batch, rollout, discount)
        within_errors(each, exact)
        assert (each.std(0) / len(each) ** 0.5).norm() < 0.3 * exact.norm()


def test_discounted_and_over_long_episodes_it_is_the_policy_gradient_theorem() -> None:
    mdp = chain()
    rollout = sampled(mdp, episodes=2000, steps=100)
    batch = rule().estimate(knowing_agent(mdp), rollout)
    exact = oracle.policy_gradient(mdp, logits(mdp), DISCOUNT)
    within_errors(gradients(mdp, batch, rollout, DISCOUNT), exact)


@over_ways
def test_the_error_falls_with_the_root_of_the_number_of_episodes(way: str) -> None:
    mdp, algorithm = chain(), rule(**WAYS[way])
    agent, exact, errors = knowing_agent(mdp), exact_gradient(mdp), []
    for episodes in (50, 800):
        squares = []
        for seed in range(20):
            rollout = sampled(mdp, episodes, seed)
            mean = gradients(mdp, algorithm.estimate(agent, rollout), rollout).mean(0)
            squares.append((mean - exact).square().sum())
        errors.append(float(torch.stack(squares).mean().sqrt()))
    assert 0.18 < errors[1] / errors[0] < 0.35  # a sixteenth of the variance, a quarter of the error


@over_mdps
@pytest.mark.parametrize("target", TARGETS)
def test_given_state_and_action_the_td_weight_has_the_advantage_for_its_mean(
    mdp: TabularMDP, target: str
) -> None:
    """This holds in the last row, where the rollout cuts episodes, as in all rows."""
    rollout = sampled(mdp, episodes=8000)
    batch = rule(form="td", **TARGETS[target]).estimate(knowing_agent(mdp), rollout)
    state, action = batch.obs.features, batch.action
    exact = oracle.advantages(mdp, logits(mdp).softmax(-1), DISCOUNT)[state, action]
    last = rollout.time[rollout.valid] == STEPS - 1
    pairs = 0
    for s in range(mdp.states):
        for a in range(mdp.actions):
            for rows in ((state == s) & (action == a), (state == s) & (action == a) & last):
                if rows.sum() >= 30:
                    within_errors(batch.advantage[rows].double() - exact[rows], torch.zeros(()))
                    pairs += 1
    assert pairs >= mdp.states * mdp.actions / 2


@over_mdps
def test_the_one_step_td_weight_is_the_advantage_and_noise_of_the_next_state(mdp: TabularMDP) -> None:
    """Var[δ | s, a] = γ² Var[V(s') | s, a] is the additional variance of form td."""
    rollout = sampled(mdp, episodes=8000)
    agent = knowing_agent(mdp)
    td, known = (rule(form=form).estimate(agent, rollout) for form in ("td", "advantage"))
    value = oracle.state_values(mdp, logits(mdp).softmax(-1), DISCOUNT)
    variance = DISCOUNT**2 * (mdp.transition @ value.square() - (mdp.transition @ value).square())
    noise = (td.advantage - known.advantage).double()
    expected = variance[td.obs.features, td.action]
    assert (expected > 1e-3).any()
    within_errors(noise.square() - expected, torch.zeros(()))
    score = gradients(mdp, replace(td, advantage=noise.float()), rollout)
    within_errors(score, torch.zeros(()))


def test_a_constant_in_the_rewards_moves_form_q_alone_and_raises_its_variance() -> None:
    """A(s, a) is independent of c; Q(s, a) contains c / (1 - γ), which adds variance and no bias."""
    low = random_mdp(6, 3, seed=0)
    high = replace(low, reward=low.reward + 3.0)
    variance: dict[tuple[str, str], float] = {}
    for form in ("q", "advantage", "td"):
        weights = []
        for name, mdp in (("low", low), ("high", high)):
            rollout = sampled(mdp, episodes=3000)
            batch = rule(form=form).estimate(knowing_agent(mdp), rollout)
            each = gradients(mdp, batch, rollout)
            within_errors(each, exact_gradient(low))
            variance[form, name] = float(each.var(0).sum())
            weights.append(batch.advantage)
        shift = 3.0 / (1 - DISCOUNT) if form == "q" else 0.0
        assert torch.allclose(weights[1] - weights[0], torch.tensor(shift), atol=1e-4)
    assert variance["q", "high"] > 10 * variance["advantage", "high"]
    assert variance["td", "high"] > variance["advantage", "high"]
    assert variance["advantage", "high"] == pytest.approx(variance["advantage", "low"], rel=1e-3)


@over_ways
def test_the_step_is_along_the_mean_over_rows_of_weight_times_score(way: str) -> None:
    mdp = chain()
    agent, rollout = knowing_agent(mdp), sampled(mdp, episodes=200)
    algorithm = rule(**WAYS[way])
    batch = algorithm.estimate(agent, rollout)
    weight = agent.policy.net[-1].weight
    start = weight.detach().clone()
    steps = SGD(0.5, "constant", None, 0.0).make(agent.policy, Eager())
    algorithm.update(agent, learner(agent, steps), rollout, 0.0)
    expected = 0.5 * gradients(mdp, batch, rollout).sum(0) / rollout.steps
    assert torch.allclose((weight - start).T.detach(), expected.float(), rtol=1e-3, atol=1e-6)
    assert expected.norm() > 0.01


@over_ways
def test_rows_that_are_not_data_reach_nothing(way: str) -> None:
    mdp, algorithm = chain(), rule(**WAYS[way])
    agent, rollout = knowing_agent(mdp), sampled(mdp, episodes=200, steps=30)
    assert (~rollout.valid).any()
    nonsense = replace(
        rollout,
        reward=rollout.reward.masked_fill(~rollout.valid, 1e6),
        action=rollout.action.masked_fill(~rollout.valid, 1),
        log_prob=rollout.log_prob.masked_fill(~rollout.valid, -7.0),
    )
    clean, other = algorithm.estimate(agent, rollout), algorithm.estimate(agent, nonsense)
    for column in ("action", "log_prob", "value", "advantage", "value_target"):
        assert torch.equal(getattr(clean, column), getattr(other, column)), column
    assert len(clean) == rollout.steps


@over_mdps
@over_ways
def test_an_episode_that_a_time_limit_cut_learns_nothing_from_the_one_behind_it(
    mdp: TabularMDP, way: str
) -> None:
    """Estimates of two concatenated rollouts equal those of each rollout."""
    parts = [sampled(mdp, episodes=100, seed=seed) for seed in (0, 1)]
    columns = [c.name for c in fields(Rollout) if getattr(parts[0], c.name) is not None]
    joined = Rollout(**{name: torch.cat([getattr(p, name) for p in parts]) for name in columns})
    assert joined.truncated[STEPS - 1].any() and joined.valid[STEPS].all()
    algorithm, agent = rule(**WAYS[way]), knowing_agent(mdp)
    whole, halves = algorithm.estimate(agent, joined), [algorithm.estimate(agent, p) for p in parts]
    for column in ("value", "advantage", "value_target"):
        apart = torch.cat([getattr(half, column) for half in halves])
        assert torch.allclose(getattr(whole, column), apart, atol=1e-5), column


@over_ways
def test_normalising_standardises_the_weight_and_leaves_value_and_target(way: str) -> None:
    mdp = chain()
    agent, rollout = knowing_agent(mdp), sampled(mdp, episodes=50)
    raw = rule(**WAYS[way]).estimate(agent, rollout)
    normal = rule(**WAYS[way], normalize_advantage=True).estimate(agent, rollout)
    assert torch.equal(normal.advantage, standardize(raw.advantage))
    assert torch.equal(normal.value, raw.value) and torch.equal(normal.value_target, raw.value_target)
    assert torch.allclose(raw.value, agent.critic(raw.obs))
    assert not raw.advantage.requires_grad  # a constant in the policy's loss


# --- the target ---


@pytest.mark.parametrize("env", ["env=CartPole-v1", "env=Pendulum-v1"])
def test_one_step_is_lambda_0_and_the_whole_rollout_lambda_1(make: Make, env: str) -> None:
    target = ["algo.n_steps=5", "algo.gae_lambda=null"]
    trainer = make("algo=actor_critic", env, *target, "runner.rollout_steps=256", "env.num_envs=2")
    assert trainer.algorithm.n_steps == 5
    rollout = trainer.runner.collect(trainer.agent)
    assert rollout.done.any() and not rollout.valid.all()

    def batch(form: str, n_steps: int | None, gae_lambda: float | None) -> Batch:
        algorithm = rule(form=form, n_steps=n_steps, gae_lambda=gae_lambda)
        return algorithm.estimate(trainer.agent, rollout)

    for form in ("td", "q", "advantage"):
        for n_steps, gae_lambda in ((1, 0.0), (256, 1.0), (1000, 1.0)):
            by_steps, by_lambda = batch(form, n_steps, None), batch(form, None, gae_lambda)
            assert torch.allclose(by_steps.value_target, by_lambda.value_target, atol=1e-4)
            assert torch.allclose(by_steps.advantage, by_lambda.advantage, atol=1e-4)
        few, one = batch(form, 4, None), batch(form, 1, None)
        assert not torch.allclose(few.value_target, one.value_target, atol=1e-2)
        assert torch.equal(few.advantage, one.advantage) == (form != "td")  # Q - V reads no target


@pytest.mark.parametrize("env", ["env=CartPole-v1", "env=Pendulum-v1"])
def test_form_td_with_the_lambda_return_is_a2c_to_the_bit(make: Make, env: str) -> None:
    common = [env, "optimizer=rmsprop", "critic_optimizer=rmsprop", "algo.entropy_coefficient=0.01"]
    common += ["algo.gae_lambda=0.9", "algo.normalize_advantage=false"]
    a2c = make("algo=a2c", *common, name="a2c")
    td = make("algo=actor_critic", "algo.form=td", "critic=mlp", "algo.critic_steps=1", *common, name="td")
    start = parameters(td)
    assert torch.equal(start, parameters(a2c))
    for trainer in (a2c, td):
        trainer.train()
    assert torch.equal(parameters(a2c), parameters(td)) and not torch.equal(start, parameters(td))


# --- the critic ---


def test_a_table_is_fitted_to_the_means_of_its_targets() -> None:
    """The critic learns the sample means E[G | s] and E[G | s, a]; targets are fixed while it changes."""
    mdp = chain()
    agent, rollout = knowing_agent(mdp), sampled(mdp, episodes=300)
    algorithm = rule(critic_steps=400)
    batch = algorithm.estimate(agent, rollout)
    steps = Adam(0.05, "constant", None, 0.9, 0.99, 1e-8).make(agent.critic, Eager())
    metrics = algorithm.update(agent, learner(agent, critic=steps), rollout, 0.0)
    state, action = batch.obs.features, batch.action
    with torch.no_grad():
        value, action_value = agent.critic(batch.obs), agent.critic.action_value(batch.obs, action)
    left = float(value_loss(value, batch.value_target) + value_loss(action_value, batch.value_target))
    assert metrics["critic_loss"] == pytest.approx(left, abs=1e-3)
    for s in state.unique().tolist():
        assert torch.allclose(value[state == s], batch.value_target[state == s].mean(), atol=0.01)
        for a in range(mdp.actions):
            rows = (state == s) & (action == a)
            assert torch.allclose(action_value[rows], batch.value_target[rows].mean(), atol=0.01)


def test_the_loss_of_form_td_is_that_of_v_alone() -> None:
    mdp = chain()
    agent, rollout = knowing_agent(mdp), sampled(mdp, episodes=50)
    batch = rule().estimate(agent, rollout)
    of_v = float(value_loss(batch.value, batch.value_target))
    q = agent.critic.action_value(batch.obs, batch.action).detach()
    of_q = float(value_loss(q, batch.value_target))
    assert of_q > 0
    for form, expected in (("td", of_v), ("q", of_v + of_q), ("advantage", of_v + of_q)):
        metrics = rule(form=form).update(agent, learner(agent), rollout, 0.0)
        assert metrics["critic_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("target", ["one step", "lambda"])
def test_from_nothing_the_critic_learns_the_exact_v_and_q_of_the_policy(target: str) -> None:
    mdp, pi = chain(), logits(chain()).softmax(-1)
    agent = tabular_agent(mdp, torch.zeros(mdp.states), torch.zeros(mdp.states, mdp.actions))
    algorithm = rule(critic_steps=5, **TARGETS[target])
    steps = Adam(0.03, "linear", None, 0.9, 0.99, 1e-8).make(agent.critic, Eager())
    student = learner(agent, critic=steps)
    for k in range(80):
        algorithm.update(agent, student, sampled(mdp, episodes=200, seed=k), k / 80)
    live = ~mdp.terminal
    critic = agent.critic
    value = critic.state.net[-1].weight[0] + critic.state.net[-1].bias
    action_value = (critic.action.net[-1].weight + critic.action.net[-1].bias[:, None]).T
    assert torch.allclose(value[live].double(), oracle.state_values(mdp, pi, DISCOUNT)[live], atol=0.03)
    exact = oracle.action_values(mdp, pi, DISCOUNT)[live]
    assert torch.allclose(action_value[live].double(), exact, atol=0.03)
    assert exact.std() > 0.2


# --- what does not fit ---


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algo.form=q", "critic=mlp"], r"critic=mlp: actor_critic, as configured, needs action values"),
        (["algo.form=td"], "critic=q: actor_critic, as configured, does not use action values"),
        (["algo.n_steps=5"], r"algo\.n_steps, algo\.gae_lambda: .* got n_steps=5 and gae_lambda=0\.95"),
    ],
)
def test_unused_and_missing_values_are_refused(make: Make, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make("algo=actor_critic", "env=CartPole-v1", *overrides)


def test_a_target_is_asked_for_and_one_alone() -> None:
    setting = Setting(rollout_steps=5, num_envs=2, policy="mlp", critic="q", sequence_length=None)
    for n_steps, gae_lambda, fits in (
        (1, None, True),
        (None, 0.0, True),
        (1, 0.0, False),
        (None, None, False),
    ):
        assert (rule(n_steps=n_steps, gae_lambda=gae_lambda).conflicts(setting) == []) == fits
