"""User-defined reward terms, in a module that pgx imports by name."""

from typing import Any

import numpy as np

from pgx.core.schema import Positive
from pgx.envs.vector import AnyArray


def opposite(own_reward: AnyArray, scale: Positive) -> AnyArray:
    return -scale * own_reward


def forward(info_x_velocity: AnyArray) -> AnyArray:
    return info_x_velocity


def simulated_forward(qvel: AnyArray) -> AnyArray:
    return qvel[:, 0]


def pressed(action: AnyArray, by: float = 1.0) -> AnyArray:
    return by * action.astype(np.float64)


def one_number(obs: AnyArray) -> Any:
    return obs.sum()


def no_number(own_reward: AnyArray) -> AnyArray:
    return np.log(own_reward - own_reward.max())


def anything(*quantities: AnyArray) -> AnyArray:
    return quantities[0]


def mistaken(x_velocty: AnyArray) -> AnyArray:
    return x_velocty
