"""Off-policy REINFORCE against exact gradients: of π, from episodes of μ, by every kind of weight.

Where steps follow surely from actions and μ is uniform, all sequences of actions are equally likely: a rollout that has
each of them once IS the expectation under μ, and laws hold to rounding. Elsewhere they hold at 1/√n.
"""

from dataclasses import fields, replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from pgx.algos.off_policy_reinforce import OffPolicyREINFORCE
from pgx.algos.reinforce import REINFORCE
from pgx.compiler import Eager
from pgx.config.validate import problems_of
from pgx.core.agent import Agent, Metrics, RecurrentState
from pgx.core.algorithm import Learner
from pgx.core.data import Observations, Rollout
from pgx.envs.normalizers import Identity
from pgx.networks.distributions import Categorical
from pgx.networks.tabular import Zero
from pgx.ops.losses import surrogate
from pgx.ops.optim import SGD, NoSteps
from pgx.ops.params import flatten, gradient
from tests import oracle
from tests.conftest import composed

SURE = oracle.chain(
    n=4, slip=0.0, step_reward=-0.3
)  # steps follow surely from actions; the right end ends an episode
CHANCY = oracle.chain(n=4, slip=0.2, step_reward=-0.5)
HORIZON = 6
KINDS = [("trajectory", True), ("trajectory", False), ("per_decision", True)]  # weights, reward_to_go


class Softmax(nn.Module):
    """pi(a|s) = softmax(theta[s])[a]."""

    recurrent_state: RecurrentState | None = None

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, obs: Observations) -> Categorical:
        return Categorical(self.theta[obs.features])


def rule(weights: str = "per_decision", reward_to_go: bool = True, **more: object) -> OffPolicyREINFORCE:
    values = {
        "discount": 0.9,
        "truncate": None,
        "self_normalize": False,
        "baseline": "none",
        "steps": 1,
    }
    return OffPolicyREINFORCE(weights=weights, reward_to_go=reward_to_go, **(values | more))


def logits(seed: int, size: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(4, 2, generator=generator, dtype=torch.float64)


def agent_of(theta: Tensor) -> Agent:
    return Agent(Softmax(theta), Zero(), Identity())


def every_sequence(horizon: int = HORIZON) -> Rollout:
    """Return SURE under the uniform policy: each sequence of actions once, to the end of its episode."""
    actions = torch.tensor(list(product(range(2), repeat=horizon))).T
    state, valid = (
        torch.zeros(actions.shape[1], dtype=torch.int64),
        torch.ones(actions.shape[1], dtype=torch.bool),
    )
    rows = []
    for action in actions:
        following = SURE.transition[state, action].argmax(-1)
        ended = valid & SURE.terminal[following]
        rows.append((state, action * valid, SURE.reward[state, action] * valid, following, ended, valid))
        state, valid = following, valid & ~ended
    obs, action, reward, next_obs, terminated, valid = (
        torch.stack(column) for column in zip(*rows, strict=True)
    )
    truncated = valid & ~terminated
    truncated[:-1] = False
    return Rollout(
        obs=obs,
        action=action,
        log_prob=torch.full_like(reward, 0.5).log() * valid,
        reward=reward,
        next_obs=next_obs,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        time=torch.arange(horizon)[:, None].expand_as(valid).clone(),
    )


def sampled(mu: Tensor, episodes: int, seed: int) -> Rollout:
    generator = torch.Generator().manual_seed(seed)
    return Rollout(**oracle.simulate(CHANCY, mu.softmax(-1), episodes, HORIZON, generator))


def columns(rollout: Rollout, index: Tensor) -> Rollout:
    return Rollout(
        **{c.name: x[:, index] for c in fields(rollout) if (x := getattr(rollout, c.name)) is not None}
    )


def estimated(algorithm: OffPolicyREINFORCE, theta: Tensor, rollout: Rollout) -> Tensor:
    """Return the rule's gradient at theta, [S, A]: that of the surrogate in health metrics."""
    agent = agent_of(theta)
    batch = algorithm.estimate(agent, rollout)
    log_ratio = agent.policy(batch.obs).log_prob(batch.action) - batch.log_prob
    return gradient(surrogate(log_ratio, batch.advantage), list(agent.policy.parameters())).view_as(theta)


def replicates(
    algorithm: OffPolicyREINFORCE, theta: Tensor, mu: Tensor, batches: int, episodes: int, seed: int = 0
) -> Tensor:
    """Return the gradients of independent rollouts of μ, [batches, S * A]."""
    rollout = sampled(mu, batches * episodes, seed)
    parts = torch.arange(batches * episodes).view(batches, episodes)
    return torch.stack([estimated(algorithm, theta, columns(rollout, part)).flatten() for part in parts])


def updated(
    algorithm: OffPolicyREINFORCE, theta: Tensor, rollout: Rollout, rate: float
) -> tuple[Tensor, Metrics]:
    """Return theta after an update by plain gradient ascent, and the rule's metrics."""
    agent = agent_of(theta)
    optimizer = SGD(rate, "constant", max_grad_norm=None, momentum=0.0).make(agent.policy, Eager())
    learner = Learner(optimizer, NoSteps(agent.critic), Eager(), torch.Generator())
    metrics = algorithm.update(agent, learner, rollout, 0.0)
    return flatten(agent.policy.parameters()).view_as(theta), metrics


# --- the gradient


@pytest.mark.parametrize("self_normalize", [False, True])
@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_the_expectation_under_mu_is_the_gradient_of_pi(
    weights: str, reward_to_go: bool, discount: float, self_normalize: bool
) -> None:
    """The mean weight is 1 at every step, including ended episodes, so that dividing by it has no effect."""
    theta = logits(0, size=1.0)
    algorithm = rule(weights, reward_to_go, discount=discount, self_normalize=self_normalize)
    exact = oracle.finite_horizon_gradient(SURE, theta, HORIZON, discount)
    assert torch.allclose(estimated(algorithm, theta, every_sequence()), exact, rtol=1e-10, atol=1e-12)
    assert float(exact.abs().max()) > 0.05


@pytest.mark.parametrize("baseline", ["none", "others"])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_episodes_of_any_behaviour_give_the_gradient_of_pi_without_bias(
    weights: str, reward_to_go: bool, baseline: str
) -> None:
    theta, mu = logits(0), logits(1)
    found = replicates(rule(weights, reward_to_go, baseline=baseline), theta, mu, batches=300, episodes=100)
    exact = oracle.finite_horizon_gradient(CHANCY, theta, HORIZON, 0.9).flatten()
    error = found.std(0) / len(found) ** 0.5
    live = error > 0  # nothing is done in the last state
    assert float(((found.mean(0) - exact).abs() / error)[live].max()) < 4
    assert float((exact.abs() / error)[live].max()) > 10  # the error bars are short enough to say something
    on_mu = oracle.finite_horizon_gradient(CHANCY, mu, HORIZON, 0.9).flatten()
    assert float(((found.mean(0) - on_mu).abs() / error)[live].max()) > 5  # and it is not the behavior's


@pytest.mark.parametrize("self_normalize", [False, True])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_the_error_falls_as_one_over_the_root_of_the_episodes(
    weights: str, reward_to_go: bool, self_normalize: bool
) -> None:
    theta, mu = logits(0), logits(1)
    algorithm = rule(weights, reward_to_go, self_normalize=self_normalize)
    exact = oracle.finite_horizon_gradient(CHANCY, theta, HORIZON, 0.9).flatten()
    few, many = (
        (replicates(algorithm, theta, mu, batches=100, episodes=n) - exact).square().sum(1).mean().sqrt()
        for n in (30, 480)
    )
    assert float(few / many) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("self_normalize", [False, True])
@pytest.mark.parametrize("truncate", [None, 1.0, 5.0])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
@pytest.mark.parametrize(("baseline", "its_own"), [("none", "none"), ("others", "time_dependent")])
def test_on_its_own_episodes_it_is_reinforce(
    weights: str,
    reward_to_go: bool,
    truncate: float | None,
    self_normalize: bool,
    baseline: str,
    its_own: str,
) -> None:
    theta = logits(0)
    rollout = sampled(theta, 40, seed=3)
    algorithm = rule(
        weights, reward_to_go, truncate=truncate, self_normalize=self_normalize, baseline=baseline
    )
    on_policy = REINFORCE(
        discount=0.9,
        weighting="discounted" if reward_to_go else "trajectory",
        baseline=its_own,
        normalize_advantage=False,
        critic_epochs=1,
        critic_minibatch_size=1,
    )
    agent = agent_of(theta)
    batch = on_policy.estimate(agent, rollout)
    log_prob = agent.policy(batch.obs).log_prob(batch.action)
    expected = gradient((log_prob * batch.advantage).sum() / 40, list(agent.policy.parameters()))
    assert torch.allclose(estimated(algorithm, theta, rollout).flatten(), expected, rtol=1e-9, atol=1e-12)


# --- what each kind of weight trades


@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_a_bound_beyond_every_weight_changes_nothing_and_a_low_one_trades_variance_for_bias(
    weights: str, reward_to_go: bool
) -> None:
    theta, mu = logits(0, size=1.0), logits(1)
    free, loose, tight = (
        replicates(rule(weights, reward_to_go, truncate=bound), theta, mu, batches=150, episodes=25)
        for bound in (None, 1e9, 0.5)
    )
    assert torch.allclose(free, loose, rtol=1e-10)
    assert float(tight.var(0).sum()) < 0.5 * float(free.var(0).sum())
    exact = oracle.finite_horizon_gradient(CHANCY, theta, HORIZON, 0.9).flatten()
    bias = (tight.mean(0) - exact).abs() / (tight.std(0) / len(tight) ** 0.5)
    assert float(bias.nan_to_num().max()) > 6


@pytest.mark.parametrize("baseline", ["none", "others"])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_self_normalised_weights_do_not_depend_on_a_factor_of_all_probabilities(
    weights: str, reward_to_go: bool, baseline: str
) -> None:
    """A common factor of all weights cancels in self-normalized weights."""
    theta, rollout = logits(0), sampled(logits(1), 30, seed=5)
    log_prob = rollout.log_prob.clone()
    log_prob[0] -= 1.0
    shifted = replace(rollout, log_prob=log_prob)
    for self_normalize in (True, False):
        algorithm = rule(weights, reward_to_go, self_normalize=self_normalize, baseline=baseline)
        one, two = (estimated(algorithm, theta, r) for r in (rollout, shifted))
        assert torch.allclose(two, one if self_normalize else torch.e * one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", ["trajectory", "per_decision"])
def test_weights_are_cut_first_and_then_divided_by_their_mean(weights: str) -> None:
    """With a reward of 1 at the last step only, the gain there is the weight itself."""
    log_ratio = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reward, lasts = torch.zeros_like(log_ratio), torch.ones(3, 6, dtype=torch.bool)
    reward[-1] = 1.0
    cut = log_ratio.sum(0).exp().clamp(max=1.5)
    gain = rule(weights, truncate=1.5, self_normalize=True)._gain(log_ratio, reward, lasts)
    torch.testing.assert_close(gain[-1], cut / cut.mean())


def test_per_decision_weights_have_less_variance_and_a_baseline_less_still() -> None:
    theta, mu = logits(0, size=1.0), logits(1)
    variances = [
        float(replicates(algorithm, theta, mu, batches=150, episodes=25).var(0).sum())
        for algorithm in (
            rule("trajectory", False),
            rule("trajectory", True),
            rule("per_decision"),
            rule("per_decision", baseline="others"),
        )
    ]
    assert variances == sorted(variances, reverse=True)
    assert variances[0] > 2 * variances[2] > 4 * variances[3]


@pytest.mark.parametrize("horizon", [1, 2, 4, 8])
def test_the_variance_of_trajectory_weights_grows_as_a_power_of_the_horizon(horizon: int) -> None:
    """For independent steps E[w²] = (E[ρ²])^T; all sequences, once each, have ESS 1 / E[w²]."""
    theta = torch.tensor([0.7, -0.2], dtype=torch.float64).expand(4, 2)  # the same in every state
    rollout = every_sequence(horizon)
    never = torch.zeros_like(rollout.terminated)
    endless = replace(  # nothing ends but by the time limit
        rollout,
        valid=~never,
        action=torch.tensor(list(product(range(2), repeat=horizon))).T,
        log_prob=torch.full_like(rollout.reward, 0.5).log(),
        terminated=never,
        truncated=torch.cat([never[1:], ~never[:1]]),
    )
    pi = theta[0].softmax(-1)
    second_moment = float((pi.square() / 0.5).sum()) ** horizon
    for weights in ("trajectory", "per_decision"):
        _, metrics = updated(rule(weights), theta, endless, rate=1e-3)
        assert metrics["weight_variance"] == pytest.approx(second_moment - 1, rel=1e-9)
        assert metrics["weight_ess"] == pytest.approx(1 / second_moment, rel=1e-9)
        assert metrics["weight_max"] == pytest.approx(float(pi.max() / 0.5) ** horizon, rel=1e-9)


# --- rows, steps


@pytest.mark.parametrize("settings", [{}, {"self_normalize": True, "baseline": "others"}, {"truncate": 1.2}])
@pytest.mark.parametrize(("weights", "reward_to_go"), KINDS)
def test_rows_past_an_episode_s_end_and_the_place_of_an_episode_change_nothing(
    weights: str, reward_to_go: bool, settings: dict[str, object]
) -> None:
    """Two consecutive episodes of an environment, with an invalid row between them, count as two."""
    theta, rollout = logits(0), sampled(logits(1), 24, seed=6)
    assert bool((~rollout.valid).any())
    wild = {
        c.name: torch.where(rollout.valid, x, torch.full_like(x, 3 if c.name in ("obs", "next_obs") else 1))
        for c in fields(rollout)
        if c.name != "valid" and (x := getattr(rollout, c.name)) is not None
    }
    stacked = {
        c.name: torch.cat([x[:, :12], torch.zeros_like(x[:1, :12]), x[:, 12:]])
        for c in fields(rollout)
        if (x := getattr(rollout, c.name)) is not None
    }
    algorithm = rule(weights, reward_to_go, **settings)
    expected = estimated(algorithm, theta, rollout)
    for other in (Rollout(valid=rollout.valid, **wild), Rollout(**stacked)):
        assert torch.allclose(estimated(algorithm, theta, other), expected, rtol=1e-10, atol=1e-12)


def test_a_step_follows_the_estimate_and_the_next_step_recomputes_weights() -> None:
    theta, rollout = logits(0), sampled(logits(1), 30, seed=7)
    once, _ = updated(rule(), theta, rollout, rate=0.1)
    assert torch.allclose(once - theta, 0.1 * estimated(rule(), theta, rollout), rtol=1e-9)
    twice, _ = updated(rule(), once, rollout, rate=0.1)
    both, _ = updated(rule(steps=2), theta, rollout, rate=0.1)
    assert torch.allclose(both, twice, rtol=1e-9)


def test_weights_of_hundreds_of_steps_neither_overflow_nor_vanish() -> None:
    """A product of 1e-400 underflows, but its fraction of a sum does not."""
    theta = torch.tensor([[8.0, -8.0]] * 4, dtype=torch.float64)
    steps, n = 60, 5
    never = torch.zeros(steps, n, dtype=torch.bool)
    rollout = Rollout(
        obs=torch.zeros(steps, n, dtype=torch.int64),
        action=torch.ones(steps, n, dtype=torch.int64),  # which π takes with probability e^-16
        log_prob=torch.full((steps, n), -0.01, dtype=torch.float64),
        reward=torch.arange(steps * n, dtype=torch.float64).view(steps, n),
        next_obs=torch.zeros(steps, n, dtype=torch.int64),
        terminated=never,
        truncated=torch.cat([never[1:], ~never[:1]]),
        valid=~never,
        time=torch.arange(steps)[:, None].expand(steps, n).clone(),
    )
    for weights in ("trajectory", "per_decision"):
        found = estimated(rule(weights, self_normalize=True, discount=1.0), theta, rollout)
        assert bool(found.isfinite().all()) and float(found.abs().max()) > 1


# --- what it refuses


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["runner=sync"], "128 steps of each environment cut them; set runner=dataset"),
        (["runner=dataset", "dataset=x", "algo.reward_to_go=false"], "algo.reward_to_go: expected true"),
        (["runner=dataset"], "the dataset is missing; set dataset=PATH"),
        (["runner=episodes", "dataset=x"], "dataset=x: runner=episodes does not use it; set runner=dataset"),
        (
            ["runner=dataset", "dataset=x", "policy.continuous=squashed_gaussian"],
            "policy.continuous=gaussian",
        ),
        (["runner=dataset", "dataset=x", "critic=mlp", "critic_optimizer=adam"], "does not use a critic"),
    ],
)
def test_a_setting_that_it_cannot_learn_in_is_refused_with_the_fix(overrides: list[str], words: str) -> None:
    found = problems_of(composed("algo=off_policy_reinforce", *overrides))
    assert any(words in line for line in found), found


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_a_rule_that_takes_every_step_for_its_own_gets_no_recorded_ones(name: str) -> None:
    found = problems_of(composed(f"algo={name}", "runner=dataset", "dataset=x"))
    assert any("set algo=off_policy_reinforce, which corrects" in line for line in found), found


def test_its_own_episodes_will_do_too() -> None:
    assert problems_of(composed("algo=off_policy_reinforce", "runner=episodes")) == []
