"""Interface of vector environments."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgx.core.specs import ActionSpec, ObsSpec

AnyArray = NDArray[Any]
Signals = Mapping[str, NDArray[np.float64]]  # [N, ...] each, by name: `info.KEY` or `simulator.NAME`


class RewardParts(NamedTuple):
    """Parts of a shaped reward."""

    unshaped: NDArray[np.float64]  # [N] the environment's own reward
    parts: Mapping[str, NDArray[np.float64]]  # [N] each, weighted; the reward is their sum


class Step(NamedTuple):
    """One step of N environments.

    After a step that ended an episode, the next one only resets that environment: it ignores the action, its reward is
    0, and its row is not data.
    """

    obs: AnyArray  # [N, ...] the true successor, or the first observation after a reset
    reward: NDArray[np.float64]  # [N] raw
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    reward_parts: RewardParts | None = None  # None: the reward is the environment's own

    @property
    def columns(self) -> dict[str, AnyArray]:
        """Arrays with a row for every environment."""
        return {
            "obs": self.obs,
            "reward": self.reward,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }


def reported_success(info: Mapping[str, Any]) -> Any:
    """Return info["is_success"], else info["success"]; None if both are missing or None."""
    success = info.get("is_success")
    return info.get("success") if success is None else success


class VectorEnv(Protocol):
    """N environments stepped together; each resets itself on the step after the end of its episode."""

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
        """Return the allowed actions of the next step [N, K]; None: no environment has a mask."""
        ...

    @property
    def success(self) -> NDArray[np.int8] | None:
        """Return the success of the last step [N]: 1, 0, or -1 if not reported; None: no environment reported it."""
        ...

    def reset(self, seed: int) -> AnyArray:
        """Reset all environments with the seeds seed, seed + 1, ...; return the observations [N, ...]."""
        ...

    def send(self, action: AnyArray) -> None:
        """Start a step with actions [N, ...] as sampled by the policy; continuous ones are clipped to their bounds.

        Returns at once if the backend steps in other threads or processes. Call `receive` or `close` next.
        """
        ...

    def receive(self) -> Step:
        """Wait for the results of the step. The environments do not write to the returned arrays later."""
        ...

    def close(self) -> None: ...


class SignalEnv(VectorEnv, Protocol):
    """Vector environment that also reads signals: a backend."""

    @property
    def signals(self) -> Signals:
        """Return the requested signals of the last step by name, each [N, ...]."""
        ...


def step(envs: VectorEnv, action: AnyArray) -> Step:
    """Take one step with actions [N, ...]."""
    envs.send(action)
    return envs.receive()
