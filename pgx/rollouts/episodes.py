"""Whole episodes, the same number from each environment, from first step to last."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Engine
from pgx.core.data import Rollout
from pgx.core.schema import Count
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.types import Episode


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

    def __init__(self, stepper: RolloutCollector, episodes_per_env: int, max_episode_steps: int) -> None:
        self.stepper = stepper
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
        return self.stepper.envs

    @property
    def env_seconds(self) -> float:
        return self.stepper.env_seconds

    @property
    def policy_seconds(self) -> float:
        return self.stepper.policy_seconds

    @property
    def taken(self) -> int:
        return self.stepper.taken

    def begin(self, iteration: int) -> None:
        self._iteration = iteration

    def collect(self, agent: Agent) -> Rollout:
        """The environments' shares of whole episodes; T is as long as the slowest takes."""
        self.stepper.begin(self._iteration)
        self._iteration += 1
        left = np.full(self.envs.num_envs, self.episodes_per_env)
        recording = RolloutBuffer(room=1024)
        self.stepper.taken = 0
        while left.any():
            self.stepper.advance(agent, recording, steps=1)
            recording["valid"][-1] &= left > 0
            self._take(recording["terminated"][-1] | recording["truncated"][-1], left)
            recording["truncated"][-1] |= self._cut(left)
        self.steps = self.taken
        return self.stepper.rollout(recording)

    def _take(self, done: NDArray[np.bool_], left: NDArray[np.int64]) -> None:
        """Count the episodes that a step ended, but for those beyond an environment's share."""
        for i, episode in zip(np.flatnonzero(done), self.stepper.episodes, strict=True):
            if left[i] > 0:
                self.episodes.append(episode)
                left[i] -= 1
        self.stepper.episodes.clear()

    def _cut(self, left: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Cut the episodes that have lasted too long and end their environments' shares; returns which, [N]."""
        too_long = (self.stepper.episode_steps >= self.max_episode_steps) & (left > 0)
        self.episodes += [self.stepper.cut(i) for i in np.flatnonzero(too_long).tolist()]
        left[too_long] = 0
        return too_long

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """One rollout of as many steps in each environment; its episodes are not reported: they favour short ones."""
        self.stepper.taken = 0
        self.stepper.begin(self._iteration)
        rollout = self.stepper.collect(agent, self.stepper.steps_each(steps))
        self.stepper.episodes.clear()
        self.steps = rollout.steps
        yield rollout

    def measures(self) -> Metrics:
        return {}

    def state_dict(self) -> State:
        return self.stepper.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.stepper.load_state_dict(state)

    def close(self) -> None:
        self.envs.close()


def episodes(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    engine: Engine,
    episodes_per_env: Count,
    max_episode_steps: Count,
) -> EpisodeRunner:
    """An EpisodeRunner with a Stepper of its own. Args as in both."""
    stepper = RolloutCollector(envs, reward_scaler, seed, 0, device, engine)
    return EpisodeRunner(stepper, episodes_per_env, max_episode_steps)
