"""Where height and tilt stand in the observations of Gymnasium's MuJoCo robots, on every backend alike."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgx.core.schema import nearest
from pgx.envs.vector import Array


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
