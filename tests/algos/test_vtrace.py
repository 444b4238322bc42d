"""Tests of V-trace against its definition: its fixed point, its gradient, and the on-policy case."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pgx.algos.common.advantages import rollout_observations
from pgx.algos.common.surrogate import surrogate_and_gradient
from pgx.algos.vtrace import VTrace
from pgx.compiler import Eager
from pgx.core.agent import Agent
from pgx.core.algorithm import Learner
from pgx.core.data import Batch, Observations, Rollout
from pgx.core.errors import UserError
from pgx.envs.normalizers import Identity
from pgx.networks.distributions import Categorical
from pgx.ops.optim import SGD
from pgx.ops.params import flatten
from pgx.runs.loggers.jsonl import read_rows
from pgx.training import health
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters
from tests.oracle import (
    TabularMDP,
    action_values,
    chain,
    finite_horizon_visitation,
    random_mdp,
    simulate,
    softmax_policy,
    state_values,
)

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
COUNTER = ["env=tests.environments:Counter-v0", "env.scale_reward=false"]
SMALL = ["algo=vtrace", "runner.rollout_steps=32"]
PLAIN = ["optimizer=sgd", "optimizer.learning_rate=0.5", "critic_optimizer=sgd", "algo.entropy_coefficient=0"]
UNCLIPPED = ["algo.rho_clip=null", "algo.c_clip=null"]
DISCOUNT = 0.8


# --- what the rule is made of, in small and exact ---


class TabularPolicy(nn.Module):
    """Softmax policy over logits theta(s, a)."""

    recurrent_state = None

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, obs: Observations) -> Categorical:
        return Categorical(self.theta[obs.features])


class TabularCritic(nn.Module):
    """Critic with one value per state."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.clone())

    def forward(self, obs: Observations) -> Tensor:
        return self.values[obs.features]


def tabular(theta: Tensor, values: Tensor) -> Agent:
    return Agent(TabularPolicy(theta), TabularCritic(values), Identity())


def learner(agent: Agent) -> Learner:
    """Return a learner with plain gradient steps of learning rate 1."""
    policy, critic = (
        SGD(1.0, "constant", None, 0.0).make(net, Eager()) for net in (agent.policy, agent.critic)
    )
    return Learner(policy, critic, Eager(), torch.Generator())


def plain_rule(rho_clip: float | None, c_clip: float | None, trace_lambda: float = 1.0) -> VTrace:
    return VTrace(
        DISCOUNT, rho_clip, c_clip, trace_lambda, normalize_advantage=False, entropy_coefficient=0.0
    )


def logits(mdp: TabularMDP, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(mdp.states, mdp.actions, generator=generator, dtype=torch.float64)


def reached(mu: Tensor, pi: Tensor, rho_clip: float | None) -> Tensor:
    """min(rho_clip mu, pi), what is left of pi [S, A]."""
    return pi if rho_clip is None else torch.minimum(rho_clip * mu, pi)


def between(mu: Tensor, pi: Tensor, rho_clip: float | None) -> Tensor:
    """The policy whose values V-trace learns, min(rho_clip mu, pi) normalized [S, A]: eq. 3 of the paper."""
    weights = reached(mu, pi, rho_clip)
    return weights / weights.sum(-1, keepdim=True)


def every_trajectory(mdp: TabularMDP, mu: Tensor, steps: int) -> tuple[Rollout, Tensor]:
    """A column for each way in which `steps` steps can go from each state, and its probability given that state."""
    ways = itertools.product(
        range(mdp.states), *[pair for _ in range(steps) for pair in (range(mdp.actions), range(mdp.states))]
    )
    path = torch.tensor(list(ways)).T  # [1 + 2 steps, N]: s, a, s, a, ..., s
    state, action, following = path[0:-1:2], path[1::2], path[2::2]
    probability = (mu[state, action] * mdp.transition[state, action, following]).prod(0)
    never = torch.zeros_like(state, dtype=torch.bool)
    rollout = Rollout(
        obs=state,
        action=action,
        log_prob=mu[state, action].log(),
        reward=mdp.reward[state, action],
        next_obs=following,
        terminated=never,
        truncated=never,
        valid=~never,
        time=torch.arange(steps).unsqueeze(1).expand_as(state),
    )
    return rollout, probability


def operator(rule: VTrace, theta: Tensor, every: tuple[Rollout, Tensor]) -> tuple[Tensor, Tensor]:
    """V -> E_mu[v_0 | s_0 = s], which is affine: its slope [S, S] and its value at V = 0, without sampling."""
    rollout, probability = every
    start = rollout.obs[0]

    def applied(values: Tensor) -> Tensor:
        target = rule.estimate(tabular(theta, values), rollout).value_target.view(rollout.reward.shape)[0]
        return torch.zeros_like(values).index_add(0, start, probability * target)

    origin = applied(torch.zeros(len(theta), dtype=torch.float64))
    units = torch.eye(len(theta), dtype=torch.float64)
    return torch.stack([applied(unit) - origin for unit in units], 1), origin


def worst_growth(slope: Tensor) -> float:
    """Return the largest factor by which the maximum error over states can grow in one application."""
    return float(slope.abs().sum(1).max())


# --- values ---


@pytest.mark.parametrize("trace_lambda", [1.0, 0.5])
@pytest.mark.parametrize(
    ("rho_clip", "c_clip"), [(1.0, 1.0), (1.0, 0.3), (0.5, 0.5), (2.0, 1.0), (None, 1.0), (None, None)]
)
def test_the_value_learned_is_that_of_the_policy_between_acting_and_learning(
    rho_clip: float | None, c_clip: float | None, trace_lambda: float
) -> None:
    """Only rho_clip determines this policy; without it, it is the learning policy."""
    mdp = random_mdp(3, 2, seed=0)
    mu, theta = softmax_policy(2 * logits(mdp, 1)), 2 * logits(mdp, 2)
    pi = softmax_policy(theta)
    slope, origin = operator(
        plain_rule(rho_clip, c_clip, trace_lambda), theta, every_trajectory(mdp, mu, steps=3)
    )
    fixed_point = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - slope, origin)
    expected = state_values(mdp, between(mu, pi, rho_clip), DISCOUNT)
    torch.testing.assert_close(fixed_point, expected, rtol=1e-9, atol=1e-9)
    assert worst_growth(slope) < 1
    gap = (expected - state_values(mdp, pi, DISCOUNT)).abs().max()
    assert gap < 1e-12 if rho_clip is None else gap > 0.1


def test_longer_traces_get_there_faster() -> None:
    mdp = random_mdp(3, 2, seed=0)
    mu, theta = softmax_policy(logits(mdp, 1)), logits(mdp, 2)
    every = every_trajectory(mdp, mu, steps=4)
    shrinks = [
        1 - worst_growth(operator(plain_rule(1.0, c_clip), theta, every)[0]) for c_clip in (0.1, 0.5, 1.0)
    ]
    assert 0 < 1.2 * shrinks[0] < shrinks[1] and 1.2 * shrinks[1] < shrinks[2]


def test_traces_larger_than_the_weights_can_drive_values_apart_and_are_refused(make: Make) -> None:
    growth: dict[float, list[float]] = {1.0: [], 50.0: []}
    for c_clip, seed in itertools.product(growth, (2, 7, 38)):
        mdp = random_mdp(3, 2, seed)
        mu, theta = softmax_policy(2 * logits(mdp, seed)), 2 * logits(mdp, seed + 1000)
        slope, _ = operator(plain_rule(1.0, c_clip), theta, every_trajectory(mdp, mu, steps=4))
        growth[c_clip].append(worst_growth(slope))
    assert max(growth[1.0]) < 1 < min(growth[50.0])
    for bars, words in ((["algo.c_clip=2"], "1.0, got 2"), (["algo.c_clip=null"], "1.0, got null")):
        with pytest.raises(UserError, match=rf"algo\.c_clip: expected at most algo\.rho_clip, {words}"):
            make("algo=vtrace", "env=CartPole-v1", *bars)


@pytest.mark.parametrize("cut", ["false", "true"])
@pytest.mark.parametrize("bars", [(1.0, 1.0, 1.0), (1.3, 0.7, 0.6)])
def test_targets_and_advantages_of_a_stale_rollout_are_those_of_a_loop_over_its_steps(
    make: Make, cut: str, bars: tuple[float, float, float]
) -> None:
    """v_t - V(s_t) = ρ_t δ_t + γ c_t (v_{t+1} - V(s_{t+1})), computed step by step with single evaluations of V."""
    trainer = make(
        *SMALL,
        *COUNTER,
        f"env.kwargs.cut={cut}",
        f"algo.rho_clip={bars[0]}",
        f"algo.c_clip={bars[1]}",
        f"algo.trace_lambda={bars[2]}",
    )
    trainer.agent.normalizer.observe(3 + 2 * torch.randn(50, 1))
    rollout = trainer.runner.collect(trainer.agent)
    disturb(trainer)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    assert int(rollout.truncated.sum() if cut == "true" else rollout.terminated.sum()) > 10

    def value(raw: Tensor) -> float:
        return float(trainer.agent.critic(alone(trainer.agent.normalizer(raw[None]))).detach())

    def ratio(t: int, n: int) -> float:
        policy = trainer.agent.policy(alone(trainer.agent.normalizer(rollout.obs[t, n][None])))
        return float((policy.log_prob(rollout.action[t, n][None]).detach() - rollout.log_prob[t, n]).exp())

    gamma, (steps, envs) = trainer.algorithm.discount, rollout.reward.shape
    target, advantage = (torch.zeros(steps, envs) for _ in range(2))
    for n in range(envs):
        for t in reversed(range(steps)):
            ends = bool(rollout.terminated[t, n])
            after = 0.0 if ends else value(rollout.next_obs[t, n])
            goes_on = t + 1 < steps and not ends and not rollout.truncated[t, n]
            better = float(target[t + 1, n]) if goes_on else after
            r, own, w = float(rollout.reward[t, n]), value(rollout.obs[t, n]), ratio(t, n)
            correction = min(bars[0], w) * (r + gamma * after - own)
            target[t, n] = own + correction + gamma * bars[2] * min(bars[1], w) * (better - after)
            advantage[t, n] = r + gamma * better - own
    torch.testing.assert_close(batch.value_target, target[rollout.valid], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(batch.advantage, advantage[rollout.valid], rtol=1e-4, atol=1e-3)


def alone(features: Tensor) -> Observations:
    return Observations(features, torch.zeros(len(features), dtype=torch.int64))


def disturb(trainer: Trainer) -> None:
    """Change the policy, so that it differs from the behavior policy."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.agent.policy.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)


# --- policy gradients ---


@pytest.mark.parametrize(("rho_clip", "c_clip"), [(None, None), (1.0, 1.0), (0.6, 0.3)])
def test_the_gradient_from_another_policys_data_is_the_oracles_at_the_rate_of_sampling(
    rho_clip: float | None, c_clip: float | None
) -> None:
    """With V exact for the policy pi' between mu and pi, the expected gradient of a row in state s is

        sum_a mu(a|s) min(rho_clip, pi/mu) (Q'(s, a) - V'(s)) grad log pi(a|s)

    which for softmax logits is m(s, a) A'(s, a) with m = min(rho_clip mu, pi), since sum_a m A' = 0. States weigh as mu
    visits them. Without clips m = pi and A' = A of pi, the policy gradient theorem but for the weight of states.
    """
    mdp, steps = chain(horizon=None), 6
    mu, theta = softmax_policy(logits(mdp, 1)), logits(mdp, 2)
    pi = softmax_policy(theta)
    target = between(mu, pi, rho_clip)
    values = state_values(mdp, target, DISCOUNT)
    visits = finite_horizon_visitation(mdp, mu, steps, 1.0).sum(0) * ~mdp.terminal
    expected = (
        visits[:, None] * reached(mu, pi, rho_clip) * (action_values(mdp, target, DISCOUNT) - values[:, None])
    )

    generator, rule = torch.Generator().manual_seed(0), plain_rule(rho_clip, c_clip)
    errors = {}
    for episodes in (500, 8000):
        samples = []
        for _ in range(24):
            agent = tabular(theta, values)
            rollout = Rollout(**simulate(mdp, mu, episodes, steps, generator))
            rule.update(agent, learner(agent), rollout, 0.0)
            samples.append((agent.policy.theta.detach() - theta) * rollout.steps / episodes)
        gradients = torch.stack(samples)
        spread = gradients.std(0) / len(samples) ** 0.5
        assert ((gradients.mean(0) - expected).abs() <= 4 * spread + 1e-12).all()
        errors[episodes] = float((gradients - expected).square().sum((1, 2)).mean().sqrt())
    assert errors[8000] < 0.1 * float(expected.norm())
    assert errors[500] / errors[8000] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("env", ENVS)
def test_on_policy_it_is_a2c(make: Make, env: str) -> None:
    """With clips of at least 1 and λ = 1, estimates and steps of policy and critic are equal."""
    a2c = make("algo=a2c", "algo.gae_lambda=1", env, *PLAIN[:3], name="a2c")
    rollout = a2c.runner.collect(a2c.agent)
    batch = a2c.algorithm.estimate(a2c.agent, rollout)
    start = parameters(a2c)
    a2c.algorithm.update(a2c.agent, a2c.learner, rollout, 0.0)
    trainer = make("algo=vtrace", env, *PLAIN[:3])
    first = copy.deepcopy(trainer.agent.state_dict())
    for rho_clip, c_clip in ((1.0, 1.0), (3.0, 1.5), (None, None)):
        trainer.algorithm = replace(trainer.algorithm, rho_clip=rho_clip, c_clip=c_clip)
        trainer.agent.load_state_dict(first)
        assert torch.equal(parameters(trainer), start)
        same = trainer.algorithm.estimate(trainer.agent, rollout)
        torch.testing.assert_close(same.advantage, batch.advantage, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(same.value_target, batch.value_target, rtol=1e-4, atol=1e-4)
        metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        torch.testing.assert_close(parameters(trainer) - start, parameters(a2c) - start, rtol=1e-3, atol=1e-5)
        for key in ("behaviour_kl", "rho_clipped", "c_clipped"):
            assert metrics[key] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("env", ENVS)
def test_unclipped_the_step_is_along_the_gradient_of_the_surrogate_that_health_watches(
    make: Make, env: str
) -> None:
    """ρ A ∇ log π = ∇(π/μ A): the advantage of the batch is not multiplied by a weight."""
    trainer = make(*SMALL, env, *PLAIN, *UNCLIPPED)
    rollout = trainer.runner.collect(trainer.agent)
    disturb(trainer)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    before, policy = health.before_update(trainer.agent, batch), trainer.agent.policy
    _, slope = surrogate_and_gradient(policy, batch, policy(batch.obs))
    start = flatten(trainer.agent.policy.parameters())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    taken = flatten(trainer.agent.policy.parameters()) - start
    torch.testing.assert_close(taken, 0.5 * slope, rtol=1e-3, atol=1e-5)
    predicted = health.measure(before, trainer.agent, trainer.learner.engine, 0.2)["predicted_gain"]
    assert predicted == pytest.approx(0.5 * float(slope.square().sum()), rel=1e-3)


def test_the_weight_of_a_row_stops_at_rho_clip() -> None:
    """With one state and two actions the gradient is mean(ρ A ∇ log π), also where the ratio is clipped."""
    theta, mu = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64), torch.tensor([[0.25, 0.75]])
    pi = softmax_policy(theta)[0]  # (3/4, 1/4): ratios 3 and 1/3
    one = torch.zeros(1, 2, dtype=torch.int64)
    rollout = Rollout(
        obs=one,
        action=torch.tensor([[0, 1]]),
        log_prob=mu.double().log(),
        reward=torch.tensor([[2.0, -1.0]], dtype=torch.float64),
        next_obs=one,
        terminated=torch.ones_like(one, dtype=torch.bool),
        truncated=torch.zeros_like(one, dtype=torch.bool),
        valid=torch.ones_like(one, dtype=torch.bool),
        time=one,
    )
    for rho_clip, rho in ((1.5, 1.5), (None, 3.0)):
        agent = tabular(theta, torch.zeros(1, dtype=torch.float64))
        metrics = plain_rule(rho_clip, 1.0).update(agent, learner(agent), rollout, 0.0)
        up = rho * 2.0 * (torch.tensor([1.0, 0.0]) - pi) + (1 / 3) * -1.0 * (torch.tensor([0.0, 1.0]) - pi)
        torch.testing.assert_close(agent.policy.theta.detach()[0] - theta[0], up / 2)
        # The critic descends ½ mean((V - v)²) from 0 to targets ρ r.
        assert float(agent.critic.values.detach()[0]) == pytest.approx((rho * 2.0 - 1 / 3) / 2)
        assert metrics["rho_clipped"] == pytest.approx((3.0 - rho) / (3 + 1 / 3), abs=1e-12)
        assert metrics["c_clipped"] == pytest.approx((3.0 - 1.0) / (3 + 1 / 3))
        # log mu/pi is -log 3 and log 3.
        assert metrics["behaviour_kl"] == pytest.approx(0, abs=1e-12)


def test_behaviour_kl_estimates_the_divergence_of_the_acting_policy_from_the_learning_one() -> None:
    mdp, generator = random_mdp(3, 2, seed=0), torch.Generator().manual_seed(0)
    mu, theta = softmax_policy(logits(mdp, 1)), logits(mdp, 2)
    rollout = Rollout(**simulate(mdp, mu, 20_000, 1, generator))
    agent = tabular(theta, torch.zeros(3, dtype=torch.float64))
    metrics = plain_rule(1.0, 1.0).update(agent, learner(agent), rollout, 0.0)
    exact = float(mdp.start @ (mu * (mu.log() - theta.log_softmax(-1))).sum(-1))
    assert exact > 0.1 and metrics["behaviour_kl"] == pytest.approx(exact, rel=0.1)


# --- rows ---


def changed(rollout: Rollout, rows: Tensor) -> Rollout:
    """Replace the data in these rows, [T, N] bool, by other values."""
    return replace(
        rollout,
        reward=rollout.reward.masked_fill(rows, 1e6),
        log_prob=rollout.log_prob.masked_fill(rows, -50.0),
        action=torch.where(
            rows.view(*rows.shape, *[1] * (rollout.action.ndim - 2)), 1 - rollout.action, rollout.action
        ),
    )


@pytest.mark.parametrize("cut", ["false", "true"])
def test_rows_that_are_not_data_change_nothing(make: Make, cut: str) -> None:
    ends = []
    for spoil in (False, True):
        trainer = make(*SMALL, *COUNTER, f"env.kwargs.cut={cut}", name=f"{spoil}")
        rollout = trainer.runner.collect(trainer.agent)
        assert int((~rollout.valid).sum()) > 10
        disturb(trainer)
        metrics = trainer.algorithm.update(
            trainer.agent, trainer.learner, changed(rollout, ~rollout.valid) if spoil else rollout, 0.0
        )
        ends.append((parameters(trainer), metrics))
    assert torch.equal(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]


def test_a_row_that_the_policy_would_never_act_teaches_nothing_and_stops_what_follows() -> None:
    """If π(a|s) is exactly 0, then v_t = V(s_t), the gradient is 0, and no trace passes the row."""
    mdp, generator = random_mdp(3, 2, seed=0), torch.Generator().manual_seed(0)
    theta, values = logits(mdp, 2), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    theta[0, 1] = -2000.0
    rollout = Rollout(**simulate(mdp, softmax_policy(logits(mdp, 1)), 50, 8, generator))
    never = (rollout.obs == 0) & (rollout.action == 1)
    assert 20 < int(never.sum()) < 300
    ends: list[tuple[Batch, Tensor]] = []
    for spoil in (False, True):
        agent, rule = tabular(theta, values), plain_rule(1.0, 1.0)
        behind = never & spoil
        seen = replace(rollout, reward=rollout.reward.masked_fill(behind, 1e6))
        batch = rule.estimate(agent, seen)
        assert torch.equal(batch.value_target[never[rollout.valid]], values[0].expand(int(never.sum())))
        rule.update(agent, learner(agent), seen, 0.0)
        ends.append((batch, agent.policy.theta.detach()))
    assert torch.equal(ends[0][0].value_target, ends[1][0].value_target)
    assert torch.equal(ends[0][1], ends[1][1]) and bool(ends[0][1].isfinite().all())


# --- training ---


def test_normalised_advantages_have_mean_0_and_deviation_1_and_targets_stay(make: Make) -> None:
    plain, standard = (
        make(*SMALL, "env=Pendulum-v1", f"algo.normalize_advantage={on}", name=on) for on in ("false", "true")
    )
    rollout = plain.runner.collect(plain.agent)
    batch, other = (t.algorithm.estimate(t.agent, rollout) for t in (plain, standard))
    assert torch.equal(batch.value_target, other.value_target)
    assert float(other.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(other.advantage.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(torch.corrcoef(torch.stack([batch.advantage, other.advantage]))[0, 1]) == pytest.approx(
        1, abs=1e-4
    )


def test_entropy_is_raised_by_its_bonus(make: Make) -> None:
    entropies = []
    for coefficient in (0.0, 1.0):
        trainer = make(*SMALL, "env=Pendulum-v1", *PLAIN[:3], f"algo.entropy_coefficient={coefficient}")
        rollout = trainer.runner.collect(trainer.agent)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        policy = trainer.agent.policy(rollout_observations(trainer.agent, rollout))
        entropies.append(float(policy.entropy().mean().detach()))
    assert entropies[1] > entropies[0] + 0.1


def test_with_a_lag_the_policies_differ_from_the_second_update_on(make: Make, tmp_path: Path) -> None:
    for lag in (0, 2):
        make(*SMALL, "env=CartPole-v1", f"runner.lag={lag}", "logger.every=1", name=f"{lag}").train()
        rows = read_rows(tmp_path / f"{lag}" / "metrics.jsonl")
        assert len(rows) > 3 and abs(rows[0]["algo/behaviour_kl"]) < 1e-6
        for row in rows[1:]:
            if lag:
                assert abs(row["algo/behaviour_kl"]) > 1e-4 and row["algo/rho_clipped"] > 1e-3
                assert row["health/ess"] < 1 - 1e-4
            else:
                assert abs(row["algo/behaviour_kl"]) < 1e-6 and row["algo/rho_clipped"] < 1e-6


def test_a_recurrent_policy_meets_its_own_rollout_at_ratio_one(make: Make) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", "policy=gru")
    rollout = trainer.runner.collect(trainer.agent)
    fresh, stale = (
        abs(trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)["behaviour_kl"])
        for _ in range(2)
    )
    assert fresh < 1e-6 and stale > 1e-5
