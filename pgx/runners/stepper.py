"""Steps of environments under an agent, and the rollouts that they make."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.errors import RunError
from pgx.runners.recording import Recording
from pgx.runners.types import Episode
from pgx.seeding import derive, generator
from pgx.types import Agent, Bound, Engine, Policy, Rollout, State
from pgx.types.agent import at_one_moment, distribution_at


@dataclass
class Lane:
    """Environments that are stepped together, and the episodes under way in them."""

    envs: VectorEnv
    columns: slice  # of the environments among all
    obs: Array  # [n, ...] the last seen
    resetting: NDArray[np.bool_] = field(init=False)  # [n] the step to come only resets this environment
    total: NDArray[np.float64] = field(init=False)  # [n] rewards of the episode so far
    length: NDArray[np.int64] = field(init=False)  # [n] its steps so far
    memory: Tensor | None = None  # [n, M] of the policy before the step to come

    def __post_init__(self) -> None:
        n = self.envs.num_envs
        self.resetting = np.zeros(n, dtype=bool)
        self.total, self.length = np.zeros(n), np.zeros(n, dtype=np.int64)


class Stepper:
    """Steps environments with an agent's actions, keeping the episodes under way.

    While one lane of environments moves, the others are given their actions.

    Args:
        envs: what is stepped.
        reward_scaler: rescales the rewards of a finished rollout; None leaves them raw.
        seed: of the run; environments and action sampling draw streams of their own from it.
        device: where the networks are.
        engine: runs the policy.
    """

    def __init__(
        self,
        envs: VectorEnv,
        reward_scaler: RewardScaler | None,
        seed: int,
        device: torch.device,
        engine: Engine,
    ) -> None:
        self.envs = envs
        self.reward_scaler = reward_scaler
        self.seed = seed
        self.device = device
        self.engine = engine
        self.episodes: list[Episode] = []
        self.env_seconds = 0.0
        self.policy_seconds = 0.0
        self._sampling = generator(seed, "actions", device)
        self._noise: Callable[[int, torch.Generator], Tensor] | None = None
        self._bound: dict[bool, tuple[Agent, Bound]] = {}
        self._lanes: list[Lane] = []

    @property
    def begun(self) -> bool:
        return bool(self._lanes)

    def begin(self, iteration: int) -> None:
        """Start every environment anew, seeded from (seed, iteration): an episode boundary for all."""
        seed, first = derive(self.seed, "environments", iteration), 0
        self._lanes = []
        for envs in self.envs.lanes:
            obs = envs.reset(seed + first)
            columns = slice(first, first + envs.num_envs)
            self._check_observation(obs, columns, step=0)
            self._lanes.append(Lane(envs, columns, obs))
            first += envs.num_envs
        if self.reward_scaler is not None:
            self.reward_scaler.begin()

    @torch.inference_mode()
    def advance(self, agent: Agent, recording: Recording, steps: int) -> None:
        """Take so many steps of all environments, into a recording."""
        noise = self._drawn(agent, steps)
        start = recording.steps
        if start == 0:
            for lane in self._lanes:
                recording.write("obs", 0, lane.columns, lane.obs)
        for t in range(steps):
            for lane in self._lanes:
                if t > 0:
                    self._receive(lane, recording, start + t - 1)
                self._send(lane, agent, recording, start + t, noise[t, lane.columns])
        for lane in self._lanes:
            self._receive(lane, recording, start + steps - 1)
        recording.steps += steps

    def _drawn(self, agent: Agent, steps: int) -> Tensor:
        """The noise that the actions of these steps are made of, [steps, N, ...]."""
        if self._noise is None:
            obs, time = (
                np.concatenate([getattr(lane, name) for lane in self._lanes]) for name in ("obs", "length")
            )
            memory = agent.blank_memory(self.envs.num_envs, self.device)
            seen = agent.observe(self._on_device(obs), self._on_device(time), None, memory)
            self._noise = distribution_at(agent.policy, seen)[0].noise
        return self._noise(steps, self._sampling)

    def _send(self, lane: Lane, agent: Agent, recording: Recording, t: int, noise: Tensor) -> None:
        """Begin a lane's step with the actions of the agent."""
        started = time.perf_counter()
        if lane.memory is None:
            lane.memory = agent.blank_memory(lane.envs.num_envs, self.device)
        mask = lane.envs.action_mask
        extra = [] if mask is None else [self._on_device(mask)]
        extra += [] if lane.memory is None else [lane.memory]
        action, executed, log_prob, *memory = self._respond(agent, mask is not None)(
            self._on_device(lane.obs), self._on_device(lane.length), noise, *extra
        )
        acted = time.perf_counter()
        lane.envs.send(executed.cpu().numpy())
        sent = time.perf_counter()
        self.policy_seconds += acted - started
        self.env_seconds += sent - acted
        # From here on the environments move.
        seen = {"time": lane.length, "valid": ~lane.resetting}
        acts = {"action": action, "log_prob": log_prob}
        if mask is not None:
            seen["action_mask"] = mask
        if lane.memory is not None:
            acts["memory"] = lane.memory
            # An episode that begins with the next step remembers nothing.
            lane.memory = memory[0].masked_fill(self._on_device(lane.resetting).unsqueeze(-1), 0.0)
        for name, values in (seen | {name: tensor.cpu().numpy() for name, tensor in acts.items()}).items():
            recording.write(name, t, lane.columns, values)

    def _receive(self, lane: Lane, recording: Recording, t: int) -> None:
        """Wait for the end of a lane's step, and count it."""
        started = time.perf_counter()
        step = lane.envs.receive()
        self.env_seconds += time.perf_counter() - started
        self._check_observation(step.obs, lane.columns, t)
        for name in ("reward", "terminated", "truncated"):
            recording.write(name, t, lane.columns, getattr(step, name))
        recording.write("obs", t + 1, lane.columns, step.obs)  # row t + 1 is the successor of row t
        self._count(lane, step)

    def _respond(self, agent: Agent, masked: bool) -> Bound:
        """`respond` for this agent, bound once: its networks and its lens change in place."""
        known = self._bound.get(masked)
        if known is None or known[0] is not agent:
            bound = self.engine.bind(respond, agent.policy, agent.normalizer.lens, masked)
            self._bound[masked] = known = (agent, bound)
        return known[1]

    def _count(self, lane: Lane, step: Step) -> None:
        """Add a step to the episodes under way and close those that it ended."""
        lane.total = lane.total + step.reward  # a reset pays nothing
        lane.length = lane.length + ~lane.resetting
        done = step.terminated | step.truncated
        for i in done.nonzero()[0]:
            self.episodes.append(Episode(float(lane.total[i]), int(lane.length[i])))
            lane.total[i] = 0.0
            lane.length[i] = 0
        lane.resetting, lane.obs = done, step.obs

    def rollout(self, recording: Recording) -> Rollout:
        """What was recorded, as a rollout; rewards are scaled here, all by one number."""
        reward = recording["reward"]
        self._check_reward(reward)
        cpu = torch.device("cpu")
        terminated, truncated, valid = (
            recording.tensor(name, cpu) for name in ("terminated", "truncated", "valid")
        )
        rewards = torch.from_numpy(reward).float()
        if self.reward_scaler is not None:
            rewards = self.reward_scaler.scale(rewards, terminated | truncated, valid)
        obs = recording.tensor("obs", self.device, more=1)
        some = {
            name: recording.tensor(name, self.device)
            for name in ("action_mask", "memory")
            if name in recording
        }
        return Rollout(
            obs=obs[:-1],
            action=recording.tensor("action", self.device),
            log_prob=recording.tensor("log_prob", self.device),
            reward=rewards.to(self.device),
            next_obs=obs[1:],
            terminated=terminated.to(self.device),
            truncated=truncated.to(self.device),
            valid=valid.to(self.device),
            time=recording.tensor("time", self.device),
            action_mask=some.get("action_mask"),
            memory=some.get("memory"),
        )

    def _on_device(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _check_observation(self, obs: Array, columns: slice, step: int) -> None:
        if obs.dtype.kind == "f" and not math.isfinite(obs.sum(dtype=np.float64)):
            finite = np.isfinite(obs).reshape(len(obs), -1)
            self._not_finite("observation", columns.start + np.flatnonzero(~finite.all(axis=1)), step)

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


def respond(
    policy: Policy, lens: Callable[[Tensor], Tensor], masked: bool, obs: Tensor, time: Tensor, *rest: Tensor
) -> tuple[Tensor, ...]:
    """What a policy does at N raw observations of one moment.

    Args:
        policy: with or without memory.
        lens: the normaliser's.
        masked: whether a mask is among the rest.
        obs: [N, ...].
        time: [N].
        rest: noise [N, ...]; the mask [N, K] of the actions that can be taken; the memory [N, M] of a policy with one.

    Returns:
        action [N, ...], executed [N, ...], log_prob [N], and the memory [N, M] afterwards of a policy that has one.
    """
    noise, *more = rest
    mask = more.pop(0) if masked else None
    memory = more.pop(0) if more else None
    distribution, after = distribution_at(policy, at_one_moment(lens, obs, time, mask, memory))
    action = distribution.sampled(noise)
    acted = action, distribution.executed(action), distribution.log_prob(action)
    return acted if after is None else (*acted, after)
