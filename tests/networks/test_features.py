"""Feature maps: what they span, what they are orthogonal to, how many they are, and where they end."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgx.core.errors import UserError
from pgx.core.specs import Continuous, Discrete, Image
from pgx.networks.linear import (
    _limit,
    fourier_features,
    linear_features,
    polynomial_features,
    random_fourier_features,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(rows: int, numbers: int) -> Tensor:
    return torch.rand(rows, numbers, generator=stream(1)) * 2 - 1


def random_map(numbers: int, count: int, seed: int = 0, length_scale: float = 1.0) -> nn.Module:
    return random_fourier_features("policy", Continuous((numbers,)), count, length_scale, stream(seed))[0]


def midpoints(cells: int, scale: float) -> Tensor:
    """The midpoints of equal cells of [-scale, scale]: the quadrature that is exact for cosines below `cells`."""
    return ((torch.arange(cells) + 0.5) / cells * 2 - 1) * scale


# --- plain ---


def test_discrete_observations_are_unit_vectors_without_a_constant() -> None:
    phi, count = linear_features("policy", Discrete(4))
    assert count == 4
    assert torch.equal(phi(torch.tensor([2, 0])), torch.eye(4)[[2, 0]])


def test_continuous_observations_are_flattened_in_order_after_a_constant() -> None:
    phi, count = linear_features("policy", Continuous((2, 3)))
    x = torch.randn(5, 2, 3, generator=stream())
    assert count == 7
    assert torch.equal(phi(x), torch.cat([torch.ones(5, 1), x.flatten(1)], 1))


def test_images_are_scaled_to_the_unit_interval() -> None:
    phi, count = linear_features("policy", Image((2, 2, 1)))
    pixels = torch.tensor([[[[0], [255]], [[51], [102]]]], dtype=torch.uint8)
    assert count == 5
    torch.testing.assert_close(phi(pixels), torch.tensor([[1.0, 0.0, 1.0, 0.2, 0.4]]))


# --- polynomial ---


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("numbers", [1, 2, 3])
def test_polynomials_of_the_degree_are_in_the_span_and_of_the_next_are_not(numbers: int, degree: int) -> None:
    """Products of d affine functions are fitted exactly by least squares, products of d + 1 are not."""
    x = points(400, numbers).double()
    phi, count = polynomial_features("policy", Continuous((numbers,)), degree)
    features = phi(x)
    assert features.shape == (400, count)
    assert count == math.comb(numbers + degree, degree) == int(torch.linalg.matrix_rank(features))
    for factors, inside in ((degree, True), (degree + 1, False)):
        weights = torch.randn(numbers, factors, generator=stream(2), dtype=torch.float64)
        target = (x @ weights + 0.5).prod(-1)
        fit = torch.linalg.lstsq(features, target.unsqueeze(-1)).solution
        worst = float((features @ fit - target.unsqueeze(-1)).abs().max())
        assert worst < 1e-9 if inside else worst > 1e-3


def test_a_polynomial_of_degree_one_is_the_plain_map() -> None:
    x = points(7, 3)
    assert torch.equal(
        polynomial_features("policy", Continuous((3,)), 1)[0](x),
        linear_features("policy", Continuous((3,)))[0](x),
    )


# --- fourier ---


@pytest.mark.parametrize("numbers", [1, 2])
def test_fourier_features_are_orthogonal_over_the_cube(numbers: int) -> None:
    """∫ cos(π c·u) cos(π c'·u) du over the unit cube, by quadrature: the squashing is linear and its ends are ±scale.

    In one dimension 1 for the constant, ½ for the others, 0 between two. In two the sines that make cos(π c·u) out of
    products leave something between frequencies that differ oddly in both: the products' own integrals are the law.
    """
    order, scale, cells = 4, 2.5, 64
    phi, count = fourier_features("policy", Continuous((numbers,)), order, scale)
    axis = midpoints(cells, scale)
    grid = axis.unsqueeze(-1) if numbers == 1 else torch.cartesian_prod(axis, axis)
    features = phi(grid).double()
    gram = features.T @ features / len(grid)
    assert count == (order + 1) ** numbers
    if numbers == 1:
        torch.testing.assert_close(
            gram, torch.diag(torch.tensor([1.0] + 4 * [0.5])).double(), atol=1e-6, rtol=0
        )
        return
    frequencies = torch.cartesian_prod(torch.arange(order + 1), torch.arange(order + 1))

    def mean_of_cosine(c: Tensor) -> float:
        """∫ cos(π c·u) du = Re Π_j ∫ exp(iπ c_j u_j) du_j."""
        product = 1 + 0j
        for k in c.tolist():
            product *= 1 if k == 0 else complex(0, (1 - (-1) ** abs(k)) / (math.pi * k))
        return product.real

    expected = torch.tensor(
        [[(mean_of_cosine(c - d) + mean_of_cosine(c + d)) / 2 for d in frequencies] for c in frequencies]
    )
    torch.testing.assert_close(gram.float(), expected, atol=1e-3, rtol=0)


def test_fourier_features_are_cosines_of_the_squashed_observation() -> None:
    phi, _ = fourier_features("policy", Continuous((2,)), 2, scale=4.0)
    x = torch.tensor([[-4.0, 4.0], [0.0, 2.0], [-1.0, 3.0]])
    u = (x + 4) / 8
    expected = [(math.pi * (a * u[:, 0] + b * u[:, 1])).cos() for a in range(3) for b in range(3)]
    torch.testing.assert_close(phi(x), torch.stack(expected, -1))


def test_fourier_features_stand_still_beyond_the_scale() -> None:
    phi, _ = fourier_features("policy", Continuous((1,)), 5, scale=2.0)
    at_the_ends, beyond = phi(torch.tensor([[-2.0], [2.0]])), phi(torch.tensor([[-9.0], [100.0]]))
    assert torch.equal(at_the_ends, beyond)
    assert not torch.allclose(phi(torch.tensor([[1.9]])), at_the_ends[1:])


# --- random fourier ---


@pytest.mark.parametrize("length_scale", [0.5, 2.0])
def test_inner_products_tend_to_the_gaussian_kernel_as_one_over_the_root_of_their_number(
    length_scale: float,
) -> None:
    x = points(12, 3) * length_scale
    kernel = (-torch.cdist(x, x).square() / (2 * length_scale**2)).exp()
    errors = []
    for count in (64, 1024, 16384):
        squares = []
        for seed in range(8):
            features = random_map(3, count, seed, length_scale)(x)
            squares.append((features @ features.T - kernel).square().mean())
        errors.append(float(torch.stack(squares).mean().sqrt()))
    # Each product is a mean of `count` terms 2 cos cos, of variance 1/2 at least on the diagonal and 3/2 at most.
    for count, error in zip((64, 1024, 16384), errors, strict=True):
        assert 0.3 < error * math.sqrt(count) < 1.5
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_a_random_feature_has_mean_zero_everywhere() -> None:
    """Phases are uniform over a whole turn: E_b[√2 cos(ω x + b)] = 0 even where ω x = 0; within 5 standard errors."""
    count = 100_000
    at_zero = random_map(3, count)(torch.zeros(1, 3)) * math.sqrt(count)
    assert abs(float(at_zero.mean())) < 5 / math.sqrt(count)
    through_a_quarter_turn = (random_map(3, count)[-1].phases + math.pi / 2).cos() * math.sqrt(2)
    assert abs(float(through_a_quarter_turn.mean())) < 5 / math.sqrt(count)


def test_random_features_come_from_the_given_stream_alone() -> None:
    x, before = points(5, 3), torch.get_rng_state()
    first, again, other = (random_map(3, 20, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_random_features_are_part_of_the_saved_state_and_those_of_a_formula_are_not() -> None:
    x = points(5, 3)
    saved, fresh = random_map(3, 20, seed=0), random_map(3, 20, seed=1)
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(saved(x), fresh(x))
    assert not fourier_features("policy", Continuous((3,)), 2, 1.0)[0].state_dict()
    assert not polynomial_features("policy", Continuous((3,)), 2)[0].state_dict()


# --- all ---


def test_nothing_in_a_feature_map_is_learned() -> None:
    vector = Continuous((3,))
    maps = [
        linear_features("policy", vector),
        linear_features("policy", Discrete(3)),
        polynomial_features("policy", vector, 2),
        fourier_features("policy", vector, 2, 1.0),
        random_fourier_features("policy", vector, 10, 1.0, stream()),
    ]
    assert not any(list(phi.parameters()) for phi, _ in maps)


def test_too_many_features_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        UserError, match=r"critic\.order=1: .*\(1 \+ 1\)\^17 = 131,072 features.*critic=random_fourier"
    ):
        fourier_features("critic", Continuous((17,)), 1, 1.0)
    with pytest.raises(UserError, match=r"policy\.degree=2: .*\(500 \+ 2 choose 2\) = 125,751 features"):
        polynomial_features("policy", Continuous((500,)), 2)
    with pytest.raises(UserError, match=r"policy=linear: 100,801 features; the limit is 100,000"):
        linear_features("policy", Image((210, 160, 3)))
    with pytest.raises(
        UserError, match=r"more than 10\^15 features"
    ):  # Python refuses to write out so many digits
        _limit("", 10**5000, "")


def test_discrete_observations_are_refused_where_numbers_are_needed() -> None:
    for make in (
        lambda: polynomial_features("policy", Discrete(16), 2),
        lambda: fourier_features("policy", Discrete(16), 2, 1.0),
        lambda: random_fourier_features("policy", Discrete(16), 5, 1.0, stream()),
    ):
        with pytest.raises(UserError, match=r"policy=\w+: .*16 discrete ones; policy=tabular, linear or mlp"):
            make()
