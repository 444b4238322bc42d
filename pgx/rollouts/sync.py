"""Runners that step environments in lock step: a number of steps, or whole episodes."""

from collections import deque
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Engine
from pgx.core.data import Rollout
from pgx.core.ranks import Ranks
from pgx.core.schema import Count, Index
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.sources import Episode


class SyncRunner:
    """Runner that collects `rollout_steps` steps of each environment and continues where the last rollout ended.

    Args:
        collector: steps the environments.
        rollout_steps: T.
        lag: updates between the behaviour policy of a returned rollout and the current policy; 0 is on-policy.
            Newer rollouts wait in a queue.
    """

    def __init__(self, collector: RolloutCollector, rollout_steps: int, lag: int) -> None:
        self.collector = collector
        self.rollout_steps = rollout_steps
        self.lag = lag
        self.steps = 0
        self._waiting: deque[Rollout] = deque()

    def __str__(self) -> str:
        behind = f", {self.lag} updates behind" if self.lag else ""
        size = self.collector.ranks.size
        on_ranks = f" on {size} ranks" if size > 1 else ""
        return f"{size * self.envs.num_envs} environments x {self.rollout_steps} steps{on_ranks}{behind}"

    @property
    def envs(self) -> VectorEnv:
        return self.collector.envs

    @property
    def episodes(self) -> list[Episode]:
        return self.collector.episodes

    @property
    def env_seconds(self) -> float:
        return self.collector.env_seconds

    @property
    def policy_seconds(self) -> float:
        return self.collector.policy_seconds

    @property
    def steps_taken(self) -> int:
        return self.collector.steps_taken

    def begin(self, iteration: int) -> None:
        self.collector.begin(iteration)

    def collect(self, agent: Agent) -> Rollout:
        """Return T steps of all environments under the policy of `lag` updates ago.

        If every environment only resets (possible with T = 1), the rollout has no data and the next one is collected.
        """
        if not self.collector.started:
            self.begin(iteration=0)
        self.collector.steps_taken = 0
        while len(self._waiting) <= self.lag:
            rollout = self.collector.collect(agent, self.rollout_steps)
            if rollout.rows_of_all_ranks:
                self._waiting.append(rollout)
        return self._count(self._waiting.popleft())

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Yield one rollout; the environments continue after it."""
        if not self.collector.started:
            self.begin(iteration=0)
        self.collector.steps_taken = 0
        yield self._count(self.collector.collect(agent, self.collector.steps_per_env(steps)))

    def _count(self, rollout: Rollout) -> Rollout:
        self.steps = rollout.steps
        return rollout

    def metrics(self) -> Metrics:
        return {}

    def state_dict(self) -> State:
        columns = [column.name for column in fields(Rollout)]
        waiting = [{name: getattr(rollout, name) for name in columns} for rollout in self._waiting]
        return self.collector.state_dict() | {"waiting": waiting}

    def load_state_dict(self, state: State) -> None:
        self.collector.load_state_dict(state)
        self._waiting = deque(Rollout.from_columns(columns) for columns in state["waiting"])

    def close(self) -> None:
        self.envs.close()


def make_sync_runner(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    engine: Engine,
    ranks: Ranks,
    rollout_steps: Count,
    lag: Index,
) -> SyncRunner:
    """Return a SyncRunner with a new collector. Args as in `RolloutCollector` and `SyncRunner`."""
    return SyncRunner(
        RolloutCollector(envs, reward_scaler, seed, 0, device, engine, ranks), rollout_steps, lag
    )


class EpisodeRunner:
    """Runner that collects `episodes_per_env` whole episodes of each environment, after a reset of all.

    Each environment plays the same number of episodes, however long they are: the episodes that end first would be
    a biased sample with too many short ones. Steps that an environment takes after its last episode, while others
    still play, are not data. `steps` counts them, since they were simulated.

    An episode that lasts `max_episode_steps` steps is truncated. Since environments cannot be reset one by one, its
    environment plays no further episode of that rollout. This is unbiased: whether an episode starts depends on
    earlier episodes only.

    Args:
        collector: steps the environments.
        episodes_per_env: whole episodes of each environment in a rollout.
        max_episode_steps: maximum length of an episode, >= 1.
    """

    def __init__(self, collector: RolloutCollector, episodes_per_env: int, max_episode_steps: int) -> None:
        self.collector = collector
        self.episodes_per_env = episodes_per_env
        self.max_episode_steps = max_episode_steps
        self.episodes: list[Episode] = []
        self.steps = 0
        self._iteration = 0

    def __str__(self) -> str:
        plural = "" if self.episodes_per_env == 1 else "s"
        return f"{self.envs.num_envs} environments x {self.episodes_per_env} whole episode{plural}"

    @property
    def envs(self) -> VectorEnv:
        return self.collector.envs

    @property
    def env_seconds(self) -> float:
        return self.collector.env_seconds

    @property
    def policy_seconds(self) -> float:
        return self.collector.policy_seconds

    @property
    def steps_taken(self) -> int:
        return self.collector.steps_taken

    def begin(self, iteration: int) -> None:
        self._iteration = iteration

    def collect(self, agent: Agent) -> Rollout:
        """Return whole episodes of all environments; T is the number of steps of the slowest environment."""
        self.collector.begin(self._iteration)
        self._iteration += 1
        remaining = np.full(self.envs.num_envs, self.episodes_per_env)
        buffer = RolloutBuffer(capacity=1024)
        self.collector.steps_taken = 0
        while remaining.any():
            self.collector.advance(agent, buffer, steps=1)
            buffer["valid"][-1] &= remaining > 0
            self._take(buffer["terminated"][-1] | buffer["truncated"][-1], remaining)
            buffer["truncated"][-1] |= self._cut(remaining)
        self.steps = self.steps_taken
        return self.collector.rollout(buffer)

    def _take(self, done: NDArray[np.bool_], remaining: NDArray[np.int64]) -> None:
        """Keep the episodes that a step ended, except those of environments without remaining episodes."""
        for i, episode in zip(np.flatnonzero(done), self.collector.episodes, strict=True):
            if remaining[i] > 0:
                self.episodes.append(episode)
                remaining[i] -= 1
        self.collector.episodes.clear()

    def _cut(self, remaining: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Cut the episodes that reached the limit, and return a mask [N] of their environments."""
        too_long = (self.collector.episode_steps >= self.max_episode_steps) & (remaining > 0)
        self.episodes += [self.collector.cut(i) for i in np.flatnonzero(too_long).tolist()]
        remaining[too_long] = 0
        return too_long

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Yield one rollout with equal steps of each environment. Its episodes, a biased sample, are not reported."""
        self.collector.steps_taken = 0
        self.collector.begin(self._iteration)
        rollout = self.collector.collect(agent, self.collector.steps_per_env(steps))
        self.collector.episodes.clear()
        self.steps = rollout.steps
        yield rollout

    def metrics(self) -> Metrics:
        return {}

    def state_dict(self) -> State:
        return self.collector.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.collector.load_state_dict(state)

    def close(self) -> None:
        self.envs.close()


def make_episode_runner(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    engine: Engine,
    episodes_per_env: Count,
    max_episode_steps: Count,
) -> EpisodeRunner:
    """Return an EpisodeRunner with a new collector. Args as in `RolloutCollector` and `EpisodeRunner`."""
    collector = RolloutCollector(envs, reward_scaler, seed, 0, device, engine)
    return EpisodeRunner(collector, episodes_per_env, max_episode_steps)
