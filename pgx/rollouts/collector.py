"""Steps of environments as they come, row by row, in columns that a rollout is made of.

The episodes under way in N environments, summed up as they go.

Steps of environments under an agent, and the rollouts that they make.
"""

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

from pgx.core.agent import Agent, Distribution, Policy, State, at_one_moment, distribution_at
from pgx.core.algorithm import Bound, SupportsBind
from pgx.core.data import Rollout
from pgx.core.nonfinite import Evidence, NotFiniteError
from pgx.core.ranks import SINGLE_PROCESS, Ranks, share_of
from pgx.core.seeding import derive, generator
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import Array, Step, VectorEnv
from pgx.rollouts.sources import Episode


class RolloutBuffer:
    """Columns of [T, N, ...], written a row at a time.

    Args:
        capacity: rows that fit before the columns have to grow, >= 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.steps = 0  # T, so far
        self._columns: dict[str, Array] = {}

    def write(self, name: str, t: int, values: Array) -> None:
        """Row t of a column, [N, ...]; rows that were never written are ones."""
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

    def __getitem__(self, name: str) -> Array:
        """What was written, [T, N, ...]."""
        return self._columns[name][: self.steps]

    def tensor(self, name: str, device: torch.device, more: int = 0) -> Tensor:
        """What was written, and so many rows after it, [T + more, N, ...]."""
        return torch.from_numpy(self._columns[name][: self.steps + more]).to(device)

    def first_rows(self, steps: int) -> dict[str, Tensor]:
        """All columns as they are: their first so many rows, and one more of the observations."""
        return {
            name: torch.from_numpy(column[: steps + (name == "obs")].copy())
            for name, column in self._columns.items()
        }


class EpisodeStats:
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


class RolloutCollector:
    """Steps environments with an agent's actions, keeping the episodes under way.

    What is left to note of a step is noted while the environments move.

    Args:
        envs: what is stepped.
        reward_scaler: rescales the rewards of a finished rollout; None leaves them raw.
        seed: of the run; environments and action sampling draw streams of their own from it.
        number: of this stepper, where several share a run's environments: from 0, each as many as the others.
        device: where the networks are.
        engine: runs the policy.
        ranks: who step the other environments, each as many; seeds and draws are those of one process with all of them.
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
        self.steps_taken = 0  # environment steps, no reset rows, since it was last set to 0
        self._sampling = generator(seed, "actions", device, index)
        self._noise: Callable[[int, torch.Generator], Tensor] | None = None
        self._bound: dict[bool, tuple[Agent, Bound]] = {}
        self._obs: Array | None = None

    @property
    def started(self) -> bool:
        return self._obs is not None

    @property
    def episode_steps(self) -> NDArray[np.int64]:
        """Steps of each environment's episode so far, [N]; 0 after its end."""
        return self._stats.length

    def cut(self, i: int) -> Episode:
        """Return the episode under way in environment i, marked as cut; the environment itself goes on."""
        return self._stats.cut(i, success=None)

    def begin(self, iteration: int) -> None:
        """Start every environment anew, seeded from (seed, iteration): an episode boundary for all."""
        n = self.envs.num_envs
        before = (self.index + self.ranks.rank) * n  # environments of other steppers and other ranks
        self._obs = self.envs.reset(derive(self.seed, "environments", iteration) + before)
        if not _finite(self._obs):
            self._refuse(self._obs, RolloutBuffer(capacity=1), step=0)
        self._stats = EpisodeStats(n)
        self._recurrent_state: Tensor | None = None
        if self.reward_scaler is not None:
            self.reward_scaler.begin()

    @torch.inference_mode()
    def advance(self, agent: Agent, buffer: RolloutBuffer, steps: int) -> None:
        """Take so many steps of all environments, into a recording."""
        noise = self._draw_noise(agent, steps)
        first = buffer.steps
        if first == 0:
            assert self._obs is not None
            buffer.write("obs", 0, self._obs)
        came: Step | None = None
        for t in range(first, first + steps):
            self._send(agent, buffer, t, noise[t - first])
            if came is not None:
                self._record(came, buffer, t - 1)
            came = self._receive(buffer, t)
        if came is not None:
            self._record(came, buffer, first + steps - 1)
        buffer.steps += steps

    def collect(self, agent: Agent, steps: int) -> Rollout:
        """Take so many steps of all environments, as a rollout."""
        # A row more than there are steps: the last observation has no step of its own.
        buffer = RolloutBuffer(capacity=steps + 1)
        self.advance(agent, buffer, steps)
        return self.rollout(buffer)

    def steps_per_env(self, steps: int) -> int:
        """Steps of each environment for at least so many over all ranks."""
        return math.ceil(steps / (self.envs.num_envs * self.ranks.size))

    def _draw_noise(self, agent: Agent, steps: int) -> Tensor:
        """The noise that the actions of these steps are made of, [steps, N, ...]."""
        if self._noise is None:
            assert self._obs is not None
            state = agent.initial_recurrent_state(self.envs.num_envs, self.device)
            seen = agent.observe(self._on_device(self._obs), self._on_device(self._stats.length), None, state)
            self._noise = partial(sample_noise, self.ranks, distribution_at(agent.policy, seen)[0])
        return self._noise(steps, self._sampling)

    def _send(self, agent: Agent, buffer: RolloutBuffer, t: int, noise: Tensor) -> None:
        """Begin a step with the actions of the agent."""
        started = time.perf_counter()
        assert self._obs is not None
        if self._recurrent_state is None:
            self._recurrent_state = agent.initial_recurrent_state(self.envs.num_envs, self.device)
        mask = self.envs.action_mask
        extra = [] if mask is None else [self._on_device(mask)]
        extra += [] if self._recurrent_state is None else [self._recurrent_state]
        action, executed, log_prob, *state = self._respond(agent, mask is not None)(
            self._on_device(self._obs), self._on_device(self._stats.length), noise, *extra
        )
        actions = executed.cpu().numpy()
        acted = time.perf_counter()
        self.envs.send(actions)
        sent = time.perf_counter()
        self.policy_seconds += acted - started
        self.env_seconds += sent - acted
        # From here on the environments move.
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
        """Wait for the end of a step, and learn from it what the next actions depend on."""
        started = time.perf_counter()
        step = self.envs.receive()
        self.env_seconds += time.perf_counter() - started
        self.steps_taken += int((~self._stats.resetting).sum())
        self._stats.count(step)
        self._obs = step.obs
        if not _finite(step.obs):
            self._record(step, buffer, t)  # the evidence has the step that it is of
            self._refuse(step.obs, buffer, t)
        return step

    def _record(self, step: Step, buffer: RolloutBuffer, t: int) -> None:
        """What is left to note of a step that has ended."""
        buffer.write("reward", t, step.reward)
        buffer.write("terminated", t, step.terminated)
        buffer.write("truncated", t, step.truncated)
        buffer.write("obs", t + 1, step.obs)  # row t + 1 is the successor of row t
        self.episodes += [episode for _, episode in self._stats.add(step, success=None)]

    def _respond(self, agent: Agent, masked: bool) -> Bound:
        """`respond` for this agent, bound once: its networks and its lens change in place."""
        known = self._bound.get(masked)
        if known is None or known[0] is not agent:
            bound = self.engine.bind(respond, agent.policy, agent.normalizer.normalize_fn, masked)
            self._bound[masked] = known = (agent, bound)
        return known[1]

    def rollout(self, buffer: RolloutBuffer) -> Rollout:
        """What was recorded, as a rollout; rewards are scaled here, all by one number."""
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
        obs = buffer.tensor("obs", self.device, more=1)
        some = {
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
            action_mask=some.get("action_mask"),
            recurrent_state=some.get("recurrent_state"),
            share=share_of(self.ranks, valid),
        )

    def _on_device(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _refuse(self, obs: Array, buffer: RolloutBuffer, step: int) -> NoReturn:
        finite = np.isfinite(obs).reshape(len(obs), -1)
        self._not_finite("observation", np.flatnonzero(~finite.all(axis=1)), buffer, step)

    def _check_reward(self, buffer: RolloutBuffer) -> None:
        reward = buffer["reward"]
        if not math.isfinite(reward.sum()):
            bad = ~np.isfinite(reward)
            step = int(np.flatnonzero(bad.any(axis=1))[0])
            self._not_finite("reward", np.flatnonzero(bad[step]), buffer, step)

    def _not_finite(self, what: str, index: NDArray[np.int64], buffer: RolloutBuffer, step: int) -> NoReturn:
        raise NotFiniteError(
            f"{self.envs.id}: the {what} of environment {', '.join(map(str, index))} is not a finite number "
            f"(step {step} of the rollout)",
            Evidence(recorded=buffer.first_rows(step + 1)),
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


def _finite(obs: Array) -> bool:
    """Whether observations hold neither NaN nor infinities."""
    return obs.dtype.kind != "f" or math.isfinite(obs.sum(dtype=np.float64))


def sample_noise(ranks: Ranks, distribution: Distribution, steps: int, generator: torch.Generator) -> Tensor:
    """The noise of the environments here, [steps, N, ...], of a draw for those of all ranks."""
    if ranks.size == 1:
        return distribution.noise(steps, generator)
    n = len(distribution.params[0])
    of_all = torch.arange(ranks.size * n, device=generator.device) % n
    return distribution.rows(of_all).noise(steps, generator)[:, ranks.rank * n : (ranks.rank + 1) * n]


def respond(
    policy: Policy,
    normalize_fn: Callable[[Tensor], Tensor],
    masked: bool,
    obs: Tensor,
    time: Tensor,
    *rest: Tensor,
) -> tuple[Tensor, ...]:
    """What a policy does at N raw observations of one moment.

    Args:
        policy: feed-forward or recurrent.
        lens: the normaliser's.
        masked: whether a mask is among the rest.
        obs: [N, ...].
        time: [N].
        rest: noise [N, ...]; action mask [N, K] where there is one; state [N, M] of a recurrent policy.

    Returns:
        action [N, ...], executed [N, ...], log_prob [N], and the next recurrent state [N, M] of a recurrent policy.
    """
    noise, *more = rest
    mask = more.pop(0) if masked else None
    state = more.pop(0) if more else None
    distribution, after = distribution_at(policy, at_one_moment(normalize_fn, obs, time, mask, state))
    action = distribution.sampled(noise)
    acted = action, distribution.executed(action), distribution.log_prob(action)
    return acted if after is None else (*acted, after)
