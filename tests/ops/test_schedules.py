"""Every schedule falls from 1 and stays in [0, 1]."""

import math

import pytest

from pgx.ops.schedules import SCHEDULES

PROGRESS = [k / 20 for k in range(21)]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_schedule_starts_at_1_and_never_rises(name: str) -> None:
    factors = [SCHEDULES[name](p) for p in PROGRESS]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert all(0.0 <= factor <= 1.0 for factor in factors)


def test_constant_stays_at_1() -> None:
    assert {SCHEDULES["constant"](p) for p in PROGRESS} == {1.0}


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_linear_and_cosine_end_at_0_and_are_symmetric(name: str) -> None:
    schedule = SCHEDULES[name]
    assert schedule(1.0) == 0.0
    assert schedule(0.5) == pytest.approx(0.5)
    for p in PROGRESS:
        assert schedule(p) + schedule(1 - p) == pytest.approx(1.0)


def test_linear_falls_evenly_and_cosine_is_flat_at_both_ends() -> None:
    linear, cosine = SCHEDULES["linear"], SCHEDULES["cosine"]
    assert linear(0.3) == pytest.approx(0.7)
    assert cosine(1 / 3) == pytest.approx(0.75)  # (1 + cos 60°) / 2
    step = 1e-4
    assert math.isclose(cosine(step), 1.0, abs_tol=step / 10)
    assert math.isclose(cosine(1 - step), 0.0, abs_tol=step / 10)


def test_inverse_sqrt_falls_like_one_over_the_root_of_time() -> None:
    schedule = SCHEDULES["inverse_sqrt"]
    assert schedule(1.0) == pytest.approx(0.1)
    for p in PROGRESS:
        assert schedule(p) ** -2 == pytest.approx(1 + 99 * p)
