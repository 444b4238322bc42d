"""Conversion of spaces: bounds, starts and dtypes of observations and actions."""

import numpy as np
from gymnasium import spaces as gym_spaces

from pgx.core.specs import Continuous, Discrete, MultiDiscrete
from pgx.envs import spaces


def test_continuous_actions_are_clipped_to_each_component_s_own_bounds() -> None:
    low, high = np.array([-1.0, -2.0, 0.0], np.float32), np.array([1.0, 3.0, 0.5], np.float32)
    spec, write = spaces.action_spec("test", gym_spaces.Box(low, high))
    assert spec == Continuous((3,), low=(-1.0, -2.0, 0.0), high=(1.0, 3.0, 0.5))
    taken = write(np.array([[-9.0, -9.0, -9.0], [9.0, 9.0, 9.0], [0.25, 2.5, 0.25]]))
    assert taken.dtype == np.float32 and np.array_equal(taken, [low, high, [0.25, 2.5, 0.25]])


def test_actions_of_any_shape_are_flat_for_a_policy() -> None:
    spec, write = spaces.action_spec("test", gym_spaces.Box(-1.0, 1.0, (2, 2)))
    assert isinstance(spec, Continuous) and spec.shape == (4,)
    assert write(np.arange(8.0).reshape(2, 4) / 10).shape == (2, 2, 2)


def test_discrete_numbers_start_at_0_in_rollouts_and_at_the_space_s_start_outside() -> None:
    spec, write = spaces.action_spec("test", gym_spaces.Discrete(4, start=-1))
    assert spec == Discrete(4) and write(np.array([0, 3])).tolist() == [-1, 2]
    several, write = spaces.action_spec("test", gym_spaces.MultiDiscrete([2, 3], start=[5, 7]))
    assert several == MultiDiscrete((2, 3)) and write(np.array([[0, 0], [1, 2]])).tolist() == [[5, 7], [6, 9]]
    shown, read = spaces.observation_spec("test", gym_spaces.Discrete(3, start=5))
    assert shown == Discrete(3) and read(np.array([5, 7])).tolist() == [0, 2]
