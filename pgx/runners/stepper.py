"""One step of all environments under an agent, and the rollout that rows of them make."""

import math
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.envs import vector
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.errors import RunError
from pgx.runners.types import Episode
from pgx.seeding import derive, generator
from pgx.types import Agent, Rollout, State


class Row(NamedTuple):
    """One step of N environments."""

    obs: Tensor  # [N, ...] raw
    action: Tensor  # [N, ...]
    log_prob: Tensor  # [N]
    reward: NDArray[np.float64]  # [N] raw
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    valid: NDArray[np.bool_]  # [N]
    time: Tensor  # [N]
    action_mask: Tensor | None  # [N, K]
    memory: Tensor | None  # [N, M]


class Stepper:
    """Steps environments with an agent's actions, keeping the episodes under way.

    Args:
        envs: stepped in this process's lock step.
        reward_scaler: rescales the rewards of a finished rollout; None leaves them raw.
        seed: of the run; environments and action sampling draw streams of their own from it.
        device: where the networks are.
    """

    def __init__(
        self, envs: VectorEnv, reward_scaler: RewardScaler | None, seed: int, device: torch.device
    ) -> None:
        self.envs = envs
        self.reward_scaler = reward_scaler
        self.seed = seed
        self.device = device
        self.episodes: list[Episode] = []
        self.env_seconds = 0.0
        self.policy_seconds = 0.0
        self._sampling = generator(seed, "actions", device)
        self._obs: Tensor | None = None

    @property
    def begun(self) -> bool:
        return self._obs is not None

    def begin(self, iteration: int) -> None:
        """Start every environment anew, seeded from (seed, iteration): an episode boundary for all."""
        obs = self.envs.reset(derive(self.seed, "environments", iteration))
        self._check_observation(obs, step=0)
        self._obs = torch.from_numpy(obs)
        n = self.envs.num_envs
        self._resetting = np.zeros(n, dtype=bool)  # the step to come only resets this environment
        self._return = np.zeros(n)
        self._length = np.zeros(n, dtype=np.int64)
        self._memory: Tensor | None = None
        self._fresh = True  # no memory was made yet
        if self.reward_scaler is not None:
            self.reward_scaler.begin()

    def step(self, agent: Agent, number: int) -> Row:
        """One step of all environments; number: which of the rollout it is, for messages."""
        assert self._obs is not None
        started = time.perf_counter()
        if self._fresh:
            self._memory, self._fresh = agent.blank_memory(self.envs.num_envs, self.device), False
        resetting, memory = self._resetting, self._memory
        obs, moment = self._obs.to(self.device), torch.from_numpy(self._length.copy()).to(self.device)
        mask = self.envs.action_mask
        allowed = None if mask is None else torch.from_numpy(mask).to(self.device)
        act = agent.act(agent.observe(obs, moment, allowed, memory), self._sampling)
        sampled = time.perf_counter()
        step = vector.step(self.envs, act.executed.cpu().numpy())
        stepped = time.perf_counter()
        self._check_observation(step.obs, number)
        self._obs = torch.from_numpy(step.obs)
        if act.memory is not None:  # an episode that begins with the next step remembers nothing
            self._memory = act.memory.masked_fill(
                torch.from_numpy(resetting).to(self.device).unsqueeze(-1), 0.0
            )
        self._count(step)
        self.policy_seconds += sampled - started
        self.env_seconds += stepped - sampled
        return Row(
            obs=obs,
            action=act.action,
            log_prob=act.log_prob,
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            valid=~resetting,
            time=moment,
            action_mask=allowed,
            memory=memory,
        )

    def rollout(self, rows: list[Row]) -> Rollout:
        """The last steps taken, in order, as a rollout; rewards are scaled here, all by one number."""
        assert self._obs is not None
        reward = np.stack([row.reward for row in rows])
        self._check_reward(reward)
        terminated, truncated, valid = (
            torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
            for name in ("terminated", "truncated", "valid")
        )
        rewards = torch.from_numpy(reward).float()
        if self.reward_scaler is not None:
            rewards = self.reward_scaler.scale(rewards, terminated | truncated, valid)
        # Row t + 1 is the successor of row t.
        obs = torch.stack([*(row.obs for row in rows), self._obs.to(self.device)])
        masks = _masks([row.action_mask for row in rows])
        memories = [row.memory for row in rows if row.memory is not None]
        return Rollout(
            obs=obs[:-1],
            # Clones: what inference mode made cannot be saved for a backward pass.
            action=torch.stack([row.action for row in rows]).clone(),
            log_prob=torch.stack([row.log_prob for row in rows]).clone(),
            reward=rewards.to(self.device),
            next_obs=obs[1:],
            terminated=terminated.to(self.device),
            truncated=truncated.to(self.device),
            valid=valid.to(self.device),
            time=torch.stack([row.time for row in rows]),
            action_mask=masks,
            memory=torch.stack(memories).clone() if memories else None,
        )

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
        """Streams and statistics."""
        return {
            "sampling": self._sampling.get_state(),
            "reward_scaler": None if self.reward_scaler is None else self.reward_scaler.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self._sampling.set_state(state["sampling"])
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])


def _masks(masks: list[Tensor | None]) -> Tensor | None:
    """[T, N, K] of the steps' masks [N, K]; all actions at a step without one, None where no step has one."""
    some = next((mask for mask in masks if mask is not None), None)
    if some is None:
        return None
    return torch.stack([torch.ones_like(some) if mask is None else mask for mask in masks])
