"""THE table of quantities: what a term may ask of a step, and where each comes from."""

from dataclasses import dataclass

from pgx.envs.rewards.robots import layout_problem

INFO = "info_"  # a parameter info_KEY is info["KEY"]


@dataclass(frozen=True)
class Quantity:
    """What a parameter of a term stands for.

    Args:
        meaning: shape, unit and definition, N environments; rows in which an environment only resets are never paid.
        reading: what the backend has to read for it, see pgx/envs/readings.py; None: nothing beside the step.
        of_robots: whether it is taken from observations whose layout is known of MuJoCo's robots alone.
    """

    meaning: str
    reading: str | None = None
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
    "x_velocity": Quantity("[N] m/s, mean of the step, forward", reading="info.x_velocity"),
    "time_in_air": Quantity("[N] s since nothing of it touched the ground", reading="simulator.flight"),
    "qpos": Quantity("[N, nq] MuJoCo's positions after the step", reading="simulator.qpos"),
    "qvel": Quantity("[N, nv] MuJoCo's velocities after the step, not clipped", reading="simulator.qvel"),
}


def is_quantity(name: str) -> bool:
    """Whether a parameter of this name comes from the step."""
    return name in QUANTITIES or name.startswith(INFO)


def reading_of(name: str) -> str | None:
    """What the backend has to read for a quantity; None: nothing beside the step."""
    return f"info.{name.removeprefix(INFO)}" if name.startswith(INFO) else QUANTITIES[name].reading


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
