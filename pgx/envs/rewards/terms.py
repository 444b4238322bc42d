"""Terms of a reward, and the quantities that they may use.

A term is a function of N steps that returns N numbers. Its parameters with the name of a quantity come from the step,
the others from the config. Functions of users (`function: my_module.my_term`) follow the same rules.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgx.core.schema import Positive, nearest
from pgx.envs.vector import AnyArray

_INFO_PREFIX = "info_"  # a parameter info_KEY is info["KEY"]


@dataclass(frozen=True)
class Quantity:
    """Quantity of a step that a term may take as a parameter.

    Args:
        meaning: shape, unit and definition for N environments.
        signal: signal that the backend must read for it; None: the results of a step suffice.
        needs_torso_layout: whether it is read from the observation, which needs its layout (`TORSO_LAYOUTS`).
    """

    meaning: str
    signal: str | None = None
    needs_torso_layout: bool = False


QUANTITIES: dict[str, Quantity] = {
    "obs": Quantity("[N, ...] observation after the step, as the environment returns it"),
    "own_reward": Quantity("[N] the environment's own reward of the step"),
    "terminated": Quantity("[N] whether the step ended the episode, except by a time limit"),
    "action": Quantity("[N, ...] as sampled by the policy; discrete actions are numbered from 0"),
    "control": Quantity("[N, A] continuous action, clipped to its bounds"),
    "previous_control": Quantity(
        "[N, A] control of the previous step; equal to control at an episode's first step"
    ),
    "torso_height": Quantity("[N] m, height of the torso's center above the ground", needs_torso_layout=True),
    "uprightness": Quantity("[N] cosine of the torso's tilt, 1 if upright", needs_torso_layout=True),
    "x_velocity": Quantity("[N] m/s, forward, mean over the step", signal="info.x_velocity"),
    "time_in_air": Quantity(
        "[N] s since a part of the robot last touched the ground", signal="simulator.flight"
    ),
    "qpos": Quantity("[N, nq] MuJoCo's positions after the step", signal="simulator.qpos"),
    "qvel": Quantity("[N, nv] MuJoCo's velocities after the step, not clipped", signal="simulator.qvel"),
}


def is_quantity(name: str) -> bool:
    """Return whether a parameter of this name comes from the step."""
    return name in QUANTITIES or name.startswith(_INFO_PREFIX)


def signal_of(name: str) -> str | None:
    """Return the signal that the backend must read for a quantity; None: none."""
    if name.startswith(_INFO_PREFIX):
        return f"info.{name.removeprefix(_INFO_PREFIX)}"
    return QUANTITIES[name].signal


def quantity_problem(name: str, env_id: str, custom_model: bool) -> str | None:
    """Return why a quantity is unavailable for an environment, as far as its id tells; None: it may be available.

    Args:
        name: of the quantity.
        env_id: of the environment.
        custom_model: whether the environment uses another model than its default.
    """
    if not name.startswith(_INFO_PREFIX) and QUANTITIES[name].needs_torso_layout:
        return _layout_problem(env_id, custom_model)
    return None


def forward_velocity(x_velocity: AnyArray) -> AnyArray:
    """Return the forward velocity [N], m/s."""
    return x_velocity


def backward_velocity(x_velocity: AnyArray) -> AnyArray:
    """Return the backward velocity [N], m/s."""
    return -x_velocity


def target_speed(x_velocity: AnyArray, speed: float, tolerance: Positive) -> AnyArray:
    """Return the closeness to a target speed, exp(-((v - speed) / tolerance)^2) [N], in (0, 1].

    Args:
        x_velocity: v [N], m/s.
        speed: target, m/s forward; 0: stay in place.
        tolerance: deviation in m/s that gives 1/e.
    """
    return np.exp(-(((x_velocity - speed) / tolerance) ** 2))


def height(torso_height: AnyArray, above: float) -> AnyArray:
    """Return the height of the torso above a reference height [N], m.

    Args:
        torso_height: [N], m above the ground.
        above: reference height, m.
    """
    return torso_height - above


def upright(uprightness: AnyArray) -> AnyArray:
    """Return the cosine of the torso's tilt [N]: 1 upright, -1 upside down."""
    return uprightness


def energy(control: AnyArray) -> AnyArray:
    """Return the sum of squared actions [N], >= 0; a negative weight makes it a cost."""
    spent: AnyArray = np.square(control).sum(axis=-1)
    return spent


def smoothness(control: AnyArray, previous_control: AnyArray) -> AnyArray:
    """Return the negative squared change of the action, - sum (a_t - a_(t-1))^2 [N]; 0 at an episode's first step."""
    changed: AnyArray = np.square(control - previous_control).sum(axis=-1)
    return -changed


def air_time(time_in_air: AnyArray, longest: Positive) -> AnyArray:
    """Return the normalized time in the air, min(t, longest) / longest [N], in [0, 1].

    Args:
        time_in_air: t [N], s since a part of the robot last touched the ground; 0 on the ground.
        longest: s from which the term is 1.
    """
    return np.minimum(time_in_air, longest) / longest


def alive(terminated: AnyArray) -> AnyArray:
    """Return 0 for a step that terminated the episode (a fall, a goal), else 1 [N]."""
    return 1.0 - terminated


TERMS: dict[str, Callable[..., AnyArray]] = {
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


@dataclass(frozen=True)
class TorsoLayout:
    """Layout of the observations of a MuJoCo robot, which begin with the position of its torso.

    Args:
        left_out: leading coordinates (the horizontal position) that the observation contains only with
            env.kwargs.exclude_current_positions_from_observation=false.
        rise: m to add to the height coordinate.
        rotation: "angle" in a plane, or "quaternion" (w, x, y, z).
    """

    left_out: int
    rise: float
    rotation: str


# The layouts are equal on all backends.
TORSO_LAYOUTS = {
    "Walker2d": TorsoLayout(1, 0.0, "angle"),
    "Hopper": TorsoLayout(1, 0.0, "angle"),
    "HalfCheetah": TorsoLayout(1, 0.7, "angle"),
    "Ant": TorsoLayout(2, 0.0, "quaternion"),
    "Humanoid": TorsoLayout(2, 0.0, "quaternion"),
    "HumanoidStandup": TorsoLayout(2, 0.0, "quaternion"),
}


def _robot(env_id: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9]+)-v\d+", env_id)
    return found[1] if found else env_id


def _layout_problem(env_id: str, custom_model: bool) -> str | None:
    """Return why the layout of an environment's observations is unknown; None: it is known."""
    robot = _robot(env_id)
    fix = "write a function that takes obs or qpos"
    if robot not in TORSO_LAYOUTS:
        known = ", ".join(TORSO_LAYOUTS)
        return f"only known for {known}{nearest(robot, TORSO_LAYOUTS)}; {fix}"
    return f"unknown for a custom model (env.kwargs.xml_file); {fix}" if custom_model else None


def torso(env_id: str, kwargs: dict[str, Any], obs: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return height (m) and cosine of the tilt of N torsos, both [N].

    Args:
        env_id: of a robot in TORSO_LAYOUTS.
        kwargs: of the environments.
        obs: [N, D] observations.
    """
    layout = TORSO_LAYOUTS[_robot(env_id)]
    first = 0 if kwargs.get("exclude_current_positions_from_observation", True) else layout.left_out
    coordinates = obs.astype(np.float64)
    if layout.rotation == "angle":
        return coordinates[:, first] + layout.rise, np.cos(coordinates[:, first + 1])
    x, y = coordinates[:, first + 2], coordinates[:, first + 3]
    return coordinates[:, first] + layout.rise, 1.0 - 2.0 * (x**2 + y**2)
