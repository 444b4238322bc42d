"""A masked softmax is the softmax over what is allowed: in density, entropy, KL, metric, gradients and samples."""

import math

import pytest
import torch
from torch import Tensor

from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete
from pgx.networks.distributions import Categorical, MultiCategorical
from pgx.networks.heads import masked
from pgx.networks.mlp import MLPPolicy
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product, scores
from tests.conftest import as_observations

ROWS, SIZES = 40, (4, 3)
ACTIONS: list[ActionSpec] = [Discrete(7), MultiDiscrete(SIZES)]
WIDE = torch.float64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def masks(rows: int = ROWS) -> Tensor:
    """[rows, 7] with at least one of the first four and one of the last three allowed."""
    mask = torch.rand(rows, 7, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[:, 1] |= ~mask[:, :4].any(1)
    mask[:, 5] |= ~mask[:, 4:].any(1)
    return mask


@pytest.mark.parametrize("row", range(8))
def test_it_is_the_softmax_over_the_allowed_actions(row: int) -> None:
    mask = masks()[row]
    mine, other = (Categorical(masked(normal(k, 1, 7), mask[None])) for k in range(2))
    small, small_other = (Categorical(normal(k, 1, 7)[:, mask]) for k in range(2))
    for position, action in enumerate(mask.nonzero().flatten()):
        short = small.log_prob(torch.tensor([position]))
        assert torch.allclose(mine.log_prob(action[None]), short, rtol=1e-12)
    assert torch.allclose(mine.entropy(), small.entropy(), rtol=1e-12)
    assert torch.allclose(mine.kl(other), small.kl(small_other), rtol=1e-12)
    assert torch.equal(mask.nonzero()[small.mode()].flatten(), mine.mode())
    tangent = normal(9, 1, 7)
    (metric,) = mine.fisher((tangent,))
    assert torch.allclose(metric[:, mask], small.fisher((tangent[:, mask],))[0], rtol=1e-12)
    assert bool((metric[:, ~mask] == 0).all())
    assert bool(
        torch.isneginf(torch.stack([mine.log_prob(a[None]) for a in (~mask).nonzero().flatten()])).all()
    )


def distribution(logits: Tensor, action: ActionSpec, mask: Tensor) -> Categorical | MultiCategorical:
    inside = masked(logits, mask)
    return MultiCategorical(inside, SIZES) if isinstance(action, MultiDiscrete) else Categorical(inside)


@pytest.mark.parametrize("action", ACTIONS)
def test_forbidden_logits_get_a_gradient_of_exactly_zero(action: ActionSpec) -> None:
    mask = masks()
    logits = normal(0, ROWS, 7).requires_grad_()
    d, fixed = distribution(logits, action, mask), distribution(normal(1, ROWS, 7), action, mask)
    a = fixed.sample(torch.Generator().manual_seed(0))
    for loss in (
        d.log_prob(a),
        d.entropy(),
        d.kl(fixed),
        fixed.kl(d),
        (d.log_prob(a) - fixed.log_prob(a)).exp(),
    ):
        assert bool(loss.isfinite().all())
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        assert bool(gradient.isfinite().all())
        assert bool((gradient[~mask] == 0).all())
        assert float(gradient[mask].abs().max()) > 0


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_nothing_forbidden_is_sampled_or_chosen_however_sure_the_network_is_of_it(
    action: ActionSpec, scale: float
) -> None:
    mask = masks()
    logits = (normal(0, ROWS, 7) + scale * (~mask)).float()
    d = distribution(logits, action, mask)
    generator = torch.Generator().manual_seed(0)
    parts = mask.split(SIZES, -1) if isinstance(action, MultiDiscrete) else (mask,)
    for chosen in (d.mode(), *(d.sample(generator) for _ in range(300))):
        for part, a in zip(parts, chosen.view(ROWS, -1).unbind(-1), strict=True):
            assert bool(part.gather(-1, a.unsqueeze(-1)).all())


@pytest.mark.parametrize("action", ACTIONS)
def test_a_network_behind_a_mask_has_both_fisher_products_and_scores(action: ActionSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    net = MLPPolicy([5], "tanh", 1.4, 1.0, 0.0, "gaussian").make(Continuous((3,)), action, generator).double()
    mask = masks()
    mask[:, 6] = False  # in no row
    mask[:, 5] |= ~mask[:, 4:].any(1)
    obs = as_observations(normal(4, ROWS, 3), mask)
    size = sum(p.numel() for p in net.parameters())
    vector = normal(5, size)
    product = gauss_newton_product(net, obs)(vector)
    assert torch.allclose(product, kl_hessian_product(net, obs)(vector), rtol=1e-9, atol=1e-12)
    a = net(obs).sample(generator)
    rows = scores(net, obs, a)
    total = torch.autograd.grad(net(obs).log_prob(a).sum(), list(net.parameters()))
    assert torch.allclose(rows.sum(0), torch.cat([g.flatten() for g in total]), rtol=1e-9, atol=1e-12)
    bias = rows[:, -7:]  # the last parameters: one for each logit
    assert bool((bias[~mask] == 0).all()) and bool((product[-1:] == 0).all())


def test_one_allowed_action_leaves_nothing_to_learn() -> None:
    mask = torch.zeros(1, 7, dtype=torch.bool)
    mask[0, 2] = True
    logits = normal(0, 1, 7).requires_grad_()
    d = Categorical(masked(logits, mask))
    a = torch.tensor([2])
    assert d.log_prob(a).item() == 0 and d.entropy().item() == 0
    (gradient,) = torch.autograd.grad((d.log_prob(a) + d.entropy()).sum(), logits)
    assert bool((gradient == 0).all())


def test_without_a_mask_all_is_allowed() -> None:
    logits = normal(0, 2, 7)
    assert masked(logits, None) is logits
    assert torch.equal(masked(logits, torch.ones(2, 7, dtype=torch.bool)), logits)
    assert masked(logits, ~torch.ones(2, 7, dtype=torch.bool)).eq(-math.inf).all()
