"""The critic of states and actions: what it sees of either, for every kind of space."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.networks.action_values import QCritic
from pgx.networks.mlp import MLPCritic
from tests.conftest import as_observations

VECTOR = Continuous((3,))
OBSERVATIONS = [VECTOR, Continuous((2, 4)), Discrete(5), Image((6, 5, 2))]
ACTIONS = [Discrete(4), MultiDiscrete((2, 3)), Continuous((2,))]
ROWS = 6


def critic_for(
    obs: ObsSpec, action: ActionSpec, seed: int = 0, hidden: tuple[int, ...] = (8, 7)
) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return QCritic(list(hidden), "tanh", hidden_gain=1.3, output_gain=0.5).make(obs, action, generator)


def samples(space: ObsSpec | ActionSpec, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    match space:
        case Discrete(n):
            return torch.randint(n, (ROWS,), generator=generator)
        case MultiDiscrete(sizes):
            return torch.stack([torch.randint(n, (ROWS,), generator=generator) for n in sizes], -1)
        case Image(shape):
            return torch.randint(256, (ROWS, *shape), generator=generator, dtype=torch.uint8)
    return torch.randn((ROWS, *space.shape), generator=generator)


def seen_features(obs: ObsSpec, features: Tensor) -> Tensor:
    """Observations as vectors, by hand."""
    match obs:
        case Discrete(n):
            return nn.functional.one_hot(features, n).float()
        case Image():
            return features.flatten(1) / 255
    return features.flatten(1)


def layer_of(module: nn.Module) -> nn.Linear:
    (layer,) = (m for m in module.modules() if isinstance(m, nn.Linear))
    return layer


@pytest.mark.parametrize("obs", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_both_values_are_one_a_row_and_of_that_row_alone(obs: ObsSpec, action: ActionSpec) -> None:
    critic, features, actions = critic_for(obs, action), samples(obs), samples(action)
    value, action_value = (
        critic(as_observations(features)),
        critic.action_value(as_observations(features), actions),
    )
    assert value.shape == action_value.shape == (ROWS,)
    alone = [
        critic.action_value(as_observations(row), a)
        for row, a in zip(features.split(1), actions.split(1), strict=True)
    ]
    assert torch.allclose(action_value, torch.cat(alone), atol=1e-6)
    assert not torch.allclose(
        action_value, critic.action_value(as_observations(features), samples(action, seed=2))
    )
    assert not torch.allclose(
        action_value, critic.action_value(as_observations(samples(obs, seed=2)), actions)
    )


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_without_hidden_layers_q_is_linear_in_what_it_sees_of_state_and_action(
    obs: ObsSpec, action: ActionSpec
) -> None:
    critic, features, actions = critic_for(obs, action, hidden=()), samples(obs), samples(action)
    layer, vectors = layer_of(critic.action), seen_features(obs, features)
    with torch.no_grad():
        layer.bias += torch.arange(len(layer.bias))
    match action:
        case Discrete():
            expected = (layer.weight[actions] * vectors).sum(-1) + layer.bias[actions]
        case MultiDiscrete(sizes):
            parts = [nn.functional.one_hot(actions[:, i], n).float() for i, n in enumerate(sizes)]
            expected = torch.cat([vectors, *parts], -1) @ layer.weight[0] + layer.bias
        case Continuous():
            expected = torch.cat([vectors, actions], -1) @ layer.weight[0] + layer.bias
    assert torch.allclose(critic.action_value(as_observations(features), actions), expected, atol=1e-5)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_state_value_is_that_of_the_critic_of_states(action: ActionSpec) -> None:
    plain = MLPCritic([8, 7], "tanh", 1.3, 0.5).make(VECTOR, action, torch.Generator().manual_seed(0))
    features = samples(VECTOR)
    assert torch.equal(
        critic_for(VECTOR, action)(as_observations(features)), plain(as_observations(features))
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_the_two_values_share_no_weight(action: ActionSpec) -> None:
    critic, obs = critic_for(VECTOR, action), as_observations(samples(VECTOR))
    state, pair = list(critic.state.parameters()), list(critic.action.parameters())
    assert len(state) + len(pair) == len(list(critic.parameters())) and len(state) == len(pair) == 6
    critic(obs).sum().backward()
    assert all(p.grad is not None for p in state) and all(p.grad is None for p in pair)
    critic.zero_grad()
    critic.action_value(obs, samples(action)).sum().backward()
    assert all(p.grad is None for p in state) and all(p.grad is not None for p in pair)


@pytest.mark.parametrize("action", ACTIONS)
def test_weights_come_from_the_generator_alone(action: ActionSpec) -> None:
    before = torch.get_rng_state()
    first, again, other = (list(critic_for(VECTOR, action, seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.dim() == 2)


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_the_action_is_appended_to_the_flattened_observation(obs: ObsSpec) -> None:
    width = obs.n if isinstance(obs, Discrete) else math.prod(obs.shape)
    for action, extra in ((MultiDiscrete((2, 3)), 5), (Continuous((2,)), 2)):
        assert layer_of(critic_for(obs, action, hidden=()).action).in_features == width + extra


def test_actions_of_two_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="no action value"):
        critic_for(VECTOR, Continuous((2, 2)))
