"""Every distribution against sums over its actions, integrals, torch.distributions and its own samples."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions

from pgx.core.agent import Distribution
from pgx.networks.distributions import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian

SIZES = (3, 2, 3)  # two alike: parts that shared their noise would show
ROWS = 6


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def categorical(seed: int, rows: int = ROWS) -> Categorical:
    return Categorical(2 * normal(seed, rows, 5))


def multi_categorical(seed: int, rows: int = ROWS) -> MultiCategorical:
    return MultiCategorical(2 * normal(seed, rows, sum(SIZES)), SIZES)


def gaussian(seed: int, rows: int = ROWS) -> DiagonalGaussian:
    return DiagonalGaussian(normal(seed, rows, 3), 0.6 * normal(seed + 100, rows, 3))


CENTER, HALF_RANGE = torch.tensor([[1.0, -3.0, 0.5], [2.0, 0.1, 1.0]], dtype=torch.float64)


def squashed(seed: int, rows: int = ROWS) -> SquashedGaussian:
    return SquashedGaussian(gaussian(seed, rows), CENTER, HALF_RANGE)


def like(d: Distribution, *params: Tensor) -> Distribution:
    """A distribution of the kind of d, elsewhere."""
    match d:
        case MultiCategorical():
            return MultiCategorical(*params, d.sizes)
        case SquashedGaussian():
            to = params[0].dtype
            return SquashedGaussian(DiagonalGaussian(*params), d.center.to(to), d.half_range.to(to))
    return type(d)(*params)


Make = Callable[..., Distribution]
every = pytest.mark.parametrize("make", [categorical, multi_categorical, gaussian, squashed])
discrete = pytest.mark.parametrize("make", [categorical, multi_categorical])


def reference(d: Distribution) -> list[distributions.Distribution]:
    """The same in torch.distributions: one object for each independent part."""
    match d:
        case Categorical(logits):
            return [distributions.Categorical(logits=logits)]
        case MultiCategorical(logits, sizes):
            return [distributions.Categorical(logits=part) for part in logits.split(sizes, -1)]
        case DiagonalGaussian(mean, log_std):
            return [distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)]
        case SquashedGaussian(gaussian, center, half_range):
            squash = [distributions.TanhTransform(), distributions.AffineTransform(center, half_range)]
            (normal_,) = reference(gaussian)
            return [distributions.TransformedDistribution(normal_, squash)]
    raise AssertionError(d)


def all_actions(d: Distribution) -> list[Tensor]:
    """Every action, each as one tensor for all rows."""
    if isinstance(d, Categorical):
        return [torch.full((len(d.logits),), a) for a in range(d.logits.shape[-1])]
    assert isinstance(d, MultiCategorical)
    return [
        torch.tensor(a).expand(len(d.logits), -1) for a in itertools.product(*(range(k) for k in d.sizes))
    ]


def grid(d: DiagonalGaussian) -> Tensor:
    """Points [K, B, 1] over ten standard deviations to both sides, of a Gaussian with one dimension."""
    return d.mean + torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None, None] * d.log_std.exp()


@discrete
def test_probabilities_of_all_actions_sum_to_one(make: Make) -> None:
    d = make(0)
    total = torch.stack([d.log_prob(a).exp() for a in all_actions(d)]).sum(0)
    assert torch.allclose(total, torch.ones(ROWS, dtype=torch.float64), rtol=1e-12)


@discrete
def test_the_entropy_is_the_expected_surprise(make: Make) -> None:
    d = make(0)
    log_probs = torch.stack([d.log_prob(a) for a in all_actions(d)])
    assert torch.allclose(d.entropy(), -(log_probs.exp() * log_probs).sum(0), rtol=1e-12)


@discrete
def test_the_kl_is_the_expected_log_ratio(make: Make) -> None:
    p, q = make(0), make(1)
    mine = torch.stack([p.log_prob(a) for a in all_actions(p)])
    theirs = torch.stack([q.log_prob(a) for a in all_actions(p)])
    assert torch.allclose(p.kl(q), (mine.exp() * (mine - theirs)).sum(0), rtol=1e-10)


def test_the_gaussian_density_integrates_to_one_and_to_its_entropy_and_kl() -> None:
    p, q = (DiagonalGaussian(normal(k, ROWS, 1), 0.5 * normal(k + 10, ROWS, 1)) for k in range(2))
    points = grid(p)
    mine, theirs = p.log_prob(points), q.log_prob(points)
    assert mine.shape == points.shape[:-1]

    def integral(f: Tensor) -> Tensor:
        return torch.trapezoid(f, points.squeeze(-1), dim=0)

    assert torch.allclose(integral(mine.exp()), torch.ones(ROWS, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(-integral(mine.exp() * mine), p.entropy(), rtol=1e-8)
    assert torch.allclose(integral(mine.exp() * (mine - theirs)), p.kl(q), rtol=1e-8)


@every
def test_densities_agree_with_torch(make: Make) -> None:
    d, other = make(0), make(1)
    action = other.sample(torch.Generator().manual_seed(0))
    columns = action.unbind(-1) if isinstance(d, MultiCategorical) else [d.executed(action)]
    log_prob = sum(part.log_prob(a) for part, a in zip(reference(d), columns, strict=True))
    lost = 1e-5 if isinstance(d, SquashedGaussian) else 1e-12  # torch inverts the tanh
    assert torch.allclose(d.log_prob(action), log_prob, rtol=lost)
    if not isinstance(d, SquashedGaussian):  # for which torch has none
        assert torch.allclose(d.entropy(), sum(part.entropy() for part in reference(d)), rtol=1e-12)
    pairs = zip(reference(d), reference(other), strict=True)
    kl = sum(distributions.kl_divergence(mine, theirs) for mine, theirs in pairs)
    assert torch.allclose(d.kl(other), kl, rtol=1e-11)
    assert d.log_prob(action).shape == d.entropy().shape == d.kl(other).shape == (ROWS,)


@every
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_the_kl_is_positive_between_different_and_zero_between_equal_distributions(
    make: Make, seed: int
) -> None:
    p, q = make(seed), make(seed + 1)
    assert (p.kl(q) > 0).all()
    assert not torch.allclose(p.kl(q), q.kl(p))
    assert (p.kl(p) == 0).all()
    assert (p.kl(make(seed)) == 0).all()


@every
def test_the_fisher_metric_is_the_hessian_of_the_kl_in_the_coordinates(make: Make) -> None:
    d = make(0, rows=1)
    lengths = [c.numel() for c in d.params]

    def at(flat: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.view(1, -1) for part in flat.split(lengths))

    def kl_to(flat: Tensor) -> Tensor:
        return d.kl(like(d, *at(flat))).sum()

    here = torch.cat([c.flatten() for c in d.params])
    hessian = torch.autograd.functional.hessian(kl_to, here)
    basis = torch.eye(len(here), dtype=torch.float64)
    metric = torch.stack([torch.cat([m.flatten() for m in d.fisher(at(e))]) for e in basis])
    assert torch.allclose(metric, hessian, rtol=1e-9, atol=1e-12)


@every
def test_the_fisher_metric_acts_on_each_row_by_itself(make: Make) -> None:
    d = make(0)
    tangent = tuple(normal(7 + k, *c.shape) for k, c in enumerate(d.params))
    only_first = tuple(torch.cat([t[:1], torch.zeros_like(t[1:])]) for t in tangent)
    for full, first in zip(d.fisher(tangent), d.fisher(only_first), strict=True):
        assert torch.allclose(full[:1], first[:1], rtol=1e-13)
        assert (first[1:] == 0).all()


def repeated(d: Distribution, times: int) -> Distribution:
    """Row 0 of d, so often."""
    return like(d, *(c[:1].expand(times, -1) for c in d.params))


@discrete
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_have_the_frequency_of_their_probability(make: Make, seed: int) -> None:
    """Pearson's χ² over all joint actions: its mean is their number less one, its variance twice that."""
    n = 40_000
    d = repeated(make(seed), n)
    samples = d.sample(torch.Generator().manual_seed(seed)).view(n, -1)
    statistic, cells = 0.0, 0
    for action in all_actions(make(seed, rows=1)):
        expected = n * float(make(seed).log_prob(action.repeat_interleave(ROWS, 0))[0].exp())
        seen = int((samples == action.view(1, -1)).all(-1).sum())
        statistic += (seen - expected) ** 2 / expected
        cells += 1
    freedom = cells - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gaussian_samples_have_its_moments(seed: int) -> None:
    n = 40_000
    d = repeated(gaussian(seed), n)
    assert isinstance(d, DiagonalGaussian)
    z = (d.sample(torch.Generator().manual_seed(seed)) - d.mean[0]) / d.log_std[0].exp()
    bound = 5 / math.sqrt(n)
    assert z.mean(0).abs().max() < bound
    second = z.T @ z / n  # 1 on the diagonal with variance 2 / n; 0 beside it: components are independent
    assert (second - torch.eye(3, dtype=torch.float64)).abs().max() < math.sqrt(2) * bound
    for quantile in (-1.0, 0.5, 2.0):
        share = 0.5 * (1 + math.erf(quantile / math.sqrt(2)))
        assert ((z < quantile).double().mean(0) - share).abs().max() < bound


@every
def test_every_row_is_sampled_from_its_own_distribution(make: Make) -> None:
    d = make(0)
    assert len({tuple(row.tolist()) for row in d.params[0]}) == ROWS
    generator = torch.Generator().manual_seed(0)
    samples = [d.sample(generator) for _ in range(3000)]
    surprise = -torch.stack([d.log_prob(a) for a in samples])
    error = surprise.std(0) / math.sqrt(len(samples))
    assert ((surprise.mean(0) - d.entropy()).abs() < 5 * error).all()


@every
def test_noise_of_many_steps_is_drawn_at_once_and_made_into_actions_step_by_step(make: Make) -> None:
    """A step's noise holds all that is random in it; other coordinates make other actions of the same noise."""
    d, steps = make(0), 3000
    noise = d.noise(steps, torch.Generator().manual_seed(0))
    assert noise.shape[:2] == (steps, ROWS)
    samples = torch.stack([d.sampled(part) for part in noise])
    assert torch.equal(samples, torch.stack([d.sampled(part) for part in noise]))
    assert torch.equal(samples[7], d.rows(torch.arange(ROWS)).sampled(noise[7]))
    surprise = -torch.stack([d.log_prob(a) for a in samples])
    error = surprise.std(0) / math.sqrt(steps)
    assert ((surprise.mean(0) - d.entropy()).abs() < 5 * error).all()
    # Steps, and rows, are independent: so are the surprises of neighbours.
    z = (surprise - surprise.mean(0)) / surprise.std(0)
    assert ((z[1:] * z[:-1]).mean(0).abs() < 5 / math.sqrt(steps)).all()
    assert ((z * z.roll(1, 1)).mean(0).abs() < 5 / math.sqrt(steps)).all()
    other = make(1)
    assert torch.equal(other.noise(steps, torch.Generator().manual_seed(0)), noise)
    surprise = -torch.stack([other.log_prob(other.sampled(part)) for part in noise])
    error = surprise.std(0) / math.sqrt(steps)
    assert ((surprise.mean(0) - other.entropy()).abs() < 5 * error).all()


@every
def test_a_sample_is_made_of_the_noise_of_one_step(make: Make) -> None:
    d = make(0)
    noise = d.noise(1, torch.Generator().manual_seed(3))
    assert torch.equal(d.sample(torch.Generator().manual_seed(3)), d.sampled(noise[0]))


@every
def test_the_same_generator_state_gives_the_same_sample(make: Make) -> None:
    d, generator = make(0, rows=200), torch.Generator().manual_seed(5)
    first, second = d.sample(generator), d.sample(generator)
    assert torch.equal(first, d.sample(torch.Generator().manual_seed(5)))
    assert not torch.equal(first, second)


@every
def test_sampling_leaves_the_global_random_stream_alone(make: Make) -> None:
    before = torch.get_rng_state()
    make(0).sample(torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@every
def test_samples_look_like_actions(make: Make) -> None:
    d = make(0)
    action = d.sample(torch.Generator().manual_seed(0))
    assert action.shape == d.mode().shape
    assert action.dtype == d.mode().dtype
    assert action.is_floating_point() == isinstance(d, DiagonalGaussian | SquashedGaussian)


@pytest.mark.parametrize(
    "make", [categorical, multi_categorical, gaussian]
)  # a squashed one gives its median
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_action_is_more_probable_than_the_mode(make: Make, seed: int) -> None:
    d, generator = make(seed), torch.Generator().manual_seed(seed)
    at_mode = d.log_prob(d.mode())
    others = [d.sample(generator) for _ in range(50)] if make is gaussian else all_actions(d)
    log_probs = torch.stack([d.log_prob(a) for a in others])
    assert (log_probs <= at_mode).all()
    if make is not gaussian:
        assert torch.equal(log_probs.max(0).values, at_mode)


@pytest.mark.parametrize("make", [categorical, multi_categorical, gaussian])
def test_the_executed_action_is_the_sampled_one(make: Make) -> None:
    action = make(0).sample(torch.Generator().manual_seed(0))
    assert make(1).executed(action) is action


@every
def test_detach_keeps_the_numbers_and_cuts_the_graph(make: Make) -> None:
    d = make(0)
    for coordinate in d.params:
        coordinate.requires_grad_()
    detached = d.detach()
    assert type(detached) is type(d)
    for mine, theirs in zip(d.params, detached.params, strict=True):
        assert torch.equal(mine, theirs)
        assert not theirs.requires_grad
    assert d.entropy().requires_grad and not detached.entropy().requires_grad


@every
def test_rows_are_the_distributions_at_those_observations(make: Make) -> None:
    d, index = make(0), torch.tensor([4, 0, 4])
    action = d.sample(torch.Generator().manual_seed(0))
    some = d.rows(index)
    assert type(some) is type(d)
    assert torch.equal(some.log_prob(action[index]), d.log_prob(action)[index])
    assert torch.equal(some.entropy(), d.entropy()[index])


@discrete
def test_adding_a_constant_to_the_logits_changes_nothing(make: Make) -> None:
    d, shifted = make(0), make(0)
    shifted.params[0].add_(7.0)
    assert torch.allclose(d.entropy(), shifted.entropy(), rtol=1e-12)
    assert torch.allclose(d.kl(shifted), torch.zeros(ROWS, dtype=torch.float64), atol=1e-12)


def test_a_multi_categorical_of_one_part_is_a_categorical() -> None:
    p, q = categorical(0), categorical(1)
    one, other = MultiCategorical(p.logits, (5,)), MultiCategorical(q.logits, (5,))
    action = p.sample(torch.Generator().manual_seed(0))
    assert torch.equal(one.sample(torch.Generator().manual_seed(0)).squeeze(-1), action)
    assert torch.equal(one.log_prob(action.unsqueeze(-1)), p.log_prob(action))
    assert torch.equal(one.entropy(), p.entropy())
    assert torch.equal(one.kl(other), p.kl(q))


def with_impossible_actions() -> tuple[Categorical, Categorical]:
    p, q = categorical(0), categorical(1)
    p.logits[:, 2] = q.logits[:, 2] = -math.inf
    p.logits[:, 4] = -math.inf  # impossible under p alone
    return p, q


def test_an_impossible_action_keeps_entropy_kl_and_fisher_finite() -> None:
    p, q = with_impossible_actions()
    possible = [0, 1, 3]
    assert torch.allclose(p.entropy(), Categorical(p.logits[:, possible]).entropy(), rtol=1e-12)
    assert torch.allclose(q.entropy(), Categorical(q.logits[:, [0, 1, 3, 4]]).entropy(), rtol=1e-12)
    log_p, log_q = p.logits.log_softmax(-1)[:, possible], q.logits.log_softmax(-1)[:, possible]
    assert torch.allclose(p.kl(q), (log_p.exp() * (log_p - log_q)).sum(-1), rtol=1e-12)
    assert (p.kl(p) == 0).all()
    (metric,) = p.fisher((normal(2, ROWS, 5),))
    assert metric.isfinite().all()
    assert (metric[:, [2, 4]] == 0).all()


def test_the_kl_to_a_distribution_that_excludes_what_this_one_does_is_infinite() -> None:
    p, q = with_impossible_actions()
    assert torch.isposinf(q.kl(p)).all()


def test_an_impossible_action_is_never_sampled_and_never_the_mode() -> None:
    p, _ = with_impossible_actions()
    samples = repeated(p, 20_000).sample(torch.Generator().manual_seed(0))
    assert set(samples.tolist()) == {0, 1, 3}
    assert not set(p.mode().tolist()) & {2, 4}
    assert torch.isneginf(p.log_prob(torch.full((ROWS,), 2))).all()


def test_an_impossible_action_keeps_the_gradient_of_the_entropy_finite() -> None:
    p, _ = with_impossible_actions()
    p.logits.requires_grad_()
    (gradient,) = torch.autograd.grad(p.entropy().sum(), p.logits)
    assert gradient.isfinite().all()


@every
def test_float32_stays_float32(make: Make) -> None:
    d = make(0)
    d32 = like(d, *(c.float() for c in d.params))
    action = d32.sample(torch.Generator().manual_seed(0))
    if action.is_floating_point():
        assert {action.dtype, d32.executed(action).dtype} == {torch.float32}
    assert {d32.log_prob(action).dtype, d32.entropy().dtype, d32.kl(d32).dtype} == {torch.float32}
