"""Each term obeys the law in its docstring, and heights and tilts of robots equal those of the simulator."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgx.core.paths import config_choices
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.rewards.terms import (
    QUANTITIES,
    TERMS,
    TORSO_LAYOUTS,
    air_time,
    alive,
    backward_velocity,
    energy,
    forward_velocity,
    height,
    is_quantity,
    smoothness,
    target_speed,
    torso,
    upright,
)

SPEEDS = np.linspace(-4.0, 4.0, 33)


def test_every_term_takes_a_quantity_and_has_a_docstring() -> None:
    for term in TERMS.values():
        assert any(map(is_quantity, inspect.signature(term).parameters)) and inspect.getdoc(term)
    assert all("[N" in quantity.meaning for quantity in QUANTITIES.values())


def test_the_page_has_every_term_quantity_and_reward() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()
    for name in [*TERMS, *QUANTITIES, *config_choices("reward"), *TORSO_LAYOUTS]:
        assert re.search(rf"\b{name}\b", page), name


def test_backward_velocity_is_minus_forward_velocity() -> None:
    assert (backward_velocity(SPEEDS) == -forward_velocity(SPEEDS)).all()


@given(st.floats(-3.0, 3.0), st.floats(0.1, 2.0))
def test_target_speed_is_one_at_the_target_and_1_e_at_the_tolerance(speed: float, tolerance: float) -> None:
    at = np.array([speed, speed - tolerance, speed + tolerance])
    assert np.allclose(target_speed(at, speed, tolerance), [1.0, math.exp(-1), math.exp(-1)])
    paid = target_speed(np.sort(SPEEDS + speed), speed, tolerance)
    assert paid.argmax() == 16 and (np.diff(paid[:17]) >= 0).all() and (np.diff(paid[16:]) <= 0).all()


def test_energy_is_quadratic_and_a_constant_action_is_smooth() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 6))
    assert np.allclose(energy(3.0 * a), 9.0 * energy(a)) and (energy(a) > 0).all()
    assert np.allclose(energy(a), np.linalg.norm(a, axis=1) ** 2)
    assert (smoothness(a, a) == 0).all() and (smoothness(a, b) < 0).all()
    assert np.allclose(smoothness(a, a + 2.0 * (b - a)), 4.0 * smoothness(a, b))


def test_air_time_grows_to_one() -> None:
    paid = air_time(np.array([0.0, 0.1, 0.2, 0.4, 9.0]), longest=0.4)
    assert np.allclose(paid, [0.0, 0.25, 0.5, 1.0, 1.0])


def test_height_upright_and_alive() -> None:
    assert (alive(np.array([False, True])) == [1.0, 0.0]).all()
    assert np.allclose(height(np.array([1.0, 1.5]), above=1.25), [-0.25, 0.25])
    assert (upright(np.array([1.0, -1.0])) == [1.0, -1.0]).all()


def shown_and_true(env: "gymnasium.Env[Any, Any]", rng: np.random.Generator) -> tuple[Any, float, float]:
    """Return an observation in a random position, and the simulator's height and uprightness of the torso."""
    env.reset(seed=0)
    bare: Any = env.unwrapped
    qpos = rng.normal(size=bare.model.nq)
    bare.set_state(qpos, np.zeros(bare.model.nv))
    mujoco.mj_normalizeQuat(bare.model, bare.data.qpos)
    mujoco.mj_forward(bare.model, bare.data)
    body = bare.data.body("torso")
    return bare._get_obs(), float(body.xpos[2]), float(body.xmat[8])


@pytest.mark.parametrize("robot", TORSO_LAYOUTS)
@pytest.mark.parametrize(
    ("version", "kwargs"),
    [("v4", {}), ("v5", {}), ("v5", {"exclude_current_positions_from_observation": False})],
)
def test_height_and_tilt_equal_those_of_the_simulator(
    robot: str, kwargs: dict[str, Any], version: str
) -> None:
    env_id, rng = f"{robot}-{version}", np.random.default_rng(3)
    env = make_single(env_id, kwargs)
    for _ in range(5):
        obs, high, up = shown_and_true(env, rng)
        found_high, found_up = torso(env_id, kwargs, obs[np.newaxis])
        assert np.allclose([found_high[0], found_up[0]], [high, up], atol=1e-6)
    env.close()
