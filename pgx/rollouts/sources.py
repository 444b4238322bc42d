"""What the trainer knows of a runner."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pgx.core.agent import Agent, Metrics, State
from pgx.core.data import Rollout
from pgx.envs.vector import VectorEnv


@dataclass(frozen=True)
class Episode:
    """A finished episode: the sum of its raw rewards, its steps, and whether its task was done at the end.

    Where the reward is not the environment's own, also what that would have been, and what the return is the sum of.
    """

    episode_return: float
    length: int
    success: bool | None = None  # None: the environment did not say, or nobody asked
    unshaped_return: float | None = None  # None: episode_return is the environment's own
    parts: Mapping[str, float] | None = None  # of episode_return, weighted
    cut: bool = False  # it did not end: it was cut at the step limit of an evaluation or of runner=episodes


class RolloutSource(Protocol):
    """What steps environments, from one boundary of episodes to the next."""

    @property
    def envs(self) -> VectorEnv: ...
    def __str__(self) -> str:
        """How much it collects for an iteration, in a few words."""
        ...

    def begin(self, iteration: int) -> None:
        """Start every environment anew, seeded from (seed, iteration): an episode boundary for all."""
        ...

    def state_dict(self) -> State:
        """Streams and statistics; the environments are not in it: whoever loads it begins them anew."""
        ...

    def load_state_dict(self, state: State) -> None: ...
    def close(self) -> None: ...


class Runner(RolloutSource, Protocol):
    """Gives rollouts, one for each iteration."""

    @property
    def steps(self) -> int:
        """Environment steps of the last `collect` or `warm_up`, those included that are no data; no reset rows."""
        ...

    @property
    def episodes(self) -> list[Episode]:
        """Finished since they were last taken away."""
        ...

    @property
    def env_seconds(self) -> float:
        """Spent in environments, in all."""
        ...

    @property
    def policy_seconds(self) -> float:
        """Spent choosing actions, in all."""
        ...

    @property
    def steps_taken(self) -> int:
        """Environment steps, no reset rows, since the last `collect` or `warm_up` began."""
        ...

    def collect(self, agent: Agent) -> Rollout:
        """The next rollout; begins at iteration 0 if nothing began yet.

        Raises:
            RunError: the environment raised, or gave an observation or reward that is not finite.
        """
        ...

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Take at least so many steps over all ranks for the statistics alone, before the first `collect`.

        Recorded data is given out as it is, without a step. Raises as `collect`.
        """
        ...

    def metrics(self) -> Metrics:
        """What the last collection says of itself; nothing where there is nothing to say."""
        ...
