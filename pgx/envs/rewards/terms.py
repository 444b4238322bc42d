"""The terms that a reward is made of: each a function of a step's quantities, which its parameters name.

Parameters that are quantities (pgx/envs/rewards/quantities.py) come from the step, the others from the config.
A function of a user (`function: my_module.my_term`) is written the same way and may name any quantity.
"""

from collections.abc import Callable

import numpy as np

from pgx.core.schema import Positive
from pgx.envs.vector import Array


def forward_velocity(x_velocity: Array) -> Array:
    """How fast it goes forward [N], m/s."""
    return x_velocity


def backward_velocity(x_velocity: Array) -> Array:
    """How fast it goes backward [N], m/s."""
    return -x_velocity


def target_speed(x_velocity: Array, speed: float, tolerance: Positive) -> Array:
    """How near its speed is to another: exp(-((v - speed) / tolerance)^2) [N], in (0, 1].

    Args:
        x_velocity: v [N], m/s.
        speed: m/s, forward; 0: on the spot.
        tolerance: m/s by which the speed is off where it pays 1/e.
    """
    return np.exp(-(((x_velocity - speed) / tolerance) ** 2))


def height(torso_height: Array, above: float) -> Array:
    """How high its torso is [N], m above a height.

    Args:
        torso_height: [N], m above the ground.
        above: m; what pays nothing.
    """
    return torso_height - above


def upright(uprightness: Array) -> Array:
    """How upright its torso is [N]: the cosine of its tilt, 1 upright, -1 upside down."""
    return uprightness


def energy(control: Array) -> Array:
    """What its motors spend: sum of squared actions [N], >= 0; a negative weight makes it a cost."""
    spent: Array = np.square(control).sum(axis=-1)
    return spent


def smoothness(control: Array, previous_control: Array) -> Array:
    """How little its action changes: - sum (a_t - a_(t-1))^2 [N], <= 0; 0 at an episode's first step."""
    changed: Array = np.square(control - previous_control).sum(axis=-1)
    return -changed


def air_time(time_in_air: Array, longest: Positive) -> Array:
    """How long it has been in the air: min(t, longest) / longest [N], in [0, 1].

    Args:
        time_in_air: t [N], s since nothing of it touched the ground; 0 on the ground.
        longest: s; what is longer pays no more.
    """
    return np.minimum(time_in_air, longest) / longest


def alive(terminated: Array) -> Array:
    """1 for a step that did not end the episode by a fall, a goal or the like, 0 for one that did [N]."""
    return 1.0 - terminated


TERMS: dict[str, Callable[..., Array]] = {
    term.__name__: term
    for term in (
        forward_velocity,
        backward_velocity,
        target_speed,
        height,
        upright,
        energy,
        smoothness,
        air_time,
        alive,
    )
}
