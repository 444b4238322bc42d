"""A squashed Gaussian: a density over the box, exact at its walls, and entropy without a closed form."""

import math

import pytest
import torch
from torch import Tensor

from pgx.core.agent import Act
from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.core.specs import Continuous
from pgx.networks.distributions import DiagonalGaussian, SquashedGaussian
from pgx.networks.mlp import MLPPolicy
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product, scores
from pgx.training.evaluation import ignore_progress, never_stop, play
from tests.conftest import Make, as_observations

WIDE = torch.float64
LOG_STDS = [-2.0, 0.0, 1.0, 2.0]


def squashed(mean: Tensor, log_std: Tensor | float, low: float = -1.5, high: float = 4.5) -> SquashedGaussian:
    """Over [low, high] in every component."""
    center, half = ((high + low) / 2, (high - low) / 2)
    spread = torch.as_tensor(log_std, dtype=mean.dtype).expand_as(mean)
    bounds = (torch.full(mean.shape[-1:], number, dtype=mean.dtype) for number in (center, half))
    return SquashedGaussian(DiagonalGaussian(mean, spread), *bounds)


def one(mean: float, log_std: float) -> SquashedGaussian:
    return squashed(torch.tensor([[mean]], dtype=WIDE), log_std)


def line(d: SquashedGaussian) -> Tensor:
    """Points [K, 1, 1] of u over ten standard deviations to both sides, of one component."""
    z = torch.linspace(-10, 10, 20001, dtype=WIDE)[:, None, None]
    return d.gaussian.mean + z * d.gaussian.log_std.exp()


def integral(f: Tensor, points: Tensor) -> float:
    return float(torch.trapezoid(f.flatten(), points.flatten()))


@pytest.mark.parametrize("log_std", LOG_STDS[:3])
@pytest.mark.parametrize("mean", [0.0, 0.7, -2.5])
def test_it_is_a_density_of_the_executed_action(mean: float, log_std: float) -> None:
    """The integral over a, not over u: the correction's sign and size both show."""
    d = one(mean, log_std)
    u = line(d)
    # Below, points so close to a bound that float64 does not tell them apart add nothing.
    assert integral(d.log_prob(u).exp(), d.executed(u)) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("log_std", LOG_STDS)
@pytest.mark.parametrize("mean", [0.0, 0.7, -8.0])
def test_the_entropy_is_the_expected_surprise_to_one_in_ten_thousand(mean: float, log_std: float) -> None:
    d = one(mean, log_std)
    u = line(d)
    exact = -integral(d.gaussian.log_prob(u).exp() * d.log_prob(u), u)
    assert float(d.entropy()) == pytest.approx(exact, abs=1e-4)


def test_the_entropy_is_that_of_the_samples() -> None:
    d = squashed(torch.tensor([[0.3, -1.0, 2.0]], dtype=WIDE).expand(100_000, -1), -0.3)
    surprise = -d.log_prob(d.sample(torch.Generator().manual_seed(0)))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    assert abs(float(surprise.mean() - d.rows(torch.tensor([0])).entropy())) < 4 * error


def test_no_entropy_exceeds_that_of_the_uniform_distribution() -> None:
    mean = torch.linspace(-3, 3, 25, dtype=WIDE).unsqueeze(-1)
    entropy = torch.stack([squashed(mean, s).entropy() for s in torch.linspace(-3, 3, 61)])
    assert float(entropy.max()) < math.log(6.0)
    assert float(entropy.max()) > math.log(6.0) - 0.02  # nearly flat at a log std of about -0.1


@pytest.mark.parametrize("log_std", LOG_STDS)
def test_the_gradient_of_the_entropy_is_that_of_the_quadrature_by_differences(log_std: float) -> None:
    at = torch.tensor([0.4, log_std], dtype=WIDE, requires_grad=True)

    def entropy(x: Tensor) -> Tensor:
        return squashed(x[:1].view(1, 1), x[1:]).entropy().sum()

    assert torch.autograd.gradcheck(entropy, at)


def test_entropy_and_density_move_with_the_unit_of_the_action() -> None:
    """A box k times as wide: log k more entropy, log k less density, the same ratios."""
    mean = torch.randn(5, 2, dtype=WIDE, generator=torch.Generator().manual_seed(0))
    narrow, wide = squashed(mean, -0.5, -1.0, 1.0), squashed(mean, -0.5, -3.0, 3.0)
    u = narrow.sample(torch.Generator().manual_seed(1))
    gain = torch.full((5,), 2 * math.log(3), dtype=WIDE)
    assert torch.allclose(wide.entropy() - narrow.entropy(), gain)
    assert torch.allclose(narrow.log_prob(u) - wide.log_prob(u), gain)


def test_kl_ratio_and_fisher_are_those_of_the_gaussian() -> None:
    """tanh loses nothing, so that it changes none of them; the integral over a says so too."""
    p, q = one(0.5, -0.5), one(1.2, -0.1)
    u = line(p)
    assert torch.equal(p.kl(q), p.gaussian.kl(q.gaussian))
    log_ratio = q.log_prob(u) - p.log_prob(u)
    assert torch.allclose(log_ratio, q.gaussian.log_prob(u) - p.gaussian.log_prob(u), atol=1e-11)
    over_a = integral(p.log_prob(u).exp() * -log_ratio, p.executed(u))
    assert over_a == pytest.approx(float(p.kl(q)), abs=1e-5)


@pytest.mark.parametrize("mean", [20.0, -20.0, 0.0])
def test_executed_actions_are_within_the_bounds(mean: float) -> None:
    d = squashed(torch.full((50_000, 1), mean), 1.0, -0.4, 0.4)
    executed = d.executed(d.sample(torch.Generator().manual_seed(0)))
    assert float(executed.abs().max()) <= 0.4 * (1 + 1e-6)


def test_half_of_what_is_executed_lies_below_that_of_the_mode() -> None:
    d = squashed(torch.full((50_000, 1), 0.8), 0.5)
    executed = d.executed(d.sample(torch.Generator().manual_seed(0)))
    below = (executed < d.executed(d.mode())).double().mean()
    assert abs(float(below) - 0.5) < 4 * 0.5 / math.sqrt(50_000)


@pytest.mark.parametrize("u", [20.0, -20.0, 9.5])
@pytest.mark.parametrize("mean", [0.0, 20.0, -20.0])
def test_everything_is_exact_in_float32_where_the_action_is_saturated(u: float, mean: float) -> None:
    """All such u are executed as the same float32, from which none of this could be had."""
    params = torch.tensor([[mean]], requires_grad=True), torch.tensor([[-0.5]], requires_grad=True)
    d = squashed(*params)
    precise = one(mean, -0.5)
    at = torch.tensor([[u]])
    for mine, exact in (
        (d.log_prob(at), precise.log_prob(at.double())),
        (d.entropy(), precise.entropy()),
    ):
        assert mine.detach().double().item() == pytest.approx(exact.item(), rel=1e-5)
        assert all(g.isfinite().all() for g in torch.autograd.grad(mine.sum(), params))
    (score,) = torch.autograd.grad(d.log_prob(at).sum(), params[0])
    assert score.item() == pytest.approx((u - mean) * math.exp(1.0), rel=1e-5)


def test_scores_of_samples_average_to_zero_at_the_bounds() -> None:
    """What an inverse of tanh that stops short of the bounds would break."""
    mean = torch.tensor([[8.0]], requires_grad=True)
    d = squashed(mean.expand(40_000, -1), 0.0)
    u = d.sample(torch.Generator().manual_seed(0)).detach()
    (total,) = torch.autograd.grad(d.log_prob(u).sum(), mean)
    assert abs(total.item()) / 40_000 < 4 / math.sqrt(40_000)


def policy(low: tuple[float, ...] = (-1.0, 0.0), high: tuple[float, ...] = (1.0, 5.0)) -> torch.nn.Module:
    return MLPPolicy(
        hidden=[5],
        activation="tanh",
        hidden_gain=1.4,
        output_gain=1.0,
        log_std_init=-0.5,
        continuous="squashed_gaussian",
    ).make(Continuous((3,)), Continuous((2,), low, high), torch.Generator().manual_seed(0))


def features(rows: int = 40) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))


def test_the_head_squashes_into_the_bounds_of_each_component() -> None:
    d = policy()(as_observations(features(3000)))
    executed = d.executed(d.sample(torch.Generator().manual_seed(0)))
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])
    assert bool((executed >= low - 1e-6).all()) and bool((executed <= high + 1e-6).all())
    assert torch.allclose(executed.amin(0), low, atol=0.2) and torch.allclose(
        executed.amax(0), high, atol=0.2
    )


def test_both_fisher_products_and_the_scores_go_through_the_head() -> None:
    net, obs = policy(), as_observations(features())
    size = sum(p.numel() for p in net.parameters())
    vector = torch.randn(size, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(
        gauss_newton_product(net, obs)(vector), kl_hessian_product(net, obs)(vector), atol=1e-5
    )
    action = net(obs).sample(torch.Generator().manual_seed(0)).detach()
    total = torch.autograd.grad(net(obs).log_prob(action).sum(), list(net.parameters()))
    assert torch.allclose(
        scores(net, obs, action).sum(0), torch.cat([g.flatten() for g in total]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [
        ((-1.0, -math.inf), (1.0, 1.0), "component 1 is in [-inf, 1]"),
        ((-1.0, 0.0), (3.4e38, 1.0), "component 0"),
    ],
)
def test_endless_bounds_are_refused_by_component(
    low: tuple[float, ...], high: tuple[float, ...], named: str
) -> None:
    with pytest.raises(UserError) as refusal:
        policy(low, high)
    assert named in str(refusal.value) and "policy.continuous=gaussian" in str(refusal.value)


def test_the_environment_is_given_what_is_executed(make: Make) -> None:
    """Counter asserts that its actions are in [-0.5, 2]; the rollout keeps the samples, which leave that."""
    counter = ["env=tests.environments:Counter-v0", "policy.continuous=squashed_gaussian"]
    trainer = make("algo=ppo", *counter, "policy.log_std_init=1.5")
    given: list[Tensor] = []
    send = trainer.runner.envs.send
    trainer.runner.envs.send = lambda a: (given.append(torch.from_numpy(a)), send(a))[1]
    rollout = trainer.runner.collect(trainer.agent)
    assert float(rollout.action.abs().max()) > 5
    executed = torch.stack(given)
    assert torch.allclose(executed, 0.75 + 1.25 * rollout.action.tanh(), atol=1e-6)
    assert float(executed.min()) >= -0.5 - 1e-6 and float(executed.max()) <= 2 + 1e-6


PENDULUM = ["env=Pendulum-v1", "policy.continuous=squashed_gaussian"]


@pytest.mark.parametrize("rule", ["ppo", "trpo", "npg", "a2c", "mdpo", "ppo_kl"])
def test_rules_run_with_it_and_the_first_ratio_is_one_at_the_bounds_too(make: Make, rule: str) -> None:
    """A Gaussian so wide that three of four actions are within a thousandth of a bound."""
    small = ["algo.critic_minibatch_size=64"] if rule in ("trpo", "npg") else []
    trainer = make(f"algo={rule}", *small, *PENDULUM, "policy.log_std_init=2.0")
    for _ in range(2):
        rollout = trainer.runner.collect(trainer.agent)
        batch = trainer.algorithm.estimate(trainer.agent, rollout)
        log_ratio = trainer.agent.policy(batch.obs).log_prob(batch.action).detach() - batch.log_prob
        assert float((batch.action.abs() > math.atanh(0.999)).float().mean()) > 0.4
        assert float(log_ratio.abs().max()) < 2e-5
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert all(bool(p.isfinite().all()) for p in trainer.agent.policy.parameters())


def test_evaluation_plays_the_median(make: Make) -> None:
    trainer = make("algo=ppo", *PENDULUM)
    agent, envs = trainer.agent, trainer.runner.envs
    obs = as_observations(features(4))
    act, d = agent.act_greedily(obs), agent.policy(obs)
    assert torch.equal(act.action, d.mode())
    assert torch.equal(act.executed, 2 * d.mode().tanh())
    given, wanted = [], []
    send = envs.send
    envs.send = lambda a: (given.append(torch.from_numpy(a)), send(a))[1]

    def far(obs: Observations) -> Act:
        """So far out that the action and what is executed for it have nothing in common."""
        act = agent.act_greedily(obs)
        wanted.append(act.executed + 0.5)
        return act._replace(action=act.action + 30, executed=act.executed + 0.5)

    play(agent, far, envs, 1, 0, torch.device("cpu"), 1000, never_stop, ignore_progress)
    assert torch.equal(torch.stack(given), torch.stack(wanted))
