"""Runners that step environments in lock step: T steps of each, or whole episodes."""

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
    """Collects rollouts of `rollout_steps` steps from each environment, going on where the last one stopped.

    Args:
        stepper: of the environments.
        rollout_steps: T.
        lag: how many updates old the policy is that acted in the rollout given out; 0 is on-policy. The rollouts in
            between wait their turn.
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
        shared = f" on {size} ranks" if size > 1 else ""
        return f"{size * self.envs.num_envs} environments x {self.rollout_steps} steps{shared}{behind}"

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
        """T steps of all environments, under the policy of `lag` updates ago.

        A rollout in which every environment only reset itself (T = 1) holds no data, and the next is collected.
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
        """One rollout, after which the environments go on."""
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
    """A SyncRunner with a Stepper of its own. Args as in both."""
    return SyncRunner(
        RolloutCollector(envs, reward_scaler, seed, 0, device, engine, ranks), rollout_steps, lag
    )


class EpisodeRunner:
    """Collects rollouts of `episodes_per_env` whole episodes from each environment, each rollout begun anew.

    Every environment plays its share however long it lasts: taking whichever episodes end first would favour the
    short ones. What an environment does after its share, while others still play theirs, is not data; its steps
    are counted in `steps`, since they were simulated.

    An episode that has not ended after `max_episode_steps` steps is truncated there. Environments cannot be reset one
    by one, so its environment plays no further episode in that rollout. That favours no episode: whether one begins
    depends on earlier ones alone.

    Args:
        stepper: of the environments.
        episodes_per_env: whole episodes of each environment in a rollout.
        max_episode_steps: of an episode, >= 1.
    """

    def __init__(self, collector: RolloutCollector, episodes_per_env: int, max_episode_steps: int) -> None:
        self.collector = collector
        self.episodes_per_env = episodes_per_env
        self.max_episode_steps = max_episode_steps
        self.episodes: list[Episode] = []
        self.steps = 0
        self._iteration = 0

    def __str__(self) -> str:
        many = "" if self.episodes_per_env == 1 else "s"
        return f"{self.envs.num_envs} environments x {self.episodes_per_env} whole episode{many}"

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
        """The environments' shares of whole episodes; T is as long as the slowest takes."""
        self.collector.begin(self._iteration)
        self._iteration += 1
        left = np.full(self.envs.num_envs, self.episodes_per_env)
        buffer = RolloutBuffer(capacity=1024)
        self.collector.steps_taken = 0
        while left.any():
            self.collector.advance(agent, buffer, steps=1)
            buffer["valid"][-1] &= left > 0
            self._take(buffer["terminated"][-1] | buffer["truncated"][-1], left)
            buffer["truncated"][-1] |= self._cut(left)
        self.steps = self.steps_taken
        return self.collector.rollout(buffer)

    def _take(self, done: NDArray[np.bool_], left: NDArray[np.int64]) -> None:
        """Count the episodes that a step ended, but for those beyond an environment's share."""
        for i, episode in zip(np.flatnonzero(done), self.collector.episodes, strict=True):
            if left[i] > 0:
                self.episodes.append(episode)
                left[i] -= 1
        self.collector.episodes.clear()

    def _cut(self, left: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Cut the episodes that have lasted too long and end their environments' shares; returns which, [N]."""
        too_long = (self.collector.episode_steps >= self.max_episode_steps) & (left > 0)
        self.episodes += [self.collector.cut(i) for i in np.flatnonzero(too_long).tolist()]
        left[too_long] = 0
        return too_long

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """One rollout of as many steps in each environment; its episodes are not reported: they favour short ones."""
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
    """An EpisodeRunner with a Stepper of its own. Args as in both."""
    collector = RolloutCollector(envs, reward_scaler, seed, 0, device, engine)
    return EpisodeRunner(collector, episodes_per_env, max_episode_steps)
