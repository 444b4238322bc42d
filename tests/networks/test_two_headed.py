"""Two heads on one trunk: whose gradient reaches what."""

import pytest
import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.networks.mlp import MLPPolicy
from pgx.networks.two_headed import TwoHeaded, TwoHeadedPolicy
from tests.conftest import as_observations

OBSERVATIONS = [Continuous((3,)), Continuous((2, 4)), Discrete(5), Image((2, 3, 3))]
ACTIONS = [Discrete(4), MultiDiscrete((2, 3)), Continuous((2,))]
ROWS = 6
PARTS = ("trunk", "actor", "value_head")


def policy_for(obs: ObsSpec, action: ActionSpec, hidden: tuple[int, ...] = (8, 7)) -> TwoHeaded:
    policy = TwoHeadedPolicy(
        hidden=list(hidden),
        activation="tanh",
        hidden_gain=1.3,
        output_gain=0.5,
        value_gain=2.0,
        log_std_init=-0.7,
        continuous="gaussian",
    ).make(obs, action, torch.Generator().manual_seed(0))
    assert isinstance(policy, TwoHeaded)
    return policy


def observations(obs: ObsSpec) -> Observations:
    generator = torch.Generator().manual_seed(1)
    match obs:
        case Discrete(n):
            return as_observations(torch.randint(n, (ROWS,), generator=generator))
        case Image(shape):
            return as_observations(torch.randint(256, (ROWS, *shape), generator=generator, dtype=torch.uint8))
    return as_observations(torch.randn((ROWS, *obs.shape), generator=generator))


def reached(policy: TwoHeaded, output: Tensor) -> set[str]:
    """Which of its parts a gradient of the output reaches."""
    policy.zero_grad(set_to_none=True)
    output.sum().backward()
    return {
        name
        for name in PARTS
        if any(p.grad is not None and bool(p.grad.any()) for p in getattr(policy, name).parameters())
    }


@pytest.mark.parametrize("obs", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_the_actions_are_those_of_the_perceptron_from_the_same_generator(
    obs: ObsSpec, action: ActionSpec
) -> None:
    plain = MLPPolicy([8, 7], "tanh", 1.3, 0.5, -0.7, "gaussian").make(
        obs, action, torch.Generator().manual_seed(0)
    )
    rows = observations(obs)
    pairs = zip(policy_for(obs, action)(rows).params, plain(rows).params, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("action", ACTIONS)
def test_each_output_moves_its_own_head_and_the_detached_value_nothing_else(action: ActionSpec) -> None:
    policy, rows = policy_for(OBSERVATIONS[0], action), observations(OBSERVATIONS[0])
    taken = policy(rows).detach().sample(torch.Generator().manual_seed(0))
    assert reached(policy, policy(rows).log_prob(taken)) == {"trunk", "actor"}
    assert reached(policy, policy.value(rows)) == {"trunk", "value_head"}
    assert reached(policy, policy.value_detached(rows)) == {"value_head"}


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_the_value_is_one_number_a_row_detached_or_not(obs: ObsSpec) -> None:
    policy, rows = policy_for(obs, Discrete(4)), observations(obs)
    assert policy.value(rows).shape == (ROWS,)
    assert torch.equal(policy.value(rows), policy.value_detached(rows))


def test_without_hidden_layers_both_heads_read_the_observation() -> None:
    policy, rows = policy_for(Continuous((3,)), Discrete(4), hidden=()), observations(Continuous((3,)))
    assert not list(policy.trunk.parameters())
    head = policy.value_head
    assert isinstance(head, nn.Linear)
    assert torch.allclose(policy.value(rows), rows.features @ head.weight[0])
    assert float(head.weight.detach().norm()) == pytest.approx(2)  # value_gain


def test_an_action_that_cannot_be_taken_has_probability_zero_and_the_value_does_not_care() -> None:
    policy, rows = policy_for(Continuous((3,)), Discrete(4)), observations(Continuous((3,)))
    mask = torch.tensor([True, False, True, True]).expand(ROWS, 4)
    masked = as_observations(rows.features, mask)
    assert bool((policy(masked).log_prob(torch.ones(ROWS, dtype=torch.int64)) == -torch.inf).all())
    assert torch.equal(policy.value(masked), policy.value(rows))
