"""THE table of quantities: what a term may ask of a step, and where each comes from.

The terms that a reward is made of: each a function of a step's quantities, which its parameters name.

Parameters that are quantities (pgx/envs/rewards/terms.py) come from the step, the others from the config.
A function of a user (`function: my_module.my_term`) is written the same way and may name any quantity.

Where height and tilt stand in the observations of Gymnasium's MuJoCo robots, on every backend alike.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgx.core.schema import Positive, nearest
from pgx.envs.vector import Array

INFO = "info_"  # a parameter info_KEY is info["KEY"]


@dataclass(frozen=True)
class Quantity:
    """What a parameter of a term stands for.

    Args:
        meaning: shape, unit and definition, N environments; rows in which an environment only resets are never paid.
        reading: what the backend has to read for it, see pgx/envs/results.py; None: nothing beside the step.
        of_robots: whether it is taken from observations whose layout is known of MuJoCo's robots alone.
    """

    meaning: str
    signal: str | None = None
    of_robots: bool = False


QUANTITIES: dict[str, Quantity] = {
    "obs": Quantity("[N, ...] observation that the step led to, as the environment shows it"),
    "own_reward": Quantity("[N] what the environment itself pays for the step"),
    "terminated": Quantity("[N] whether the step ended the episode other than by a limit of time"),
    "action": Quantity("[N, ...] as the policy sampled it; discrete ones from 0"),
    "control": Quantity("[N, A] a continuous action, clipped to its bounds"),
    "previous_control": Quantity("[N, A] that of the step before; at an episode's first step the same"),
    "torso_height": Quantity("[N] m above the ground, of the torso's middle", of_robots=True),
    "uprightness": Quantity("[N] cosine of the torso's tilt, 1 upright", of_robots=True),
    "x_velocity": Quantity("[N] m/s, mean of the step, forward", signal="info.x_velocity"),
    "time_in_air": Quantity("[N] s since nothing of it touched the ground", signal="simulator.flight"),
    "qpos": Quantity("[N, nq] MuJoCo's positions after the step", signal="simulator.qpos"),
    "qvel": Quantity("[N, nv] MuJoCo's velocities after the step, not clipped", signal="simulator.qvel"),
}


def is_quantity(name: str) -> bool:
    """Whether a parameter of this name comes from the step."""
    return name in QUANTITIES or name.startswith(INFO)


def signal_of(name: str) -> str | None:
    """What the backend has to read for a quantity; None: nothing beside the step."""
    return f"info.{name.removeprefix(INFO)}" if name.startswith(INFO) else QUANTITIES[name].signal


def quantity_problem(name: str, env_id: str, changed: bool) -> str | None:
    """Why an environment has no such quantity, as far as its id tells; None: it may have it.

    Args:
        name: of the quantity.
        env_id: of the environment.
        changed: whether its model is another than the one that comes with its id.
    """
    if not name.startswith(INFO) and QUANTITIES[name].of_robots:
        return layout_problem(env_id, changed)
    return None


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


@dataclass(frozen=True)
class Layout:
    """A robot whose observation begins with its torso's position, less what says how far it has come.

    Args:
        left_out: numbers at the beginning that are not shown unless env.kwargs say so.
        rise: m to add to the number that stands for its height.
        turns: how its torso turns: by one angle (in a plane) or as a quaternion (w, x, y, z).
    """

    left_out: int
    rise: float
    turns: str


LAYOUTS = {
    "Walker2d": Layout(1, 0.0, "angle"),
    "Hopper": Layout(1, 0.0, "angle"),
    "HalfCheetah": Layout(1, 0.7, "angle"),
    "Ant": Layout(2, 0.0, "quaternion"),
    "Humanoid": Layout(2, 0.0, "quaternion"),
    "HumanoidStandup": Layout(2, 0.0, "quaternion"),
}


def _robot(env_id: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9]+)-v\d+", env_id)
    return found[1] if found else env_id


def layout_problem(env_id: str, changed: bool) -> str | None:
    """Why nothing is known of an environment's observations; None: it is."""
    robot = _robot(env_id)
    instead = "a function of your own can take obs or qpos"
    if robot not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        return f"known of {known}{nearest(robot, LAYOUTS)}; elsewhere {instead}"
    return f"not known of a model of your own (env.kwargs.xml_file); {instead}" if changed else None


def torso(env_id: str, kwargs: dict[str, Any], obs: Array) -> tuple[Array, Array]:
    """Height (m) and cosine of the tilt of N torsos, from observations [N, ...] of a robot with a known layout."""
    layout = LAYOUTS[_robot(env_id)]
    first = 0 if kwargs.get("exclude_current_positions_from_observation", True) else layout.left_out
    seen = obs.astype(np.float64)
    if layout.turns == "angle":
        return seen[:, first] + layout.rise, np.cos(seen[:, first + 1])
    x, y = seen[:, first + 2], seen[:, first + 3]
    return seen[:, first] + layout.rise, 1.0 - 2.0 * (x**2 + y**2)
