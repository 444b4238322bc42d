"""What a perceptron starts from, what it sees, and what it gives for every kind of space."""

import math

import pytest
import torch
from torch import nn

from pgx.core.data import Observations
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec
from pgx.networks.distributions import Categorical, DiagonalGaussian, MultiCategorical
from pgx.networks.mlp import Activation, MLPCritic, MLPPolicy
from tests.conftest import as_observations

VECTOR = Continuous((3,))
OBSERVATIONS = [VECTOR, Continuous((2, 4)), Discrete(5)]
ACTIONS = [Discrete(4), MultiDiscrete((2, 3)), Continuous((2,))]
ROWS = 6


def policy_for(
    obs: ObsSpec,
    action: ActionSpec,
    seed: int = 0,
    hidden: list[int] | None = None,
    hidden_gain: float = 1.3,
    output_gain: float = 0.5,
) -> nn.Module:
    return MLPPolicy(
        hidden=[8, 7] if hidden is None else hidden,
        activation="tanh",
        hidden_gain=hidden_gain,
        output_gain=output_gain,
        log_std_init=-0.7,
        continuous="gaussian",
    ).make(obs, action, torch.Generator().manual_seed(seed))


def critic_for(obs: ObsSpec, seed: int = 0) -> nn.Module:
    return MLPCritic([8, 7], "relu", hidden_gain=1.3, output_gain=0.5).make(
        obs, Discrete(2), torch.Generator().manual_seed(seed)
    )


def observations(obs: ObsSpec) -> Observations:
    generator = torch.Generator().manual_seed(1)
    if isinstance(obs, Discrete):
        return as_observations(torch.randint(obs.n, (ROWS,), generator=generator))
    return as_observations(torch.randn((ROWS, *obs.shape), generator=generator))


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("obs", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_weights_are_orthogonal_with_the_asked_gain_and_biases_zero(obs: ObsSpec, action: ActionSpec) -> None:
    *hidden, head = linear_layers(policy_for(obs, action))
    assert len(hidden) == 2
    for layer, gain in [*((layer, 1.3) for layer in hidden), (head, 0.5)]:
        w = layer.weight.detach()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert (layer.bias == 0).all()


def test_the_output_gain_scales_the_head_alone() -> None:
    obs = VECTOR
    small, large = (policy_for(obs, Discrete(4), output_gain=g) for g in (0.01, 1.0))
    *hidden, small_head = linear_layers(small)
    *others, large_head = linear_layers(large)
    assert torch.allclose(100 * small_head.weight, large_head.weight)
    for mine, theirs in zip(hidden, others, strict=True):
        assert torch.equal(mine.weight, theirs.weight)


def test_a_small_output_gain_makes_the_first_policy_nearly_the_same_everywhere() -> None:
    policy = policy_for(VECTOR, Discrete(4), output_gain=0.01)
    entropy = policy(observations(VECTOR)).entropy()
    assert torch.allclose(entropy, torch.full((ROWS,), math.log(4)), atol=1e-3)


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_the_same_generator_seed_gives_the_same_weights(obs: ObsSpec) -> None:
    for make in (lambda seed: policy_for(obs, Discrete(4), seed), lambda seed: critic_for(obs, seed)):
        first, again, other = (list(make(seed).parameters()) for seed in (0, 0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.dim() == 2)


@pytest.mark.parametrize("action", ACTIONS)
def test_building_a_network_leaves_the_global_random_stream_alone(action: ActionSpec) -> None:
    before = torch.get_rng_state()
    policy_for(VECTOR, action)
    critic_for(Discrete(5))
    assert torch.equal(before, torch.get_rng_state())


def test_policy_and_critic_from_one_generator_do_not_share_their_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (MLPCritic([8], "tanh", 1.0, 1.0).make(VECTOR, Discrete(2), generator) for _ in range(2))
    assert not torch.equal(linear_layers(first)[0].weight, linear_layers(second)[0].weight)


def test_discrete_observations_are_unit_vectors() -> None:
    """Without hidden layers the output at observation k is column k of the weights."""
    policy = policy_for(Discrete(5), Discrete(4), hidden=[])
    (layer,) = linear_layers(policy)
    obs = torch.tensor([3, 0, 4, 3, 2, 1])
    assert torch.equal(policy(as_observations(obs)).logits, layer.weight.T[obs])


def test_continuous_observations_are_flattened_in_order() -> None:
    critic = critic_for(Continuous((2, 4)))
    flat = critic_for(Continuous((8,)))
    obs = observations(Continuous((2, 4)))
    assert torch.equal(critic(obs), flat(as_observations(obs.features.flatten(1))))


def test_the_log_std_does_not_depend_on_the_state() -> None:
    policy = policy_for(VECTOR, Continuous((2,)))
    obs = observations(VECTOR).features.requires_grad_()
    d = policy(as_observations(obs))
    assert d.log_std.shape == d.mean.shape
    assert torch.equal(d.log_std, torch.full((ROWS, 2), -0.7))
    (through_log_std,) = torch.autograd.grad(d.log_std.sum(), obs, allow_unused=True, retain_graph=True)
    (through_mean,) = torch.autograd.grad(d.mean.sum(), obs)
    assert through_log_std is None
    assert through_mean.abs().max() > 0


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("hidden", [[], [8]], ids=["linear", "one layer"])
def test_a_distribution_kept_from_before_a_step_does_not_move_with_the_parameters(
    action: ActionSpec, hidden: list[int]
) -> None:
    policy, obs = policy_for(VECTOR, action, hidden=hidden), observations(VECTOR)
    with torch.no_grad():
        kept = [policy(obs), policy(obs).detach()]
        before = [[c.clone() for c in d.params] for d in kept]
        for parameter in policy.parameters():
            parameter.add_(1.0)
    for d, numbers in zip(kept, before, strict=True):
        assert all(torch.equal(now, then) for now, then in zip(d.params, numbers, strict=True))


def test_the_log_std_is_learned() -> None:
    policy = policy_for(VECTOR, Continuous((2,)))
    (log_std,) = (p for name, p in policy.named_parameters() if "log_std" in name)
    policy(observations(VECTOR)).entropy().mean().backward()
    assert log_std.grad is not None
    assert log_std.grad.tolist() == pytest.approx([1.0, 1.0])  # H = Σ log σ + constant


@pytest.mark.parametrize("obs", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_space_gets_its_head(obs: ObsSpec, action: ActionSpec) -> None:
    d = policy_for(obs, action)(observations(obs))
    sample = d.sample(torch.Generator().manual_seed(0))
    match action:
        case Discrete(n):
            assert isinstance(d, Categorical) and d.logits.shape == (ROWS, n)
            assert sample.shape == (ROWS,) and sample.dtype == torch.int64
        case MultiDiscrete(sizes):
            assert isinstance(d, MultiCategorical) and d.logits.shape == (ROWS, sum(sizes))
            assert d.sizes == sizes and sample.shape == (ROWS, len(sizes))
        case Continuous(shape):
            assert isinstance(d, DiagonalGaussian) and d.mean.shape == d.log_std.shape == (ROWS, *shape)
            assert sample.shape == (ROWS, *shape)
    assert d.log_prob(sample).shape == (ROWS,)


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_a_critic_gives_one_value_a_row(obs: ObsSpec) -> None:
    critic, rows = critic_for(obs), observations(obs)
    values = critic(rows)
    assert values.shape == (ROWS,)
    one_by_one = torch.cat([critic(rows[row]) for row in torch.arange(ROWS).split(1)])
    assert torch.allclose(values, one_by_one, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "gelu"])
def test_the_activation_stands_between_layers_and_not_behind_the_last(activation: Activation) -> None:
    critic = MLPCritic([16], activation, 1.0, 1.0).make(VECTOR, Discrete(2), torch.Generator().manual_seed(0))
    first, last = linear_layers(critic)
    obs = observations(VECTOR)
    apply = {"tanh": torch.tanh, "relu": torch.relu, "elu": nn.functional.elu, "gelu": nn.functional.gelu}[
        activation
    ]
    assert torch.allclose(critic(obs), last(apply(first(obs.features))).squeeze(-1), atol=1e-6)


def test_actions_of_two_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="no head"):
        policy_for(VECTOR, Continuous((2, 2)))
