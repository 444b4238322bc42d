"""What every backend looks like to a runner."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgx.core.specs import ActionSpec, ObsSpec

Array = NDArray[Any]


class Shaping(NamedTuple):
    """What a reward is made of, where it is not the environment's own."""

    unshaped: NDArray[np.float64]  # [N] the environment's own reward
    parts: Mapping[str, NDArray[np.float64]]  # [N] each, weighted; the reward is their sum


class Step(NamedTuple):
    """One step of N environments. After a step that ended an episode the next one only resets that environment:
    its action is ignored, its reward is 0, and its row is not data."""

    obs: Array  # [N, ...] the true successor, or the first observation after a reset
    reward: NDArray[np.float64]  # [N] raw
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    shaping: Shaping | None = None  # None: the reward is the environment's own

    @property
    def columns(self) -> dict[str, Array]:
        """What every environment has a row in."""
        return {
            "obs": self.obs,
            "reward": self.reward,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }


def reported_success(info: Mapping[str, Any]) -> Any:
    """What an environment says of its task, under either of the names in use; None where it says nothing."""
    said = info.get("is_success")
    return info.get("success") if said is None else said


class VectorEnv(Protocol):
    """N environments stepped together, each resetting itself on the step after its episode's end."""

    @property
    def id(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def num_envs(self) -> int: ...
    @property
    def obs_spec(self) -> ObsSpec: ...
    @property
    def action_spec(self) -> ActionSpec: ...

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        """[N, K] the actions that can be taken now; None where the environment does not say (all)."""
        ...

    @property
    def success(self) -> NDArray[np.int8] | None:
        """[N] whether the last step did the task: 1, 0, or -1 where the environment does not say; None: nowhere."""
        ...

    def reset(self, seed: int) -> Array:
        """Start every environment anew from seeds seed, seed + 1, ...; returns observations [N, ...]."""
        ...

    def send(self, action: Array) -> None:
        """Hand out actions [N, ...] as the policy sampled them; continuous ones are clipped to their bounds here.

        It returns at once where the backend can step by itself. `receive` comes next, or `close`.
        """
        ...

    def receive(self) -> Step:
        """Wait for what the actions led to, in arrays that nobody writes to afterwards."""
        ...

    def close(self) -> None: ...


class SignalEnv(VectorEnv, Protocol):
    """A VectorEnv that was asked to read more of its environments than a step tells: a backend."""

    @property
    def signals(self) -> Mapping[str, NDArray[np.float64]]:
        """[N, ...] each, of the last step, by the names that were asked for (pgx/envs/results.py)."""
        ...


def step(envs: VectorEnv, action: Array) -> Step:
    """Take actions [N, ...] and wait for what they lead to."""
    envs.send(action)
    return envs.receive()
