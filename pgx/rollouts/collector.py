"""Collection of rollouts: stepping environments with an agent, buffering rows, summing up episodes."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.agent import Agent, Distribution, Policy, State, distribution_at, step_observations
from pgx.core.algorithm import Bound, SupportsBind
from pgx.core.data import Rollout
from pgx.core.nonfinite import FailureRecord, NotFiniteError
from pgx.core.ranks import SINGLE_PROCESS, Ranks, shard_of
from pgx.core.seeding import derive, generator
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import AnyArray, Step, VectorEnv
from pgx.rollouts.sources import Episode


class RolloutBuffer:
    """Columns [T, N, ...] of a rollout, written row by row.

    Args:
        capacity: rows allocated at first, >= 1; columns grow when they are full.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.steps = 0  # T: complete rows
        self._columns: dict[str, AnyArray] = {}

    def write(self, name: str, t: int, values: AnyArray) -> None:
        """Write row t of a column, [N, ...]. Rows that are never written contain ones."""
        column = self._columns.get(name)
        if column is None:
            column = np.ones((self.capacity, *values.shape), values.dtype)
            self._columns[name] = column
        while t >= len(column):
            column = np.concatenate([column, np.ones_like(column)])
            self._columns[name] = column
        column[t] = values

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> AnyArray:
        """Return the complete rows of a column, [T, N, ...]."""
        return self._columns[name][: self.steps]

    def tensor(self, name: str, device: torch.device, extra_rows: int = 0) -> Tensor:
        """Return the complete rows of a column and `extra_rows` after them, [T + extra_rows, N, ...]."""
        return torch.from_numpy(self._columns[name][: self.steps + extra_rows]).to(device)

    def first_rows(self, steps: int) -> dict[str, Tensor]:
        """Return copies of the first `steps` rows of all columns, and one more row of the observations."""
        return {
            name: torch.from_numpy(column[: steps + (name == "obs")].copy())
            for name, column in self._columns.items()
        }


class EpisodeStats:
    """Lengths and returns of the current episodes of N environments.

    Call `count` when a step has ended, since the next actions depend on it, and `add` for the same step before the
    next `count`.

    Args:
        num_envs: N; all environments are at the beginning of an episode.
    """

    def __init__(self, num_envs: int) -> None:
        self.length = np.zeros(num_envs, dtype=np.int64)  # steps of each environment's current episode
        self.resetting = np.zeros(num_envs, dtype=bool)  # the next step only resets this environment
        self._counted = self.length  # as `length`, but without reset at the end of an episode
        self._return = np.zeros(num_envs)
        self._unshaped = np.zeros(num_envs)
        self._parts: dict[str, NDArray[np.float64]] = {}
        self._shaped = False  # rewards are shaped

    def count(self, step: Step) -> None:
        """Count a step of all environments. A step that only reset an environment does not belong to an episode."""
        self._counted = self.length + ~self.resetting
        self.resetting = step.terminated | step.truncated
        self.length = np.where(self.resetting, 0, self._counted)

    def add(self, step: Step, success: NDArray[np.int8] | None) -> list[tuple[int, Episode]]:
        """Add the rewards of the step that was counted last.

        Args:
            step: step of all environments; rewards of reset rows are 0.
            success: `VectorEnv.success`; None if it is not needed.

        Returns:
            (environment, episode) for each episode that the step ended.
        """
        self._return = self._return + step.reward
        self._shaped = step.reward_parts is not None
        if step.reward_parts is not None:
            self._unshaped = self._unshaped + step.reward_parts.unshaped
            self._parts = {
                name: part + self._parts.get(name, 0.0) for name, part in step.reward_parts.parts.items()
            }
        done = self.resetting
        ended = [(i, self._episode(i, success)) for i in np.flatnonzero(done).tolist()]
        for sums in (self._return, self._unshaped, *self._parts.values()):
            sums[done] = 0.0
        return ended

    def cut(self, i: int, success: NDArray[np.int8] | None) -> Episode:
        """Return the current episode of environment i after the last step added, marked as cut."""
        return replace(self._episode(i, success), cut=True)

    def _episode(self, i: int, success: NDArray[np.int8] | None) -> Episode:
        succeeded = None if success is None or success[i] < 0 else bool(success[i])
        if not self._shaped:
            return Episode(float(self._return[i]), int(self._counted[i]), succeeded)
        parts = {name: float(sums[i]) for name, sums in self._parts.items()}
        return Episode(
            float(self._return[i]), int(self._counted[i]), succeeded, float(self._unshaped[i]), parts
        )


class RolloutCollector:
    """Collector of rollouts of consecutive steps; episodes continue from one rollout to the next.

    It stores the results of a step while the environments execute the next one.

    Args:
        envs: N environments.
        reward_scaler: divides the rewards of a finished rollout; None: rewards stay raw.
        seed: seed of the run, from which the streams of environments and action sampling are derived.
        index: number of this collector, from 0, if several collectors of N environments each share a run.
        device: device of the networks.
        engine: executes the policy.
        ranks: the ranks of the run, with N environments each. Seeds and action noise equal those of one process with
            all environments.
    """

    def __init__(
        self,
        envs: VectorEnv,
        reward_scaler: RewardScaler | None,
        seed: int,
        index: int,
        device: torch.device,
        engine: SupportsBind,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.envs = envs
        self.reward_scaler = reward_scaler
        self.seed = seed
        self.index = index
        self.device = device
        self.engine = engine
        self.ranks = ranks
        self.episodes: list[Episode] = []
        self.env_seconds = 0.0
        self.policy_seconds = 0.0
        self.steps_taken = 0  # environment steps since the caller last set it to 0
        self._sampling = generator(seed, "actions", device, index)
        self._noise: Callable[[int, torch.Generator], Tensor] | None = None
        self._bound: dict[bool, tuple[Agent, Bound]] = {}
        self._obs: AnyArray | None = None

    @property
    def started(self) -> bool:
        return self._obs is not None

    @property
    def episode_steps(self) -> NDArray[np.int64]:
        """Steps of each environment's current episode, [N]; 0 after its end."""
        return self._stats.length

    def cut(self, i: int) -> Episode:
        """Return the current episode of environment i, marked as cut. The environment itself continues."""
        return self._stats.cut(i, success=None)

    def begin(self, iteration: int) -> None:
        """Reset all environments with seeds from (seed, iteration): an episode boundary for all."""
        n = self.envs.num_envs
        before = (self.index + self.ranks.rank) * n  # environments of other collectors or ranks
        self._obs = self.envs.reset(derive(self.seed, "environments", iteration) + before)
        if not _is_finite(self._obs):
            self._raise_nonfinite_obs(self._obs, RolloutBuffer(capacity=1), step=0)
        self._stats = EpisodeStats(n)
        self._recurrent_state: Tensor | None = None
        if self.reward_scaler is not None:
            self.reward_scaler.begin()

    @torch.inference_mode()
    def advance(self, agent: Agent, buffer: RolloutBuffer, steps: int) -> None:
        """Take `steps` steps of all environments and append their rows to a buffer."""
        noise = self._draw_noise(agent, steps)
        first = buffer.steps
        if first == 0:
            assert self._obs is not None
            buffer.write("obs", 0, self._obs)
        previous: Step | None = None
        for t in range(first, first + steps):
            self._send(agent, buffer, t, noise[t - first])
            if previous is not None:
                self._record(previous, buffer, t - 1)
            previous = self._receive(buffer, t)
        if previous is not None:
            self._record(previous, buffer, first + steps - 1)
        buffer.steps += steps

    def collect(self, agent: Agent, steps: int) -> Rollout:
        """Take `steps` steps of all environments and return them as a rollout."""
        # One more row than steps, for the last observation.
        buffer = RolloutBuffer(capacity=steps + 1)
        self.advance(agent, buffer, steps)
        return self.rollout(buffer)

    def steps_per_env(self, steps: int) -> int:
        """Return the steps of each environment that make at least `steps` over all environments and ranks."""
        return math.ceil(steps / (self.envs.num_envs * self.ranks.size))

    def _draw_noise(self, agent: Agent, steps: int) -> Tensor:
        """Draw the noise from which the actions of these steps are computed, [steps, N, ...]."""
        if self._noise is None:
            assert self._obs is not None
            state = agent.initial_recurrent_state(self.envs.num_envs, self.device)
            obs = agent.observe(self._on_device(self._obs), self._on_device(self._stats.length), None, state)
            self._noise = partial(sample_noise, self.ranks, distribution_at(agent.policy, obs)[0])
        return self._noise(steps, self._sampling)

    def _send(self, agent: Agent, buffer: RolloutBuffer, t: int, noise: Tensor) -> None:
        """Start a step with actions of the agent."""
        started = time.perf_counter()
        assert self._obs is not None
        if self._recurrent_state is None:
            self._recurrent_state = agent.initial_recurrent_state(self.envs.num_envs, self.device)
        mask = self.envs.action_mask
        inputs = [] if mask is None else [self._on_device(mask)]
        inputs += [] if self._recurrent_state is None else [self._recurrent_state]
        action, executed, log_prob, *state = self._respond(agent, mask is not None)(
            self._on_device(self._obs), self._on_device(self._stats.length), noise, *inputs
        )
        actions = executed.cpu().numpy()
        acted = time.perf_counter()
        self.envs.send(actions)
        sent = time.perf_counter()
        self.policy_seconds += acted - started
        self.env_seconds += sent - acted
        # The environments execute the step during the writes below.
        buffer.write("time", t, self._stats.length)
        buffer.write("valid", t, ~self._stats.resetting)
        buffer.write("action", t, action.cpu().numpy())
        buffer.write("log_prob", t, log_prob.cpu().numpy())
        if mask is not None:
            buffer.write("action_mask", t, mask)
        if self._recurrent_state is not None:
            buffer.write("recurrent_state", t, self._recurrent_state.cpu().numpy())
            # An episode that begins with the next step starts from zeros.
            resetting = self._on_device(self._stats.resetting).unsqueeze(-1)
            self._recurrent_state = state[0].masked_fill(resetting, 0.0)

    def _receive(self, buffer: RolloutBuffer, t: int) -> Step:
        """Wait for the end of a step and update what the next actions depend on."""
        started = time.perf_counter()
        step = self.envs.receive()
        self.env_seconds += time.perf_counter() - started
        self.steps_taken += int((~self._stats.resetting).sum())
        self._stats.count(step)
        self._obs = step.obs
        if not _is_finite(step.obs):
            self._record(step, buffer, t)  # so that the evidence includes this step
            self._raise_nonfinite_obs(step.obs, buffer, t)
        return step

    def _record(self, step: Step, buffer: RolloutBuffer, t: int) -> None:
        """Store the results of a step that has ended."""
        buffer.write("reward", t, step.reward)
        buffer.write("terminated", t, step.terminated)
        buffer.write("truncated", t, step.truncated)
        buffer.write("obs", t + 1, step.obs)  # row t + 1 is the successor of row t
        self.episodes += [episode for _, episode in self._stats.add(step, success=None)]

    def _respond(self, agent: Agent, has_mask: bool) -> Bound:
        """Return `respond` bound to this agent. It is bound once: parameters and normalizer change in place."""
        cached = self._bound.get(has_mask)
        if cached is None or cached[0] is not agent:
            bound = self.engine.bind(respond, agent.policy, agent.normalizer.normalize_fn, has_mask)
            self._bound[has_mask] = cached = (agent, bound)
        return cached[1]

    def rollout(self, buffer: RolloutBuffer) -> Rollout:
        """Return the complete rows of a buffer as a rollout, with all rewards divided by one number."""
        reward = buffer["reward"]
        self._check_reward(buffer)
        cpu = torch.device("cpu")
        terminated, truncated, valid = (
            buffer.tensor(name, cpu) for name in ("terminated", "truncated", "valid")
        )
        raw = torch.from_numpy(reward)
        if self.reward_scaler is None:
            rewards = raw.float()
        else:
            rewards = self.reward_scaler.scale(raw, terminated | truncated, valid)
        obs = buffer.tensor("obs", self.device, extra_rows=1)
        optional = {
            name: buffer.tensor(name, self.device)
            for name in ("action_mask", "recurrent_state")
            if name in buffer
        }
        return Rollout(
            obs=obs[:-1],
            action=buffer.tensor("action", self.device),
            log_prob=buffer.tensor("log_prob", self.device),
            reward=rewards.to(self.device),
            next_obs=obs[1:],
            terminated=terminated.to(self.device),
            truncated=truncated.to(self.device),
            valid=valid.to(self.device),
            time=buffer.tensor("time", self.device),
            action_mask=optional.get("action_mask"),
            recurrent_state=optional.get("recurrent_state"),
            shard=shard_of(self.ranks, valid),
        )

    def _on_device(self, values: AnyArray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _raise_nonfinite_obs(self, obs: AnyArray, buffer: RolloutBuffer, step: int) -> NoReturn:
        finite = np.isfinite(obs).reshape(len(obs), -1)
        self._raise_nonfinite("observation", np.flatnonzero(~finite.all(axis=1)), buffer, step)

    def _check_reward(self, buffer: RolloutBuffer) -> None:
        reward = buffer["reward"]
        if not math.isfinite(reward.sum()):
            bad = ~np.isfinite(reward)
            step = int(np.flatnonzero(bad.any(axis=1))[0])
            self._raise_nonfinite("reward", np.flatnonzero(bad[step]), buffer, step)

    def _raise_nonfinite(
        self, kind: str, index: NDArray[np.int64], buffer: RolloutBuffer, step: int
    ) -> NoReturn:
        raise NotFiniteError(
            f"{self.envs.id}: the {kind} of environment {', '.join(map(str, index))} is not a finite number "
            f"(step {step} of the rollout)",
            FailureRecord(recorded=buffer.first_rows(step + 1)),
        )

    def state_dict(self) -> State:
        """Return the random streams and statistics."""
        return {
            "sampling": self._sampling.get_state(),
            "reward_scaler": None if self.reward_scaler is None else self.reward_scaler.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self._sampling.set_state(state["sampling"])
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])


def _is_finite(obs: AnyArray) -> bool:
    """Return whether observations contain neither NaN nor infinities."""
    return obs.dtype.kind != "f" or math.isfinite(obs.sum(dtype=np.float64))


def sample_noise(ranks: Ranks, distribution: Distribution, steps: int, generator: torch.Generator) -> Tensor:
    """Draw action noise for the environments of all ranks and return that of this rank's, [steps, N, ...]."""
    if ranks.size == 1:
        return distribution.noise(steps, generator)
    n = len(distribution.params[0])
    all_rows = torch.arange(ranks.size * n, device=generator.device) % n
    return distribution.rows(all_rows).noise(steps, generator)[:, ranks.rank * n : (ranks.rank + 1) * n]


def respond(
    policy: Policy,
    normalize_fn: Callable[[Tensor], Tensor],
    has_mask: bool,
    obs: Tensor,
    time: Tensor,
    *rest: Tensor,
) -> tuple[Tensor, ...]:
    """Choose actions at N raw observations of one time step.

    Args:
        policy: feed-forward or recurrent.
        normalize_fn: function of the observation normalizer.
        has_mask: whether `rest` includes an action mask.
        obs: [N, ...].
        time: [N].
        rest: noise [N, ...]; the action mask [N, K], if any; the state [N, M] of a recurrent policy.

    Returns:
        action [N, ...], executed [N, ...], log_prob [N], and the next state [N, M] of a recurrent policy.
    """
    noise, *inputs = rest
    mask = inputs.pop(0) if has_mask else None
    state = inputs.pop(0) if inputs else None
    distribution, next_state = distribution_at(
        policy, step_observations(normalize_fn, obs, time, mask, state)
    )
    action = distribution.sampled(noise)
    outputs = action, distribution.executed(action), distribution.log_prob(action)
    return outputs if next_state is None else (*outputs, next_state)
