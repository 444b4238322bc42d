"""Tests of optimizers against explicit steps and torch.optim: clipping, annealing, update formulas, restarts."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pgx.algos.common.critic_fit import critic_loss
from pgx.compiler import Eager
from pgx.core.algorithm import Optimizer
from pgx.core.data import Batch
from pgx.core.specs import Continuous, Discrete
from pgx.networks.mlp import MLPCritic
from pgx.ops.optim import LBFGS, SGD, Adam, AdamW, GradientSteps, NoSteps, RMSprop
from pgx.ops.optim.formulas import SCHEDULES, ScheduleName
from pgx.ops.params import assign, flatten
from tests.conftest import as_observations

GRADIENTS = [torch.tensor([3.0, -4.0]), torch.tensor([[12.0]])]  # of norm 13 together
RATE = 0.1


class Weights(nn.Module):
    """Module of parameters only."""

    def __init__(self, *start: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(start)


def start() -> Weights:
    return Weights(torch.tensor([1.0, 2.0]), torch.tensor([[-1.0]]))


def linear_loss(network: Weights, scale: float = 1.0) -> Tensor:
    """Loss whose gradient is scale * GRADIENTS at every point."""
    products = [(w * g).sum() for w, g in zip(network.weights, GRADIENTS, strict=False)]
    return scale * torch.stack(products).sum()


def gradient_descent(
    network: nn.Module,
    schedule: ScheduleName = "constant",
    max_grad_norm: float | None = None,
    momentum: float = 0.0,
) -> GradientSteps:
    return SGD(RATE, schedule, max_grad_norm, momentum).make(network, Eager())


def adam_steps(network: nn.Module, max_grad_norm: float | None = None) -> GradientSteps:
    return Adam(RATE, "constant", max_grad_norm, beta1=0.9, beta2=0.99, epsilon=1e-8).make(network, Eager())


def moved(network: Weights) -> list[Tensor]:
    return [w.detach() - old.detach() for w, old in zip(network.weights, start().weights, strict=True)]


@pytest.mark.parametrize(("max_grad_norm", "factor"), [(None, 1.0), (26.0, 1.0), (6.5, 0.5), (1.0, 1 / 13)])
def test_a_step_of_sgd_is_the_rate_times_the_clipped_gradient(
    max_grad_norm: float | None, factor: float
) -> None:
    """The norm is over all parameters together, and a shorter gradient is unchanged."""
    network = start()
    gradient_descent(network, max_grad_norm=max_grad_norm).step(linear_loss)
    for step, g in zip(moved(network), GRADIENTS, strict=True):
        assert torch.allclose(step, -RATE * factor * g, rtol=1e-5)


@pytest.mark.parametrize("make", [gradient_descent, adam_steps])
def test_clipping_leaves_short_gradients_alone(make: Callable[..., GradientSteps]) -> None:
    clipped, free = start(), start()
    make(clipped, max_grad_norm=13.5).step(linear_loss)
    make(free, max_grad_norm=None).step(linear_loss)
    assert all(torch.equal(a, b) for a, b in zip(clipped.weights, free.weights, strict=True))


def test_a_second_step_does_not_use_the_gradient_of_the_first() -> None:
    network = start()
    steps = gradient_descent(network)
    steps.step(linear_loss)
    steps.step(linear_loss)
    for step, g in zip(moved(network), GRADIENTS, strict=True):
        assert torch.allclose(step, -2 * RATE * g)


def test_momentum_carries_the_last_step_on() -> None:
    """Heavy ball: v_2 = μ v_1 + g, so two equal gradients move by (1 + 1 + μ) g."""
    network = start()
    steps = gradient_descent(network, momentum=0.5)
    steps.step(linear_loss)
    steps.step(linear_loss)
    for step, g in zip(moved(network), GRADIENTS, strict=True):
        assert torch.allclose(step, -2.5 * RATE * g)


def test_descend_returns_the_loss_before_the_step_and_goes_down() -> None:
    network = start()
    before = linear_loss(network).detach()
    returned = gradient_descent(network).step(linear_loss)
    assert torch.equal(returned, before)
    assert not returned.requires_grad
    assert linear_loss(network) < before


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descend_leaves_other_parameters_where_they_are(momentum: float) -> None:
    network = Weights(torch.tensor([1.0, 2.0]), torch.tensor([[-1.0]]), torch.ones(2))
    gradient_descent(network, momentum=momentum).step(linear_loss)
    assert network.weights[2].tolist() == [1.0, 1.0]
    assert network.weights[0].tolist() != [1.0, 2.0]


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.9, 1.0])
def test_anneal_sets_the_rate_times_the_schedule(schedule: ScheduleName, progress: float) -> None:
    network = start()
    steps = gradient_descent(network, schedule=schedule)
    expected = RATE * SCHEDULES[schedule](progress)
    assert steps.anneal(progress) == pytest.approx(expected)
    steps.step(linear_loss)
    for step, g in zip(moved(network), GRADIENTS, strict=True):
        assert torch.allclose(step, -expected * g, atol=1e-7)


def test_annealing_does_not_compound() -> None:
    steps = gradient_descent(start(), schedule="linear")
    steps.anneal(0.5)
    assert steps.anneal(0.5) == pytest.approx(RATE / 2)
    assert steps.anneal(0.0) == RATE


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_the_first_step_of_adam_has_the_size_of_the_rate_in_each_coordinate(scale: float) -> None:
    network = start()
    adam_steps(network).step(linear_loss, scale)
    for step, g in zip(moved(network), GRADIENTS, strict=True):
        assert torch.allclose(step, -RATE * g.sign(), rtol=1e-4)


def test_adam_is_algorithm_1_of_its_paper() -> None:
    beta1, beta2, epsilon = 0.8, 0.95, 0.1
    network = Weights(torch.tensor([1.0], dtype=torch.float64))
    steps = Adam(RATE, "constant", None, beta1, beta2, epsilon).make(network, Eager())
    theta, m, v = 1.0, 0.0, 0.0
    for t in range(1, 6):
        steps.step(lambda network: (network.weights[0] ** 3).sum())
        g = 3 * theta**2
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        theta -= RATE * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + epsilon)
        assert network.weights[0].item() == pytest.approx(theta, rel=1e-10)


def curved(network: Weights) -> Tensor:
    return torch.stack([(w - 0.3).pow(4).sum() for w in network.weights]).sum()


@pytest.mark.parametrize(
    "make", [adam_steps, lambda network: gradient_descent(network, momentum=0.9)], ids=["adam", "sgd"]
)
def test_after_a_restart_the_next_steps_are_the_same_bits(make: Callable[..., GradientSteps]) -> None:
    network = start()
    steps = make(network)
    for _ in range(3):
        steps.step(curved)
    state, kept = steps.state_dict(), copy.deepcopy(steps.state_dict())
    resumed, forgetful = copy.deepcopy(network), copy.deepcopy(network)
    steps_resumed, steps_forgetful = make(resumed), make(forgetful)
    steps_resumed.load_state_dict(state)
    for _ in range(3):
        for one in (steps, steps_resumed, steps_forgetful):
            one.step(curved)
    pairs = list(zip(network.weights, resumed.weights, forgetful.weights, strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs)
    # A state that was taken stays what it was: it may still have to be written.
    assert all(torch.equal(a, b) for a, b in zip(state["moments"], kept["moments"], strict=True))


@pytest.mark.parametrize("make", [adam_steps, gradient_descent])
def test_a_step_starts_where_the_network_stands(make: Callable[..., GradientSteps]) -> None:
    """Also if other code changed the parameters in between, such as a restored checkpoint."""
    network, other = start(), start()
    steps = make(network)
    steps.step(linear_loss)
    there = flatten(network.weights) + 5.0
    assign(list(network.weights), there)
    assign(list(other.weights), there)
    steps_other = make(other)
    steps_other.load_state_dict(steps.state_dict())
    for one in (steps, steps_other):
        one.step(linear_loss)
    assert torch.equal(flatten(network.weights), flatten(other.weights))
    assert float((flatten(network.weights) - there).abs().max()) < 5.0


def test_rmsprop_is_equation_8_of_its_paper() -> None:
    network = Weights(torch.tensor([1.0, -2.0]))
    slope = torch.tensor([3.0, 0.5])
    steps = RMSprop(0.1, "constant", None, decay=0.9, epsilon=1e-3, momentum=0.0).make(network, Eager())
    square, expected = torch.zeros(2), network.weights[0].detach().clone()
    for _ in range(3):
        square = 0.9 * square + 0.1 * slope.square()
        expected -= 0.1 * slope / (square.sqrt() + 1e-3)
        steps.step(lambda network, slope: (slope * network.weights[0]).sum(), slope)
    assert torch.allclose(network.weights[0].detach(), expected)


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    """Without a gradient, each step of AdamW subtracts learning_rate * weight_decay of a weight, and Adam nothing."""
    network = Weights(torch.tensor([2.0]))
    steps = AdamW(0.1, "constant", None, 0.9, 0.999, 1e-8, weight_decay=0.5).make(network, Eager())
    for _ in range(3):
        steps.step(lambda network: (0.0 * network.weights[0]).sum())
    assert float(network.weights[0].detach()) == pytest.approx(2.0 * (1 - 0.1 * 0.5) ** 3)


# --- against torch.optim ---

# Of each the make, and the same rule by torch: [network -> steps, parameters -> optimizer].
PEERS: dict[str, tuple[Callable[..., GradientSteps], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (
        lambda network, norm: SGD(0.05, "linear", norm, 0.0).make(network, Eager()),
        lambda parameters: torch.optim.SGD(parameters, 0.05),
    ),
    "sgd, momentum": (
        lambda network, norm: SGD(0.05, "linear", norm, 0.8).make(network, Eager()),
        lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.8),
    ),
    "rmsprop": (
        lambda network, norm: RMSprop(0.05, "linear", norm, 0.9, 1e-3, 0.0).make(network, Eager()),
        lambda parameters: torch.optim.RMSprop(parameters, 0.05, alpha=0.9, eps=1e-3),
    ),
    "rmsprop, momentum": (
        lambda network, norm: RMSprop(0.05, "linear", norm, 0.9, 1e-3, 0.7).make(network, Eager()),
        lambda parameters: torch.optim.RMSprop(parameters, 0.05, alpha=0.9, eps=1e-3, momentum=0.7),
    ),
    "adam": (
        lambda network, norm: Adam(0.05, "linear", norm, 0.8, 0.95, 1e-4).make(network, Eager()),
        lambda parameters: torch.optim.Adam(parameters, 0.05, betas=(0.8, 0.95), eps=1e-4),
    ),
    "adamw": (
        lambda network, norm: AdamW(0.05, "linear", norm, 0.8, 0.95, 1e-4, 0.3).make(network, Eager()),
        lambda parameters: torch.optim.AdamW(parameters, 0.05, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3),
    ),
}
peers = pytest.mark.parametrize(("make", "theirs"), PEERS.values(), ids=PEERS)


def sloped(network: nn.Module, slopes: Tensor, aside: Tensor) -> Tensor:
    """Loss whose gradient is `slopes`; it depends on the first parameter only if aside > 0."""
    reached = list(network.parameters())[0 if float(aside) > 0 else 1 :]
    vector = torch.cat([p.reshape(-1) for p in reached])
    return (vector * slopes[len(slopes) - len(vector) :]).sum()


@peers
@pytest.mark.parametrize("max_grad_norm", [None, 3.0])
@pytest.mark.parametrize("skipping", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_twenty_steps_are_those_of_torch(
    make: Callable[..., GradientSteps],
    theirs: Callable[..., torch.optim.Optimizer],
    max_grad_norm: float | None,
    skipping: bool,
    dtype: torch.dtype,
    rtol: float,
) -> None:
    """Torch clips by clip_grad_norm_, and skips a parameter in every step whose loss does not depend on it."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    twin = copy.deepcopy(network)
    steps, optimizer = make(network, max_grad_norm), theirs(twin.parameters())
    clipped = 0
    for k in range(20):
        scale = 10 ** torch.empty((), dtype=dtype).uniform_(-1, 1, generator=generator)
        slopes = scale * torch.randn(26, generator=generator).to(dtype)
        aside = torch.tensor(float(not skipping or k % 2))
        optimizer.param_groups[0]["lr"] = steps.anneal(k / 20)
        steps.step(sloped, slopes, aside)
        optimizer.zero_grad()
        sloped(twin, slopes, aside).backward()
        if max_grad_norm is not None:
            clipped += float(nn.utils.clip_grad_norm_(twin.parameters(), max_grad_norm)) > max_grad_norm
        optimizer.step()
        assert torch.allclose(flatten(network.parameters()), flatten(twin.parameters()), rtol=rtol, atol=rtol)
    assert max_grad_norm is None or 0 < clipped < 20


@peers
def test_parameters_without_a_gradient_keep_their_optimizer_state(
    make: Callable[..., GradientSteps], theirs: object
) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    steps, slopes = make(network, None), torch.linspace(1.0, 2.0, 26)
    for _ in range(2):
        steps.step(sloped, slopes, torch.tensor(1.0))
    before, weights = steps.state_dict(), flatten(network.parameters())
    steps.step(sloped, slopes, torch.tensor(0.0))
    after = steps.state_dict()
    for old, new in [
        (weights, flatten(network.parameters())),
        *zip(before["moments"], after["moments"], strict=True),
    ]:
        assert torch.equal(old[:12], new[:12])
    assert not torch.equal(weights[12:], flatten(network.parameters())[12:])


# --- passes over minibatches ---


def task() -> tuple[nn.Module, Batch]:
    """Return a critic, and rows to fit it to."""
    generator = torch.Generator().manual_seed(0)
    critic = MLPCritic([8], "tanh", 1.0, 1.0).make(Continuous((3,)), Discrete(2), generator)
    empty, target = torch.zeros(50), torch.randn(50, generator=generator)
    return critic, Batch(
        as_observations(torch.randn(50, 3, generator=generator)), empty, empty, empty, empty, target
    )


def weighted(critic: nn.Module, rows: Batch, weight: Tensor, price: Tensor) -> Tensor:
    """Loss with all kinds of data: a batch, a tensor of as many rows, and a scalar."""
    error = (critic(rows.obs) - rows.value_target).square()
    return price * (weight * error).mean()


SWEEPERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    **{name: (lambda network, make=make: make(network, 0.5)) for name, (make, _) in PEERS.items()},
    "lbfgs": lambda network: LBFGS(0.5, "constant", iterations=3, history_size=5).make(network, Eager()),
    "none": NoSteps,
}


@pytest.mark.parametrize("make", SWEEPERS.values(), ids=SWEEPERS)
def test_a_sweep_is_a_descent_on_the_rows_of_each_minibatch(make: Callable[[nn.Module], Optimizer]) -> None:
    swept, rows = task()
    stepped, _ = task()
    weight, price = torch.linspace(0.0, 2.0, 50), torch.tensor(0.7)
    minibatches = rows.minibatches(16, torch.Generator().manual_seed(3))
    assert len({len(index) for index in minibatches}) == 2
    sweeping, stepping = make(swept), make(stepped)
    for _ in range(2):  # passes, of which the second goes on from what the first remembers
        losses = sweeping.step_minibatches(weighted, (rows, weight, price), minibatches)
        each = [stepping.step(weighted, rows.rows(index), weight[index], price) for index in minibatches]
        assert torch.equal(losses, torch.stack(each)) and not losses.requires_grad
        assert torch.equal(flatten(swept.parameters()), flatten(stepped.parameters()))
        assert sweeping.steps_taken == stepping.steps_taken


def test_the_losses_of_a_sweep_are_those_before_each_of_its_steps() -> None:
    critic, rows = task()
    (first, second) = minibatches = rows.minibatches(25, torch.Generator().manual_seed(3))
    before = [critic_loss(critic, rows.rows(index)).detach() for index in minibatches]
    steps = gradient_descent(critic)
    losses = steps.step_minibatches(critic_loss, (rows,), minibatches)
    assert steps.steps_taken == 2
    assert torch.equal(losses[0], before[0]) and not torch.equal(losses[1], before[1])
    assert sorted(torch.cat([first, second]).tolist()) == list(range(50))


# --- what steps otherwise, or not at all ---


def quadratic(network: Weights) -> Tensor:
    """Quadratic with its minimum at 1, 2, ..., and a different curvature in each coordinate."""
    (w,) = network.weights
    goal = torch.arange(1, len(w) + 1, dtype=w.dtype)
    return 0.5 * (10.0 ** torch.arange(len(w)) * (w - goal).square()).sum()


def at_zero() -> Weights:
    return Weights(torch.zeros(4, dtype=torch.float64))


def test_lbfgs_ends_at_the_lowest_point_of_a_bowl_that_gradient_descent_does_not_reach() -> None:
    network, plain = at_zero(), at_zero()
    before = LBFGS(1.0, "constant", iterations=30, history_size=10).make(network, Eager()).step(quadratic)
    assert float(before) == pytest.approx(float(quadratic(plain).detach()))
    assert torch.allclose(network.weights[0], torch.arange(1.0, 5.0, dtype=torch.float64), atol=1e-3)
    gradient_steps = SGD(1e-3, "constant", None, 0.0).make(plain, Eager())
    for _ in range(60):  # as many evaluations, at the largest rate that is stable
        gradient_steps.step(quadratic)
    assert float(quadratic(plain).detach()) > 0.1


def test_lbfgs_carries_nothing_from_one_loss_to_the_next() -> None:
    network, fresh = at_zero(), at_zero()
    steps = LBFGS(1.0, "constant", iterations=3, history_size=10).make(network, Eager())
    steps.step(quadratic)
    with torch.no_grad():
        fresh.weights[0].copy_(network.weights[0])
    steps.step(quadratic)
    LBFGS(1.0, "constant", iterations=3, history_size=10).make(fresh, Eager()).step(quadratic)
    assert torch.equal(network.weights[0], fresh.weights[0])


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.75])
def test_lbfgs_annealed_is_lbfgs_at_the_annealed_rate(progress: float) -> None:
    network, other = at_zero(), at_zero()
    steps = LBFGS(0.8, "linear", iterations=3, history_size=10).make(network, Eager())
    steps.anneal(0.9)
    rate = steps.anneal(progress)
    assert rate == pytest.approx(0.8 * (1 - progress))
    steps.step(quadratic)
    LBFGS(rate, "constant", iterations=3, history_size=10).make(other, Eager()).step(quadratic)
    assert torch.equal(network.weights[0], other.weights[0])


def test_no_steps_leaves_the_parameters_and_reports_the_loss() -> None:
    network = Weights(torch.ones(2))
    steps = NoSteps(network)
    loss = steps.step(quadratic)
    assert float(loss) == pytest.approx(float(quadratic(network).detach())) and not loss.requires_grad
    assert torch.equal(network.weights[0], torch.ones(2)) and network.weights[0].grad is None
    assert steps.anneal(0.5) != steps.anneal(0.5)  # NaN: there is no rate to show
