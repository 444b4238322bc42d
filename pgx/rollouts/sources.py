"""Interfaces between the trainer and the sources of its rollouts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pgx.core.agent import Agent, Metrics, State
from pgx.core.data import Rollout
from pgx.envs.vector import VectorEnv


@dataclass(frozen=True)
class Episode:
    """Statistics of a finished episode.

    With shaped rewards they include the return of the environment's own rewards, and the parts of the shaped return.
    """

    episode_return: float  # sum of raw rewards
    length: int  # steps
    success: bool | None = None  # at the last step; None: unknown, or not asked for
    unshaped_return: float | None = None  # None: rewards are not shaped
    parts: Mapping[str, float] | None = None  # weighted terms of episode_return; None: rewards are not shaped
    cut: bool = (
        False  # it was cut at the step limit of an evaluation or of runner=episodes, not by the environment
    )


class RolloutSource(Protocol):
    """Stepper of environments, from one episode boundary of all environments to the next."""

    @property
    def envs(self) -> VectorEnv: ...
    def __str__(self) -> str:
        """Return what it collects in an iteration, in a few words."""
        ...

    def begin(self, iteration: int) -> None:
        """Reset all environments with seeds from (seed, iteration): an episode boundary for all."""
        ...

    def state_dict(self) -> State:
        """Return random streams and statistics. Environments are not included: call `begin` after loading."""
        ...

    def load_state_dict(self, state: State) -> None: ...
    def close(self) -> None: ...


class Runner(RolloutSource, Protocol):
    """Source of one rollout for each iteration."""

    @property
    def steps(self) -> int:
        """Environment steps of the last `collect` or `warm_up`, including steps that are not data."""
        ...

    @property
    def episodes(self) -> list[Episode]:
        """Episodes that finished since the caller last cleared the list."""
        ...

    @property
    def env_seconds(self) -> float:
        """Total time spent in environments."""
        ...

    @property
    def policy_seconds(self) -> float:
        """Total time spent choosing actions."""
        ...

    @property
    def steps_taken(self) -> int:
        """Environment steps since the start of the last `collect` or `warm_up`, also while it runs."""
        ...

    def collect(self, agent: Agent) -> Rollout:
        """Return the next rollout. The first call begins at iteration 0 if `begin` was not called.

        Raises:
            RunError: the environment raised, or returned an observation or reward that is not finite.
        """
        ...

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Take at least so many steps over all ranks for the normalizers, before the first `collect`.

        A dataset is returned as it is, without steps. Raises as `collect`.
        """
        ...

    def metrics(self) -> Metrics:
        """Return metrics of the last `collect`; may be empty."""
        ...
