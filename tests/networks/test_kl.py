"""KL divergences of distributions that differ little, against float64 references in another form."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgx.core.agent import Distribution
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks.distributions import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian
from pgx.networks.heads import masked
from pgx.networks.mlp import MLPPolicy
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product
from tests.conftest import as_observations

ROWS, SIZES = 64, (3, 4)
MASK = torch.tensor([True, False, True, True, True, False, True])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def categorical(seed: int) -> list[Tensor]:
    return [3 * normal(seed, ROWS, 7)]


def gaussian(seed: int) -> list[Tensor]:
    return [normal(seed, ROWS, 6), 0.5 * normal(seed + 1, ROWS, 6)]


def squash(*gaussian: Tensor) -> Distribution:
    return SquashedGaussian(DiagonalGaussian(*gaussian), torch.zeros(6), torch.ones(6))


Kind = tuple[Callable[..., Distribution], Callable[[int], list[Tensor]]]
KINDS: dict[str, Kind] = {
    "categorical": (Categorical, categorical),
    "masked": (lambda logits: Categorical(masked(logits, MASK)), categorical),
    "multi_categorical": (lambda logits: MultiCategorical(logits, SIZES), categorical),
    "masked_multi": (lambda logits: MultiCategorical(masked(logits, MASK), SIZES), categorical),
    "gaussian": (DiagonalGaussian, gaussian),
    "squashed": (squash, gaussian),
}
every = pytest.mark.parametrize("kind", KINDS)


def series(x: Tensor) -> Tensor:
    """e^x - 1 - x by its power series, for |x| < 4."""
    term, total = x * x / 2, torch.zeros_like(x)
    for k in range(3, 60):
        total, term = total + term, term * x / k
    return total


def reference(p: Distribution, q: Distribution) -> Tensor:
    """KL in float64, without a difference of two large numbers."""
    if isinstance(p, SquashedGaussian) and isinstance(q, SquashedGaussian):
        return reference(p.gaussian, q.gaussian)
    if isinstance(p, DiagonalGaussian) and isinstance(q, DiagonalGaussian):
        distance = (p.mean.double() - q.mean.double()) / q.log_std.double().exp()
        return 0.5 * (series(2 * (p.log_std.double() - q.log_std.double())) + distance.square()).sum(-1)
    assert isinstance(p, Categorical | MultiCategorical) and isinstance(q, Categorical | MultiCategorical)
    sizes = list(p.sizes) if isinstance(p, MultiCategorical) else [7]
    total = torch.zeros(ROWS, dtype=torch.float64)
    for mine, theirs in zip(
        p.logits.double().split(sizes, -1), q.logits.double().split(sizes, -1), strict=True
    ):
        allowed = mine[0] > -math.inf
        step, probs = (theirs - mine)[:, allowed], mine[:, allowed].softmax(-1)
        centred = step - (probs * step).sum(
            -1, keepdim=True
        )  # KL = log E_p[e^centred] = log1p(E_p[e^c - 1 - c])
        total = total + (probs * series(centred)).sum(-1).log1p()
    return total


@every
@pytest.mark.parametrize("step", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.4])
def test_the_kl_of_float32_distributions_is_right_to_float32_at_every_magnitude(
    kind: str, step: float
) -> None:
    make, numbers = KINDS[kind]
    old = numbers(0)
    new = [x + step * normal(5 + k, *x.shape) for k, x in enumerate(old)]
    p, q = make(*old), make(*new)
    expected = reference(p, q)
    for forward, truth in ((p.kl(q), expected), (q.kl(p), reference(q, p))):
        assert forward.dtype == torch.float32 and bool((forward >= 0).all())
        assert float(((forward - truth) / truth).abs().max()) < 1e-5
    assert 1e-13 < float(expected.mean()) < 3


@every
def test_the_kl_of_equal_distributions_is_exactly_0(kind: str) -> None:
    make, numbers = KINDS[kind]
    assert bool((make(*numbers(0)).kl(make(*numbers(0))) == 0).all())


@every
@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-7])
def test_the_kl_is_never_negative_however_little_the_policy_moved(kind: str, step: float) -> None:
    make, numbers = KINDS[kind]
    old = [1e-3 * x for x in numbers(0)]  # small numbers, so that float32 resolves small steps
    new = [x + step * normal(5 + k, *x.shape) for k, x in enumerate(old)]
    assert bool((make(*old).kl(make(*new)) >= 0).all())


@pytest.mark.parametrize("scale", [30.0, 300.0, 3e4])
def test_the_kl_of_distributions_far_apart_is_the_sum_of_its_definition(scale: float) -> None:
    p, q = (Categorical(scale * normal(k, ROWS, 7)) for k in range(2))
    q.logits.requires_grad_()
    log_p, log_q = (d.logits.detach().double().log_softmax(-1) for d in (p, q))
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert torch.allclose(p.kl(q).double(), expected, rtol=1e-5)
    (gradient,) = torch.autograd.grad(p.kl(q).sum(), q.logits)
    assert torch.allclose(gradient.double(), log_q.exp() - log_p.exp(), atol=1e-6)


@every
@pytest.mark.parametrize("step", [0.0, 1e-4, 1.0])
def test_the_gradient_of_the_kl_is_that_of_its_definition(kind: str, step: float) -> None:
    """Of KL(p || q) by q: q - p for logits; for a Gaussian -(μ - μ')/σ'² and 1 - (σ² + (μ - μ')²)/σ'²."""
    make, numbers = KINDS[kind]
    old = numbers(0)
    new = [(x + step * normal(5 + k, *x.shape)).requires_grad_() for k, x in enumerate(old)]
    found = torch.autograd.grad(make(*old).kl(make(*new)).sum(), new)
    wide_old, wide = [x.double() for x in old], [x.detach().double() for x in new]
    if len(old) == 2:
        variance = (2 * wide[1]).exp()
        moved = wide[0] - wide_old[0]
        expected = [moved / variance, 1 - ((2 * wide_old[1]).exp() + moved.square()) / variance]
    else:
        multi = "multi" in kind
        mask = MASK if "masked" in kind else torch.ones_like(MASK)
        parts = zip(
            *(masked(x, mask).split(SIZES if multi else (7,), -1) for x in (wide[0], wide_old[0])),
            strict=True,
        )
        expected = [torch.cat([q.softmax(-1) - p.softmax(-1) for q, p in parts], -1)]
    for mine, truth in zip(found, expected, strict=True):
        assert bool(mine.isfinite().all())
        assert torch.allclose(mine.double(), truth, rtol=1e-4, atol=1e-6 * step + 1e-12)


@pytest.mark.parametrize("action", [Discrete(7), MultiDiscrete(SIZES), Continuous((3,))])
def test_the_second_derivative_at_an_unmoved_policy_is_the_fisher_matrix(action: ActionSpec) -> None:
    net = MLPPolicy([8], "tanh", 1.4, 1.0, 0.0, "gaussian").make(
        Continuous((3,)), action, torch.Generator().manual_seed(0)
    )
    obs = as_observations(
        normal(2, ROWS, 3), None if isinstance(action, Continuous) else MASK.expand(ROWS, -1)
    )
    vector = normal(3, sum(p.numel() for p in net.parameters()))
    exact, twice = gauss_newton_product(net, obs)(vector), kl_hessian_product(net, obs)(vector)
    assert float((exact - twice).norm() / exact.norm()) < 1e-5


def test_one_allowed_action_has_kl_and_entropy_0_and_no_gradient() -> None:
    mask = torch.zeros(ROWS, 7, dtype=torch.bool)
    mask[torch.arange(ROWS), torch.arange(ROWS) % 7] = True
    old, new = 3 * normal(0, ROWS, 7), (3 * normal(1, ROWS, 7)).requires_grad_()
    p, q = Categorical(masked(old, mask)), Categorical(masked(new, mask))
    for number in (p.kl(q), q.kl(p), q.entropy()):
        assert bool((number == 0).all())
        (gradient,) = torch.autograd.grad(number.sum(), new, retain_graph=True)
        assert bool((gradient == 0).all())
