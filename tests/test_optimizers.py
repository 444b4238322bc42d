"""Each step by hand: clipping, the annealed rate, the optimizer's own rule, and going on after a restart."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pgx.ops.schedules import SCHEDULES, ScheduleName
from pgx.optimizers import GradientSteps, NoSteps, adam, adamw, lbfgs, rmsprop, sgd

GRADIENTS = [torch.tensor([3.0, -4.0]), torch.tensor([[12.0]])]  # of norm 13 together
RATE = 0.1


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[-1.0]]))]


def linear_loss(weights: list[nn.Parameter], scale: float = 1.0) -> Callable[[], Tensor]:
    """A loss whose gradient is scale * GRADIENTS wherever it stands."""
    return lambda: scale * torch.stack([(w * g).sum() for w, g in zip(weights, GRADIENTS, strict=True)]).sum()


def gradient_descent(
    weights: list[nn.Parameter],
    schedule: ScheduleName = "constant",
    max_grad_norm: float | None = None,
    momentum: float = 0.0,
) -> GradientSteps:
    return sgd(weights, RATE, schedule, max_grad_norm, momentum)


def adam_steps(weights: list[nn.Parameter], max_grad_norm: float | None = None) -> GradientSteps:
    return adam(weights, RATE, "constant", max_grad_norm, beta1=0.9, beta2=0.99, epsilon=1e-8)


def moved(weights: list[nn.Parameter]) -> list[Tensor]:
    return [w.detach() - start.detach() for w, start in zip(weights, parameters(), strict=True)]


@pytest.mark.parametrize(("max_grad_norm", "factor"), [(None, 1.0), (26.0, 1.0), (6.5, 0.5), (1.0, 1 / 13)])
def test_a_step_of_sgd_is_the_rate_times_the_clipped_gradient(
    max_grad_norm: float | None, factor: float
) -> None:
    """The norm is taken over all parameters together, and a shorter gradient is left as it is."""
    weights = parameters()
    gradient_descent(weights, max_grad_norm=max_grad_norm).descend(linear_loss(weights))
    for step, g in zip(moved(weights), GRADIENTS, strict=True):
        assert torch.allclose(step, -RATE * factor * g, rtol=1e-5)


@pytest.mark.parametrize("make", [gradient_descent, adam_steps])
def test_clipping_leaves_short_gradients_alone(make: Callable[..., GradientSteps]) -> None:
    clipped, free = parameters(), parameters()
    make(clipped, max_grad_norm=13.5).descend(linear_loss(clipped))
    make(free, max_grad_norm=None).descend(linear_loss(free))
    assert all(torch.equal(a, b) for a, b in zip(clipped, free, strict=True))


def test_a_second_step_forgets_the_gradient_of_the_first() -> None:
    weights = parameters()
    steps = gradient_descent(weights)
    steps.descend(linear_loss(weights))
    steps.descend(linear_loss(weights))
    for step, g in zip(moved(weights), GRADIENTS, strict=True):
        assert torch.allclose(step, -2 * RATE * g)


def test_momentum_carries_the_last_step_on() -> None:
    """Heavy ball: v_2 = μ v_1 + g, so two equal gradients move by (1 + 1 + μ) g."""
    weights = parameters()
    steps = gradient_descent(weights, momentum=0.5)
    steps.descend(linear_loss(weights))
    steps.descend(linear_loss(weights))
    for step, g in zip(moved(weights), GRADIENTS, strict=True):
        assert torch.allclose(step, -2.5 * RATE * g)


def test_descend_returns_the_loss_before_the_step_and_goes_down() -> None:
    weights = parameters()
    before = linear_loss(weights)().detach()
    returned = gradient_descent(weights).descend(linear_loss(weights))
    assert torch.equal(returned, before)
    assert not returned.requires_grad
    assert linear_loss(weights)() < before


def test_descend_leaves_other_parameters_where_they_are() -> None:
    weights, bystander = parameters(), nn.Parameter(torch.ones(2))
    loss = linear_loss(weights)
    gradient_descent([*weights, bystander], momentum=0.9).descend(loss)
    assert bystander.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.9, 1.0])
def test_anneal_sets_the_rate_times_the_schedule(schedule: ScheduleName, progress: float) -> None:
    weights = parameters()
    steps = gradient_descent(weights, schedule=schedule)
    expected = RATE * SCHEDULES[schedule](progress)
    assert steps.anneal(progress) == pytest.approx(expected)
    steps.descend(linear_loss(weights))
    for step, g in zip(moved(weights), GRADIENTS, strict=True):
        assert torch.allclose(step, -expected * g, atol=1e-7)


def test_annealing_does_not_compound() -> None:
    steps = gradient_descent(parameters(), schedule="linear")
    steps.anneal(0.5)
    assert steps.anneal(0.5) == pytest.approx(RATE / 2)
    assert steps.anneal(0.0) == RATE


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_the_first_step_of_adam_has_the_size_of_the_rate_in_each_coordinate(scale: float) -> None:
    weights = parameters()
    adam_steps(weights).descend(linear_loss(weights, scale))
    for step, g in zip(moved(weights), GRADIENTS, strict=True):
        assert torch.allclose(step, -RATE * g.sign(), rtol=1e-4)


def test_adam_is_algorithm_1_of_its_paper() -> None:
    beta1, beta2, epsilon = 0.8, 0.95, 0.1
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    steps = adam([weight], RATE, "constant", None, beta1, beta2, epsilon)
    theta, m, v = 1.0, 0.0, 0.0
    for t in range(1, 6):
        steps.descend(lambda: (weight**3).sum())
        g = 3 * theta**2
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        theta -= RATE * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + epsilon)
        assert weight.item() == pytest.approx(theta, rel=1e-10)


@pytest.mark.parametrize(
    "make", [adam_steps, lambda w: gradient_descent(w, momentum=0.9)], ids=["adam", "sgd"]
)
def test_after_a_restart_the_next_steps_are_the_same_bits(make: Callable[..., GradientSteps]) -> None:
    def curved(weights: list[nn.Parameter]) -> Callable[[], Tensor]:
        return lambda: torch.stack([(w - 0.3).pow(4).sum() for w in weights]).sum()

    weights = parameters()
    steps = make(weights)
    for _ in range(3):
        steps.descend(curved(weights))
    saved, state = copy.deepcopy(weights), copy.deepcopy(steps.state_dict())
    resumed, forgetful = copy.deepcopy(saved), copy.deepcopy(saved)
    steps_resumed, steps_forgetful = make(resumed), make(forgetful)
    steps_resumed.load_state_dict(state)
    for _ in range(3):
        steps.descend(curved(weights))
        steps_resumed.descend(curved(resumed))
        steps_forgetful.descend(curved(forgetful))
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights, forgetful, strict=True))


def test_rmsprop_is_equation_8_of_its_paper() -> None:
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    slope = torch.tensor([3.0, 0.5])
    steps = rmsprop([weights], 0.1, "constant", None, decay=0.9, epsilon=1e-3, momentum=0.0)
    square, expected = torch.zeros(2), weights.detach().clone()
    for _ in range(3):
        square = 0.9 * square + 0.1 * slope.square()
        expected -= 0.1 * slope / (square.sqrt() + 1e-3)
        steps.descend(lambda: (slope * weights).sum())
    assert torch.allclose(weights.detach(), expected)


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    """Without a gradient adam leaves a weight; adamw takes learning_rate * weight_decay of it off each step."""
    idle = torch.nn.Parameter(torch.tensor([2.0]))
    steps = adamw([idle], 0.1, "constant", None, 0.9, 0.999, 1e-8, weight_decay=0.5)
    for _ in range(3):
        steps.descend(lambda: (0.0 * idle).sum())
    assert float(idle.detach()) == pytest.approx(2.0 * (1 - 0.1 * 0.5) ** 3)


def quadratic(weights: list[nn.Parameter]) -> Callable[[], Tensor]:
    """A bowl with its lowest point at 1, 2, ..., steeper in some directions than in others."""
    (w,) = weights
    goal = torch.arange(1, len(w) + 1, dtype=w.dtype)
    return lambda: 0.5 * (10.0 ** torch.arange(len(w)) * (w - goal).square()).sum()


def test_lbfgs_ends_at_the_lowest_point_of_a_bowl_that_gradient_descent_does_not_reach() -> None:
    weights, plain = ([nn.Parameter(torch.zeros(4, dtype=torch.float64))] for _ in range(2))
    before = lbfgs(weights, 1.0, "constant", iterations=30, history_size=10).descend(quadratic(weights))
    assert float(before) == pytest.approx(float(quadratic(plain)().detach()))
    assert torch.allclose(weights[0], torch.arange(1.0, 5.0, dtype=torch.float64), atol=1e-3)
    gradient_steps = sgd(plain, 1e-3, "constant", None, 0.0)
    for _ in range(60):  # as many evaluations, at the largest rate that is stable
        gradient_steps.descend(quadratic(plain))
    assert float(quadratic(plain)().detach()) > 0.1


def test_lbfgs_carries_nothing_from_one_loss_to_the_next() -> None:
    weights, fresh = ([nn.Parameter(torch.zeros(4, dtype=torch.float64))] for _ in range(2))
    steps = lbfgs(weights, 1.0, "constant", iterations=3, history_size=10)
    steps.descend(quadratic(weights))
    with torch.no_grad():
        fresh[0].copy_(weights[0])
    steps.descend(quadratic(weights))
    lbfgs(fresh, 1.0, "constant", iterations=3, history_size=10).descend(quadratic(fresh))
    assert torch.equal(weights[0], fresh[0])


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.75])
def test_lbfgs_annealed_is_lbfgs_at_the_annealed_rate(progress: float) -> None:
    weights, other = ([nn.Parameter(torch.zeros(4, dtype=torch.float64))] for _ in range(2))
    steps = lbfgs(weights, 0.8, "linear", iterations=3, history_size=10)
    steps.anneal(0.9)
    rate = steps.anneal(progress)
    assert rate == pytest.approx(0.8 * (1 - progress))
    steps.descend(quadratic(weights))
    lbfgs(other, rate, "constant", iterations=3, history_size=10).descend(quadratic(other))
    assert torch.equal(weights[0], other[0])


def test_no_steps_leaves_the_parameters_and_reports_the_loss() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    steps = NoSteps()
    loss = steps.descend(quadratic(weights))
    assert float(loss) == pytest.approx(float(quadratic(weights)().detach())) and not loss.requires_grad
    assert torch.equal(weights[0], torch.ones(2)) and weights[0].grad is None
    assert steps.anneal(0.5) != steps.anneal(0.5)  # NaN: there is no rate to show
