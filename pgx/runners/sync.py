"""Lock-step collection: all environments take a step, the policy answers, T times."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.errors import RunError
from pgx.seeding import derive, generator
from pgx.types import Agent, Rollout, State


@dataclass(frozen=True)
class Episode:
    """A finished episode: the sum of its raw rewards, and its steps."""

    episode_return: float
    length: int


class SyncRunner:
    """Collects rollouts of `rollout_steps` steps from each environment, going on where the last one stopped.

    Args:
        envs: stepped in this process's lock step.
        rollout_steps: T.
        reward_scaler: rescales the rewards of a finished rollout; None leaves them raw.
        seed: of the run; environments and action sampling draw streams of their own from it.
        device: where the networks are.
    """

    def __init__(
        self,
        envs: VectorEnv,
        rollout_steps: int,
        reward_scaler: RewardScaler | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.envs = envs
        self.rollout_steps = rollout_steps
        self.reward_scaler = reward_scaler
        self.seed = seed
        self.device = device
        self.episodes: list[Episode] = []  # finished since they were last taken away
        self.env_seconds = 0.0
        self.policy_seconds = 0.0
        self._sampling = generator(seed, "actions", device)
        self._obs: Array | None = None

    def begin(self, iteration: int) -> None:
        """Start every environment anew, seeded from (seed, iteration): an episode boundary for all."""
        self._obs = self.envs.reset(derive(self.seed, "environments", iteration))
        self._check_observation(self._obs, step=0)
        n = self.envs.num_envs
        self._resetting = np.zeros(n, dtype=bool)  # the step to come only resets this environment
        self._return = np.zeros(n)
        self._length = np.zeros(n, dtype=np.int64)
        if self.reward_scaler is not None:
            self.reward_scaler.begin()

    def collect(self, agent: Agent) -> Rollout:
        """T steps of all environments under the agent's policy; begins at iteration 0 if nothing began yet.

        Raises:
            RunError: the environment raised, or gave an observation or reward that is not finite.
        """
        if self._obs is None:
            self.begin(iteration=0)
        assert self._obs is not None
        steps, envs = self.rollout_steps, self.envs.num_envs
        first = torch.from_numpy(self._obs)
        obs = first.new_empty((steps + 1, *first.shape))  # row t + 1 is the successor of row t
        obs[0] = first
        actions, log_probs = [], torch.empty(steps, envs)
        reward = np.empty((steps, envs))
        terminated, truncated, valid = (np.empty((steps, envs), dtype=bool) for _ in range(3))
        for t in range(steps):
            started = time.perf_counter()
            action, log_prob = agent.act(obs[t].to(self.device), self._sampling)
            actions.append(action)
            log_probs[t] = log_prob
            sampled = time.perf_counter()
            step = self.envs.step(action.cpu().numpy())
            stepped = time.perf_counter()
            self._check_observation(step.obs, t)
            obs[t + 1] = torch.from_numpy(step.obs)
            reward[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
            valid[t] = ~self._resetting
            self._count(step)
            self.policy_seconds += sampled - started
            self.env_seconds += stepped - sampled
        self._obs = step.obs
        self._check_reward(reward)
        ended = torch.from_numpy(terminated), torch.from_numpy(truncated)
        rows = torch.from_numpy(valid)
        rewards = self._scaled(torch.from_numpy(reward).float(), ended[0] | ended[1], rows)
        columns = (obs[:-1], torch.stack(actions).clone(), log_probs, rewards, obs[1:], *ended, rows)
        return Rollout(*(column.to(self.device) for column in columns))

    def _scaled(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        return reward if self.reward_scaler is None else self.reward_scaler.scale(reward, done, valid)

    def _count(self, step: Step) -> None:
        """Add a step to the episodes under way and close those that it ended."""
        self._return += step.reward  # a reset pays nothing
        self._length += ~self._resetting
        done = step.terminated | step.truncated
        for i in np.flatnonzero(done):
            self.episodes.append(Episode(float(self._return[i]), int(self._length[i])))
        self._return[done] = 0.0
        self._length[done] = 0
        self._resetting = done

    def _check_observation(self, obs: Array, step: int) -> None:
        if obs.dtype.kind == "f" and not math.isfinite(obs.sum(dtype=np.float64)):
            finite = np.isfinite(obs).reshape(len(obs), -1)
            self._not_finite("observation", np.flatnonzero(~finite.all(axis=1)), step)

    def _check_reward(self, reward: NDArray[np.float64]) -> None:
        if not math.isfinite(reward.sum()):
            bad = ~np.isfinite(reward)
            step = int(np.flatnonzero(bad.any(axis=1))[0])
            self._not_finite("reward", np.flatnonzero(bad[step]), step)

    def _not_finite(self, what: str, index: NDArray[np.int64], step: int) -> None:
        raise RunError(
            f"{self.envs.id}: the {what} of environment {', '.join(map(str, index))} is not a finite number "
            f"(step {step} of the rollout)"
        )

    def state_dict(self) -> State:
        """Streams and statistics; the environments are not in it: whoever loads it begins them anew."""
        return {
            "sampling": self._sampling.get_state(),
            "reward_scaler": None if self.reward_scaler is None else self.reward_scaler.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self._sampling.set_state(state["sampling"])
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        self.envs.close()
