"""Terms of a user's own, in a module that pgx imports when it is named."""

from typing import Any

import numpy as np

from pgx.core.schema import Positive
from pgx.envs.vector import Array


def opposite(own_reward: Array, scale: Positive) -> Array:
    return -scale * own_reward


def forward(info_x_velocity: Array) -> Array:
    return info_x_velocity


def simulated_forward(qvel: Array) -> Array:
    return qvel[:, 0]


def pressed(action: Array, by: float = 1.0) -> Array:
    return by * action.astype(np.float64)


def one_number(obs: Array) -> Any:
    return obs.sum()


def no_number(own_reward: Array) -> Array:
    return np.log(own_reward - own_reward.max())


def anything(*quantities: Array) -> Array:
    return quantities[0]


def mistaken(x_velocty: Array) -> Array:
    return x_velocty
