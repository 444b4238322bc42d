"""Tests of steps on shared weights: sequential steps equal those of one process, and no step undoes another."""

import pytest
import torch
from torch import Tensor, nn

from pgx.compiler import Eager
from pgx.ops.optim import GradientSteps
from pgx.ops.optim.first_order import AdamTransform, HeavyBallTransform, RMSpropTransform
from pgx.ops.optim.formulas import SCHEDULES
from pgx.ops.optim.gradient_steps import GradientTransform, SharedSteps
from pgx.ops.params import assign, flatten

TRANSFORMS: dict[str, GradientTransform] = {
    "rmsprop": RMSpropTransform(decay=0.9, epsilon=1e-3, momentum=0.5),
    "adamw": AdamTransform(0.9, 0.99, 1e-5, weight_decay=0.1),
    "sgd": HeavyBallTransform(momentum=0.9),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def own(transform: GradientTransform, max_norm: float | None = 0.3) -> GradientSteps:
    return GradientSteps(network(), transform, 0.05, SCHEDULES["linear"], max_norm, Eager())


def loss(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).square().mean() + net(x).mean()


def half(net: nn.Sequential, x: Tensor) -> Tensor:
    """Loss that does not depend on the first layer."""
    return net[2](x).mean()


def data(count: int, width: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, width, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_workers_that_take_turns_make_the_steps_and_moments_of_one(transform: GradientTransform) -> None:
    alone = own(transform)
    weights = flatten(alone.parameters)
    moments = [torch.zeros_like(weights) for _ in range(transform.moments)]
    workers = [SharedSteps(own(transform), weights, moments) for _ in range(2)]
    for turn, x in enumerate(data(12)):
        worker = workers[turn % 2]
        assign(worker.local.parameters, weights)
        assert worker.anneal(turn / 12) == alone.anneal(turn / 12)
        assert torch.equal(worker.step(loss, x), alone.step(loss, x))
        assert torch.equal(weights, flatten(alone.parameters))
        assert torch.equal(weights, flatten(worker.local.parameters))
        assert all(map(torch.equal, moments, alone.moments))
    assert bool(moments[0].any())


def test_a_step_from_an_old_copy_takes_its_gradient_there_and_undoes_nothing_of_others() -> None:
    """With plain gradient descent, two steps from one copy add up in either order."""
    transform, (x, y) = HeavyBallTransform(momentum=0.0), data(2)
    start = flatten(own(transform).parameters)
    weights = start.clone()
    one, two = (SharedSteps(own(transform), weights, [torch.zeros_like(weights)]) for _ in range(2))
    one.step(loss, x)
    after_one = weights.clone()
    two.step(loss, y)  # its copy is still where both began
    alone = []
    for rows in (x, y):
        steps = own(transform)
        steps.step(loss, rows)
        alone.append(flatten(steps.parameters) - start)
    assert torch.equal(after_one, start + alone[0]) or torch.allclose(after_one, start + alone[0], atol=1e-7)
    assert torch.allclose(weights, start + alone[0] + alone[1], atol=1e-6)
    assert torch.allclose(
        flatten(two.local.parameters), start + alone[1], atol=1e-6
    )  # the copy: its own step alone


def test_shared_moments_see_the_gradients_of_all() -> None:
    transform = RMSpropTransform(decay=0.9, epsilon=1e-3, momentum=0.0)
    weights = flatten(own(transform).parameters)
    moments = [torch.zeros_like(weights) for _ in range(2)]
    gradients = []
    for x in data(2):
        worker = SharedSteps(
            own(transform, None), weights, moments
        )  # both copies are where the weights were at first
        gradients.append(
            worker.local.gradient_step.gradient(
                loss, worker.local.network, (x,), flatten(network().parameters())
            )[1]
        )
        worker.step(loss, x)
    expected = 0.9 * 0.1 * gradients[0].square() + 0.1 * gradients[1].square()
    assert torch.allclose(moments[0], expected)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_parameters_without_a_gradient_are_unchanged(transform: GradientTransform) -> None:
    weights = flatten(own(transform).parameters)
    moments = [torch.full_like(weights, 0.5) for _ in range(transform.moments)]
    start = weights.clone()
    SharedSteps(own(transform), weights, moments).step(half, data(1, width=4)[0])
    first = 3 * 4 + 4
    assert torch.equal(weights[:first], start[:first]) and not torch.equal(weights[first:], start[first:])
    assert all(bool((moment[:first] == 0.5).all()) for moment in moments)
    assert not bool((moments[0][first:] == 0.5).any())


def test_a_sweep_is_a_step_for_each_minibatch() -> None:
    transform, x = TRANSFORMS["rmsprop"], torch.cat(data(3))
    parts = torch.arange(24).split(8)
    alone = own(transform)
    weights = flatten(alone.parameters)
    shared = SharedSteps(own(transform), weights, [torch.zeros_like(weights) for _ in range(2)])
    assert torch.allclose(
        shared.step_minibatches(loss, (x,), parts), alone.step_minibatches(loss, (x,), parts)
    )
    assert torch.allclose(weights, flatten(alone.parameters))
    state = shared.state_dict()
    fresh = SharedSteps(own(transform), weights, [torch.zeros_like(weights) for _ in range(2)])
    fresh.load_state_dict(state)
    assert all(map(torch.equal, fresh.moments, shared.moments))


def test_a_state_that_was_taken_does_not_change_with_the_steps_after_it() -> None:
    """The state may belong to a checkpoint that is not yet written."""
    x, y = data(2)
    steps = own(TRANSFORMS["rmsprop"])
    weights = flatten(steps.parameters)
    shared = SharedSteps(steps, weights, [torch.zeros_like(weights) for _ in range(2)])
    shared.step(loss, x)
    state = shared.state_dict()
    then = [moment.clone() for moment in state["moments"]]
    shared.step(loss, y)
    assert all(map(torch.equal, state["moments"], then))
    assert not torch.equal(shared.moments[0], then[0])
