"""Trajectories of actors: how they are stored, what they become, and what gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pgx.core.data import Rollout
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec, choices, obs_dtype
from pgx.distributed.shared_memory import ArraySpec
from pgx.rollouts.sources import Episode

Stream = np.ndarray[
    tuple[int, ...], np.dtype[np.uint8]
]  # state of the stream that an actor draws its actions from


@dataclass(frozen=True)
class Trajectory:
    """T steps of an actor's n environments, as they happened."""

    columns: Mapping[str, Tensor]  # see `trajectory_specs`; they stand until the next trajectory is ordered
    actor: int
    version: int  # of the parameters that acted; where they changed on the way, of the first step's
    episodes: list[Episode]  # that ended in it
    env_seconds: float  # that its environments took
    policy_seconds: float  # that its actions took
    stream: Stream  # after it
    begins: bool  # its environments began anew before it


class Actors(Protocol):
    """Whoever steps environments: processes of this machine, or of others.

    An order is a trajectory to come. Orders are taken in the order in which they were given; an actor that died
    does its unfinished ones again, from the start.
    """

    @property
    def count(self) -> int: ...
    @property
    def restarts(self) -> int:
        """Actors that died and were started again."""
        ...

    def begin(self, iteration: int, streams: Sequence[Stream | None]) -> None:
        """Drop every order, and have each actor start its environments anew, seeded from (seed, iteration).

        Args:
            iteration: of the run.
            streams: for each actor what its actions are drawn from; None: from the seed.
        """
        ...

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """What trajectories that begin from now on are acted with."""
        ...

    def request(self, actor: int) -> None:
        """One more trajectory of an actor."""
        ...

    def finished(self) -> int:
        """Orders that are done and not yet taken."""
        ...

    def take(self) -> Trajectory:
        """The oldest order's, waiting for it.

        Raises:
            RunError: an environment raised; WorkersLost: actors died more often than they may.
        """
        ...

    def close(self) -> None: ...


def trajectory_specs(
    steps: int, num_envs: int, obs: ObsSpec, action: ActionSpec, state_size: int
) -> list[ArraySpec]:
    """The columns of a trajectory, [T, n, ...]; of observations T + 1, the last successor being the last.

    Args:
        steps: T.
        num_envs: n.
        obs, action: of the environments.
        state_size: M, numbers of the recurrent state; 0: a feed-forward policy.
    """
    shown = () if isinstance(obs, Discrete) else obs.shape
    taken = np.float32 if isinstance(action, Continuous) else np.int64
    width: tuple[int, ...] = ()
    if not isinstance(action, Discrete):
        width = (len(action.sizes),) if isinstance(action, MultiDiscrete) else action.shape
    rows = (steps, num_envs)
    return [
        ArraySpec("obs", (steps + 1, num_envs, *shown), obs_dtype(obs)),
        ArraySpec("action", (*rows, *width), taken),
        ArraySpec("log_prob", rows, np.float32),
        ArraySpec("reward", rows, np.float32),
        ArraySpec("terminated", rows, np.bool_),
        ArraySpec("truncated", rows, np.bool_),
        ArraySpec("valid", rows, np.bool_),
        ArraySpec("time", rows, np.int64),
        ArraySpec("masked", (1,), np.bool_),  # whether any mask was shown
        ArraySpec("action_mask", (*rows, sum(choices(action))), np.bool_),
        ArraySpec("recurrent_state", (*rows, state_size), np.float32),
    ]


def write_trajectory(rollout: Rollout, columns: Mapping[str, Tensor]) -> None:
    """Write a rollout of an actor into the columns of a trajectory."""
    columns["obs"][:-1].copy_(rollout.obs)
    columns["obs"][-1].copy_(rollout.next_obs[-1])
    for name in ("action", "log_prob", "reward", "terminated", "truncated", "valid", "time"):
        columns[name].copy_(getattr(rollout, name))
    columns["masked"].fill_(rollout.action_mask is not None)
    columns["action_mask"].copy_(torch.tensor(True) if rollout.action_mask is None else rollout.action_mask)
    if rollout.recurrent_state is not None:
        columns["recurrent_state"].copy_(rollout.recurrent_state)


def concatenate(trajectories: Sequence[Mapping[str, Tensor]], device: torch.device) -> Rollout:
    """One rollout [T, sum of n, ...] of trajectories side by side, in memory of its own."""
    joined = {
        name: torch.cat([columns[name] for columns in trajectories], 0 if name == "masked" else 1).to(device)
        for name in trajectories[0]
    }
    obs, masked, mask, state = (
        joined.pop(name) for name in ("obs", "masked", "action_mask", "recurrent_state")
    )
    return Rollout(
        obs=obs[:-1],
        next_obs=obs[1:],
        action_mask=mask if bool(masked.any()) else None,
        recurrent_state=state if state.shape[-1] else None,
        **joined,  # type: ignore[arg-type]
    )
