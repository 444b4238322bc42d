"""The episodes under way in N environments, summed up as they go."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pgx.envs.vector import Step
from pgx.rollouts.types import Episode


class Tally:
    """Counts steps and adds up rewards; gives each episode when it has ended.

    A step is counted first, which says where each environment stands, and added up later, before the next is counted.

    Args:
        num_envs: N, all at an episode's beginning.
    """

    def __init__(self, num_envs: int) -> None:
        self.length = np.zeros(num_envs, dtype=np.int64)  # steps of each environment's episode so far
        self.resetting = np.zeros(num_envs, dtype=bool)  # the step to come only resets this environment
        self._counted = self.length  # steps of the episodes that the last step belonged to, itself included
        self._return = np.zeros(num_envs)
        self._unshaped = np.zeros(num_envs)
        self._parts: dict[str, NDArray[np.float64]] = {}
        self._shaped = False  # the reward is not the environment's own

    def count(self, step: Step) -> None:
        """Count a step of all environments; one that only reset an environment is none of its episode."""
        self._counted = self.length + ~self.resetting
        self.resetting = step.terminated | step.truncated
        self.length = np.where(self.resetting, 0, self._counted)

    def add(self, step: Step, success: NDArray[np.int8] | None) -> list[tuple[int, Episode]]:
        """Add up what the step paid that was counted last.

        Args:
            step: of all environments; one that only reset an environment pays nothing.
            success: as in VectorEnv; None also where nobody asks.

        Returns:
            The episodes that it ended, each with its environment.
        """
        self._return = self._return + step.reward
        self._shaped = step.shaping is not None
        if step.shaping is not None:
            self._unshaped = self._unshaped + step.shaping.unshaped
            self._parts = {
                name: paid + self._parts.get(name, 0.0) for name, paid in step.shaping.parts.items()
            }
        done = self.resetting
        ended = [(i, self._episode(i, success)) for i in np.flatnonzero(done).tolist()]
        for sums in (self._return, self._unshaped, *self._parts.values()):
            sums[done] = 0.0
        return ended

    def cut(self, i: int, success: NDArray[np.int8] | None) -> Episode:
        """Return the episode under way in environment i as it stands after the last step added, marked as cut."""
        return replace(self._episode(i, success), cut=True)

    def _episode(self, i: int, success: NDArray[np.int8] | None) -> Episode:
        said = None if success is None or success[i] < 0 else bool(success[i])
        if not self._shaped:
            return Episode(float(self._return[i]), int(self._counted[i]), said)
        parts = {name: float(sums[i]) for name, sums in self._parts.items()}
        return Episode(float(self._return[i]), int(self._counted[i]), said, float(self._unshaped[i]), parts)
