"""Laws of the statistics over seeds, and comparison with scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgx.analysis.statistics import (
    Array,
    Resampling,
    estimate,
    interval,
    iqm,
    mean,
    median,
    permutation_test,
    probability_of_improvement,
    profile,
    seeds_to_separate,
    value,
)

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOW = Resampling(resamples=500, level=0.95, seed=0)
scores = st.lists(st.integers(-50, 50), min_size=2, max_size=9).map(lambda v: np.asarray(v, dtype=np.float64))


def drawn(*sizes: int, seed: int = 0, shift: float = 0.0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.normal(shift + 10.0 * m, 1.0 + m, size) for m, size in enumerate(sizes)]


@RELAXED
@given(scores)
def test_the_interquartile_mean_is_scipy_s_trimmed_mean(x: Array) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert value([x], iqm) == pytest.approx(stats.trim_mean(x, 0.25), abs=1e-9)


def test_the_interquartile_mean_of_known_scores() -> None:
    assert value([np.array([1000.0, 1.0, 2.0, 4.0, -1000.0])], iqm) == pytest.approx((1 + 2 + 4) / 3)
    assert value([np.array([1.0, 2.0, 9.0])], iqm) == 4.0  # of three the quarter is none
    # All environments' runs together: the lowest two and the highest two of eight are left out.
    assert value([np.array([0.0, 1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0, 70.0])], iqm) == 3.5


def test_the_median_over_environments_or_over_runs() -> None:
    assert value([np.array([0.0, 1.0, 50.0])], median) == 1.0
    strata = [np.array([0.0, 2.0]), np.array([10.0, 12.0]), np.array([300.0, 500.0])]
    assert value(strata, median) == 11.0
    assert value(strata, mean) == pytest.approx((1 + 11 + 400) / 3)


@pytest.mark.parametrize("statistic", [iqm, mean, median])
@RELAXED
@given(x=scores, y=scores, factor=st.sampled_from([0.5, 2.0, 8.0]), shift=st.integers(-20, 20))
def test_estimates_shift_and_scale_with_the_scores(statistic, x, y, factor, shift) -> None:  # type: ignore[no-untyped-def]
    before, after = (estimate(s, statistic, HOW) for s in ([x, y], [factor * x + shift, factor * y + shift]))
    for name in ("value", "low", "high"):
        assert getattr(after, name) == pytest.approx(factor * getattr(before, name) + shift, abs=1e-6)


@RELAXED
@given(x=scores, y=scores, order=st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(x, y, order) -> None:  # type: ignore[no-untyped-def]
    other = list(x)
    order.shuffle(other)
    assert estimate([x, y], iqm, HOW) == estimate([np.array(other), y], iqm, HOW)
    assert probability_of_improvement([x], [y], HOW) == probability_of_improvement(
        [np.array(other)], [y], HOW
    )


def test_the_interval_of_a_curve_is_pointwise() -> None:
    (x,) = drawn(6)
    low, high = interval([np.stack([x, 2 * x, 7 + 0 * x], axis=1)], iqm, HOW)
    alone = estimate([x], iqm, HOW)
    assert (low[0], high[0]) == (alone.low, alone.high)
    assert (low[1], high[1]) == pytest.approx((2 * low[0], 2 * high[0]))
    assert low[2] == high[2] == 7


def test_runs_are_resampled_within_their_environment() -> None:
    """With very different environments, resampling across them would spread the mean between 0 and 1000."""
    found = estimate([np.zeros(5), np.full(5, 1000.0)], mean, HOW)
    assert (found.low, found.value, found.high) == (500.0, 500.0, 500.0)


def test_environments_have_equal_weight_for_any_number_of_runs() -> None:
    assert value([np.zeros(9), np.array([6.0])], mean) == 3.0
    assert value(profile([np.zeros(9), np.array([6.0])], np.array([0.0, 1.0])), mean).tolist() == [0.5, 0.5]


def test_one_run_has_no_interval() -> None:
    found = estimate([np.array([3.0]), np.array([1.0, 2.0])], iqm, HOW)
    assert found.low is None and found.high is None


@pytest.mark.parametrize("draw", [lambda g, n: g.normal(0.0, 1.0, n), lambda g, n: g.uniform(-1.0, 1.0, n)])
def test_intervals_have_the_stated_coverage(draw) -> None:  # type: ignore[no-untyped-def]
    """95% for 30 runs of distributions symmetric about 0; far less for 3 runs."""

    def coverage(runs: int) -> float:
        generator = np.random.default_rng(1)
        hits = 0
        for seed in range(400):
            found = estimate([draw(generator, runs)], iqm, Resampling(300, 0.95, seed))
            assert found.low is not None and found.high is not None
            hits += found.low <= 0 <= found.high
        return hits / 400

    assert 0.90 <= coverage(30) <= 0.98
    assert coverage(3) < 0.85


@RELAXED
@given(scores, scores)
def test_probabilities_of_improvement_are_complementary(x: Array, y: Array) -> None:
    there, back = probability_of_improvement([x], [y], HOW), probability_of_improvement([y], [x], HOW)
    assert there.value + back.value == pytest.approx(1.0)
    assert 0.0 <= there.value <= 1.0
    assert there.low is not None and there.high is not None and 0 <= there.low <= there.high <= 1
    assert probability_of_improvement([x], [x], HOW).value == 0.5


@RELAXED
@given(scores, scores)
def test_improvement_equals_scipy_s_u_over_all_pairs(x: Array, y: Array) -> None:
    stats = pytest.importorskip("scipy.stats")
    u = stats.mannwhitneyu(x, y, alternative="greater").statistic
    assert probability_of_improvement([x], [y], HOW).value == pytest.approx(u / (len(x) * len(y)))


def test_improvement_is_averaged_over_environments_and_never_across_them() -> None:
    x, y = [np.array([1.0, 2.0]), np.array([0.0, 0.0])], [np.array([0.0, 0.0]), np.array([9.0, 9.0])]
    assert probability_of_improvement(x, y, HOW).value == 0.5


@RELAXED
@given(scores, scores)
def test_profiles_fall_from_one_to_zero_and_integrate_to_the_mean(x: Array, y: Array) -> None:
    low, high = min(x.min(), y.min()) - 1, max(x.max(), y.max()) + 1
    thresholds = np.linspace(low, high, 4001)
    shares = value(profile([x, y], thresholds), mean)
    assert shares[0] == 1 and shares[-1] == 0
    assert (np.diff(shares) <= 1e-12).all()
    area = float(((shares[1:] + shares[:-1]) / 2 * np.diff(thresholds)).sum())
    assert low + area == pytest.approx(float(value([x, y], mean)), abs=(high - low) / 1000)


def test_the_permutation_test_of_known_scores() -> None:
    """Two of the six permutations separate the groups as far as the observed one."""
    x, y = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    assert permutation_test([x], [y], draws=100, seed=0) == pytest.approx(2 / 6)
    assert permutation_test([x], [x], draws=100, seed=0) == 1.0
    three = np.arange(3.0)
    assert permutation_test([three], [three + 100], draws=100, seed=0) == pytest.approx(0.1)


def test_the_permutation_test_over_environments_approximates_all_permutations() -> None:
    x, y = drawn(3, 2, seed=3), drawn(2, 3, seed=4, shift=1.0)
    seen = abs(np.mean([a.mean() - b.mean() for a, b in zip(x, y, strict=True)]))
    gaps = []
    for a, b in zip(x, y, strict=True):
        pooled = np.concatenate([a, b])
        ways = [list(c) for c in itertools.combinations(range(len(pooled)), len(a))]
        gaps.append([pooled[c].mean() - np.delete(pooled, c).mean() for c in ways])
    means = [abs(sum(both) / 2) for both in itertools.product(*gaps)]
    exact = float(np.mean([m >= seen - 1e-9 for m in means]))
    assert permutation_test(x, y, draws=20_000, seed=0) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("draws", [1, 40])
def test_p_is_never_0(draws: int) -> None:
    """The observed permutation counts even if no random one separates the groups as far."""
    x = [np.arange(8.0), np.arange(8.0)]
    far = [1000.0 + scores for scores in x]
    assert (
        permutation_test(x, far, draws, seed=0) == permutation_test(far, x, draws, seed=0) == 1 / (1 + draws)
    )
    assert permutation_test(x[:1], far[:1], draws, seed=0) == 1 / (1 + draws)


def test_equal_groups_are_rarely_separated() -> None:
    generator = np.random.default_rng(0)
    p = [
        permutation_test([generator.normal(size=5)], [generator.normal(size=5)], draws=300, seed=0)
        for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.08
    assert 0.4 < np.mean(p) < 0.62


def test_the_number_of_seeds_has_the_stated_power() -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = np.array([-1.0, 0.0, 1.0]), np.array([0.2, 1.2, 2.2])  # a difference of 1.2 standard deviations
    runs = seeds_to_separate(x, y, alpha=0.05, power=0.8)
    assert runs is not None
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.0, 1.0, (4000, runs)), generator.normal(1.2, 1.0, (4000, runs))
    power = np.mean(stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue <= 0.05)
    assert 0.78 <= power <= 0.86


def test_seeds_fall_with_the_square_of_the_difference() -> None:
    x = np.array([-1.0, 0.0, 1.0])
    few, many = (seeds_to_separate(x, x + gap, alpha=0.05, power=0.8) for gap in (0.2, 0.1))
    assert few is not None and many is not None
    assert many == pytest.approx(4 * few, rel=0.02)
    assert seeds_to_separate(x, 5 * x + 50, 0.05, 0.8) == seeds_to_separate(
        100 * x, 500 * x + 5000, 0.05, 0.8
    )
    assert seeds_to_separate(x, x, alpha=0.05, power=0.8) is None
    assert seeds_to_separate(0 * x, 0 * x + 1, alpha=0.05, power=0.8) == 2
