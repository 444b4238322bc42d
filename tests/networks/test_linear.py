"""Policies and critics linear in features: their scores in closed form, where they start, what is saved of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks import CRITICS, POLICIES
from pgx.networks.heads import GaussianPolicy, SquashedGaussianPolicy
from pgx.ops.fisher import scores
from tests.conftest import Make, as_observations

VECTOR = Continuous((3,))
KEYS: dict[str, dict[str, float]] = {
    "linear": {},
    "polynomial": {"degree": 2},
    "fourier": {"order": 2, "scale": 3.0},
    "random_fourier": {"count": 12, "length_scale": 1.5},
}
SIZES = {"linear": 4, "polynomial": 10, "fourier": 27, "random_fourier": 12}  # features of three numbers
ACTIONS = [Discrete(4), MultiDiscrete((2, 3)), Continuous((2,))]
ROWS = 6

over_kinds = pytest.mark.parametrize("kind", KEYS)
over_actions = pytest.mark.parametrize("action", ACTIONS, ids=str)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy_of(kind: str, action: ActionSpec, seed: int = 0) -> nn.Module:
    return POLICIES[kind](**KEYS[kind], log_std_init=-0.3, continuous="gaussian").make(
        VECTOR, action, stream(seed)
    )


def critic_of(kind: str, seed: int = 0) -> nn.Module:
    return CRITICS[kind](**KEYS[kind]).make(VECTOR, Discrete(2), stream(seed))


def moved(network: nn.Module, seed: int = 3) -> nn.Module:
    """The same network at a random place."""
    with torch.no_grad():
        for p in network.parameters():
            p += torch.randn(p.shape, generator=stream(seed)) * 0.5
    return network


def rows() -> Tensor:
    return torch.randn(ROWS, 3, generator=stream(1))


def phi_and_weight(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    phi, layer = network.net
    return phi, layer.weight


@over_kinds
@over_actions
def test_a_policy_starts_at_zero_with_one_weight_a_feature_and_no_bias(kind: str, action: ActionSpec) -> None:
    policy = policy_of(kind, action)
    outputs = {Discrete: 4, MultiDiscrete: 5, Continuous: 2}[type(action)]
    first, *_ = distribution = policy(as_observations(rows())).params
    assert not first.any()
    assert sum(p.numel() for p in policy.parameters()) == outputs * SIZES[kind] + 2 * (len(distribution) - 1)


@over_kinds
def test_a_critic_starts_at_zero_and_is_linear_in_the_features(kind: str) -> None:
    critic, x = critic_of(kind), rows()
    assert torch.equal(critic(as_observations(x)), torch.zeros(ROWS))
    phi, weight = phi_and_weight(moved(critic))
    torch.testing.assert_close(critic(as_observations(x)), (phi(x) * weight).sum(-1))


@over_kinds
def test_the_score_of_a_softmax_is_the_feature_less_its_expectation(kind: str) -> None:
    """∇_{W_b} log π(a|s) = φ(s) (1[a = b] - π(b|s))."""
    policy, x = moved(policy_of(kind, Discrete(4))), rows()
    action = torch.tensor([0, 1, 2, 3, 1, 0])
    probs = policy(as_observations(x)).logits.softmax(-1)
    phi, _ = phi_and_weight(policy)
    expected = torch.einsum("bk,bf->bkf", torch.eye(4)[action] - probs, phi(x))
    torch.testing.assert_close(scores(policy, as_observations(x), action), expected.flatten(1))


@over_kinds
def test_the_score_of_a_gaussian_is_the_feature_times_the_deviation(kind: str) -> None:
    """∇_W log π(a|s) = ((a - μ) / σ²) φ(s)ᵀ, ∇_{log σ} log π(a|s) = (a - μ)² / σ² - 1."""
    policy, x = moved(policy_of(kind, Continuous((2,)))), rows()
    assert isinstance(policy, GaussianPolicy)
    action = torch.randn(ROWS, 2, generator=stream(2))
    at, variance = policy(as_observations(x)), (2 * policy.log_std).exp()
    phi, _ = phi_and_weight(policy)
    through_weight = torch.einsum("ba,bf->baf", (action - at.mean) / variance, phi(x)).flatten(1)
    through_log_std = (action - at.mean).square() / variance - 1
    named = dict(policy.named_parameters())
    assert list(named) == ["log_std", "net.1.weight"]
    expected = torch.cat([through_log_std, through_weight], 1)
    torch.testing.assert_close(scores(policy, as_observations(x), action), expected)


@over_kinds
@over_actions
def test_scores_of_many_rows_at_once_are_those_of_each_row(kind: str, action: ActionSpec) -> None:
    policy, obs = moved(policy_of(kind, action)), as_observations(rows())
    taken = policy(obs).sample(stream(4)).detach()
    together = scores(policy, obs, taken)
    for row in range(ROWS):
        one = policy(obs[torch.tensor([row])]).log_prob(taken[row : row + 1]).squeeze()
        grads = torch.autograd.grad(one, [*policy.parameters()])
        torch.testing.assert_close(together[row], torch.cat([g.flatten() for g in grads]))


@over_kinds
def test_masked_actions_are_never_taken(kind: str) -> None:
    policy = moved(policy_of(kind, Discrete(4)))
    mask = torch.tensor([[True, False, True, False]]).expand(ROWS, -1)
    distribution = policy(as_observations(rows(), mask))
    probs = distribution.logits.softmax(-1)
    assert not probs[:, [1, 3]].any()
    free = policy(as_observations(rows())).logits.softmax(-1)[:, [0, 2]]
    torch.testing.assert_close(probs[:, [0, 2]], free / free.sum(-1, keepdim=True))


@over_kinds
def test_a_policy_loaded_into_another_seeds_sees_the_same_features(make: Make, kind: str) -> None:
    task = [f"policy={kind}", f"critic={kind}", "env=Pendulum-v1", "algo=a2c"]
    one, two = make(*task, "seed=0", name="one"), make(*task, "seed=1", name="two")
    moved(one.agent.policy)
    moved(one.agent.critic)
    two.load_state_dict(one.state_dict())
    obs = as_observations(rows())
    assert torch.equal(one.agent.policy(obs).mean, two.agent.policy(obs).mean)
    assert torch.equal(one.agent.critic(obs), two.agent.critic(obs))


def test_policy_and_critic_draw_random_features_of_their_own(make: Make) -> None:
    agent = make("policy=random_fourier", "critic=random_fourier", "env=Pendulum-v1", "algo=a2c").agent
    (mine, _), (theirs, _) = phi_and_weight(agent.policy), phi_and_weight(agent.critic)
    assert not torch.allclose(mine(rows()), theirs(rows()))


def test_continuous_actions_can_be_squashed_into_their_bounds() -> None:
    bounded = Continuous((2,), low=(-1.0, 0.0), high=(1.0, 3.0))
    policy = POLICIES["linear"](log_std_init=1.0, continuous="squashed_gaussian").make(
        VECTOR, bounded, stream()
    )
    assert isinstance(policy, SquashedGaussianPolicy)
    assert policy.center.tolist() == [0.0, 1.5]


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "linear"])
def test_a_refusal_names_the_network_that_was_chosen(kind: str) -> None:
    heads = {"log_std_init": 0.0, "continuous": "gaussian"}
    for section, registry, keys in (("policy", POLICIES, heads), ("critic", CRITICS, {})):
        with pytest.raises(
            UserError, match=f"^{section}={kind}: .*16 discrete ones; {section}=tabular, linear or"
        ):
            registry[kind](**KEYS[kind], **keys).make(Discrete(16), Discrete(4), stream())


@pytest.mark.parametrize("algo", ["npg", "ppo", "a2c"])
def test_on_discrete_observations_it_learns_as_a_table_does(make: Make, algo: str) -> None:
    """Same seed, same updates: the weights of unit vectors are the numbers of the table, up to rounding."""
    tables = []
    task = [f"algo={algo}", "env=tests.oracle:Gridworld-v0", "env.normalize_obs=false"]
    small = ["algo.critic_minibatch_size=64"] if algo == "npg" else []
    for kind in ("tabular", "linear"):
        trainer = make(*task, *small, f"policy={kind}", f"critic={kind}", name=kind)
        for _ in range(3):
            rollout = trainer.runner.collect(trainer.agent)
            trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        tables.append([*trainer.agent.policy.parameters(), *trainer.agent.critic.parameters()])
    (theta, value), (weight, value_weight) = tables
    assert theta.abs().max() > 1e-3
    torch.testing.assert_close(theta, weight.T, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(value, value_weight.T, atol=1e-4, rtol=1e-3)
