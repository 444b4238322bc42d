"""Actors: their interface, the trajectories they send, and the actor itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pgx.compiler import EngineChoice, discard_report, make_engine
from pgx.core.agent import Agent
from pgx.core.algorithm import SupportsBind
from pgx.core.data import Rollout
from pgx.core.errors import RunError
from pgx.core.seeding import derive
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec, choices, obs_dtype
from pgx.distributed.shared_memory import ArraySpec
from pgx.distributed.worker_pool import CallCounts
from pgx.envs.make import EnvSpec, make_counted
from pgx.networks.agents import AgentSpec
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.inference import RemotePolicy
from pgx.rollouts.shared_parameters import inference_tensors
from pgx.rollouts.sources import Episode

StreamState = np.ndarray[
    tuple[int, ...], np.dtype[np.uint8]
]  # state of the stream that an actor draws its actions from


@dataclass(frozen=True)
class Trajectory:
    """T steps of an actor's n environments, as they happened."""

    columns: Mapping[str, Tensor]  # see `trajectory_specs`; they stand until the next trajectory is ordered
    actor: int
    version: int  # of the parameters that acted; where they changed on the way, of the first step's
    episodes: list[Episode]  # that ended in it
    env_seconds: float  # that its environments took
    policy_seconds: float  # that its actions took
    stream: StreamState  # after it
    begins: bool  # its environments began anew before it


class Actors(Protocol):
    """Whoever steps environments: processes of this machine, or of others.

    An order is a trajectory to come. Orders are taken in the order in which they were given; an actor that died
    does its unfinished ones again, from the start.
    """

    @property
    def count(self) -> int: ...
    @property
    def restarts(self) -> int:
        """Actors that died and were started again."""
        ...

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        """Drop every order, and have each actor start its environments anew, seeded from (seed, iteration).

        Args:
            iteration: of the run.
            streams: for each actor what its actions are drawn from; None: from the seed.
        """
        ...

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """What trajectories that begin from now on are acted with."""
        ...

    def request(self, actor: int) -> None:
        """One more trajectory of an actor."""
        ...

    def finished(self) -> int:
        """Orders that are done and not yet taken."""
        ...

    def take(self) -> Trajectory:
        """The oldest order's, waiting for it.

        Raises:
            RunError: an environment raised; WorkersLost: actors died more often than they may.
        """
        ...

    def close(self) -> None: ...


def trajectory_specs(
    steps: int, num_envs: int, obs: ObsSpec, action: ActionSpec, state_size: int
) -> list[ArraySpec]:
    """The columns of a trajectory, [T, n, ...]; of observations T + 1, the last successor being the last.

    Args:
        steps: T.
        num_envs: n.
        obs, action: of the environments.
        state_size: M, numbers of the recurrent state; 0: a feed-forward policy.
    """
    shown = () if isinstance(obs, Discrete) else obs.shape
    taken = np.float32 if isinstance(action, Continuous) else np.int64
    width: tuple[int, ...] = ()
    if not isinstance(action, Discrete):
        width = (len(action.sizes),) if isinstance(action, MultiDiscrete) else action.shape
    rows = (steps, num_envs)
    return [
        ArraySpec("obs", (steps + 1, num_envs, *shown), obs_dtype(obs)),
        ArraySpec("action", (*rows, *width), taken),
        ArraySpec("log_prob", rows, np.float32),
        ArraySpec("reward", rows, np.float32),
        ArraySpec("terminated", rows, np.bool_),
        ArraySpec("truncated", rows, np.bool_),
        ArraySpec("valid", rows, np.bool_),
        ArraySpec("time", rows, np.int64),
        ArraySpec("masked", (1,), np.bool_),  # whether any mask was shown
        ArraySpec("action_mask", (*rows, sum(choices(action))), np.bool_),
        ArraySpec("recurrent_state", (*rows, state_size), np.float32),
    ]


def write_trajectory(rollout: Rollout, columns: Mapping[str, Tensor]) -> None:
    """Write a rollout of an actor into the columns of a trajectory."""
    columns["obs"][:-1].copy_(rollout.obs)
    columns["obs"][-1].copy_(rollout.next_obs[-1])
    for name in ("action", "log_prob", "reward", "terminated", "truncated", "valid", "time"):
        columns[name].copy_(getattr(rollout, name))
    columns["masked"].fill_(rollout.action_mask is not None)
    columns["action_mask"].copy_(torch.tensor(True) if rollout.action_mask is None else rollout.action_mask)
    if rollout.recurrent_state is not None:
        columns["recurrent_state"].copy_(rollout.recurrent_state)


def concatenate(trajectories: Sequence[Mapping[str, Tensor]], device: torch.device) -> Rollout:
    """One rollout [T, sum of n, ...] of trajectories side by side, in memory of its own."""
    joined = {
        name: torch.cat([columns[name] for columns in trajectories], 0 if name == "masked" else 1).to(device)
        for name in trajectories[0]
    }
    obs, masked, mask, state = (
        joined.pop(name) for name in ("obs", "masked", "action_mask", "recurrent_state")
    )
    return Rollout(
        obs=obs[:-1],
        next_obs=obs[1:],
        action_mask=mask if bool(masked.any()) else None,
        recurrent_state=state if state.shape[-1] else None,
        **joined,  # type: ignore[arg-type]
    )


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ActorSpec:
    """What every actor is made of, as plain values: whatever process it lives in."""

    agent: AgentSpec
    envs: EnvSpec  # of one actor
    rollout_steps: int  # T
    seed: int  # of the run
    engine: EngineChoice

    def make_collector(
        self, index: int, generation: int, engine: SupportsBind, calls: CallCounts
    ) -> tuple[RolloutCollector, Agent]:
        """The environments and the agent of an actor; rewards stay as they are.

        One that takes the place of an actor that died must not live its life again: it draws from streams of its own.
        """
        envs = make_counted(self.envs, calls)
        agent = self.agent.make(envs.obs_spec, envs.action_spec, _CPU)
        seed = self.seed if generation == 0 else derive(self.seed, "life", generation)
        return RolloutCollector(envs, None, seed, index, _CPU, engine), agent


@dataclass(frozen=True)
class ResetCommand:
    """Start every environment anew."""

    iteration: int
    generation: int  # 0, or for an actor in the place of another that died: how many had died by then
    stream: StreamState | None


@dataclass(frozen=True)
class CollectCommand:
    """A trajectory is wanted."""

    slot: int


@dataclass(frozen=True)
class CollectResult:
    """What was ordered is in its slot."""

    slot: int
    version: int
    episodes: list[Episode]
    env_seconds: float
    policy_seconds: float
    stream: StreamState
    begins: bool  # the first since the environments began anew


class ParameterReader(Protocol):
    """Where an actor finds the newest parameters."""

    def read(self, tensors: Mapping[str, Tensor]) -> int:
        """Copy them into tensors of the same names; returns their version."""
        ...


class Actor:
    """One actor, wherever it lives.

    Args:
        plan: what it is made of.
        index: its number.
        generation: as in `ResetCommand`.
        parameters: where the newest are.
        slots: where trajectories are written to, see `layout`.
        remote_policy: where it asks for actions; None: it chooses its own.
        calls: its counter of calls of its environments.
    """

    def __init__(
        self,
        plan: ActorSpec,
        index: int,
        generation: int,
        parameters: ParameterReader,
        slots: Sequence[Mapping[str, Tensor]],
        remote_policy: RemotePolicy | None,
        calls: CallCounts,
    ) -> None:
        self._remote_policy = remote_policy
        self._steps = plan.rollout_steps
        # The learner compiles the same programs first, and reports it.
        engine = make_engine(plan.engine, "cpu", discard_report) if remote_policy is None else remote_policy
        self.collector, self._agent = plan.make_collector(index, generation, engine, calls)
        self._parameters = parameters
        self._inference_tensors = inference_tensors(self._agent)
        self._slots = slots
        self._begins = True

    def begin(self, begin: ResetCommand) -> None:
        """Start every environment anew."""
        self.collector.begin(begin.iteration)
        if begin.stream is not None:
            self.collector.load_state_dict(
                {"sampling": torch.from_numpy(begin.stream), "reward_scaler": None}
            )
        self._begins = True

    def fill(self, slot: int) -> CollectResult:
        """A trajectory, into its slot."""
        collector = self.collector
        before = collector.env_seconds, collector.policy_seconds
        version = self._parameters.read(self._inference_tensors) if self._remote_policy is None else 0
        buffer = RolloutBuffer(capacity=self._steps + 1)
        collector.advance(self._agent, buffer, self._steps)
        write_trajectory(collector.rollout(buffer), self._slots[slot])
        if self._remote_policy is not None:
            version = self._remote_policy.take_version()
        episodes, collector.episodes = collector.episodes, []
        begins, self._begins = self._begins, False
        stream: StreamState = np.asarray(collector.state_dict()["sampling"])
        spent = collector.env_seconds - before[0], collector.policy_seconds - before[1]
        return CollectResult(slot, version, episodes, *spent, stream, begins)


def name_actor(error: RunError, plan: ActorSpec, index: int) -> RunError:
    """What an actor's environments raised, with which actor's they are."""
    first, last = index * plan.envs.num_envs, (index + 1) * plan.envs.num_envs - 1
    return RunError(f"{error} (actor {index}, which counts environments {first} to {last} from 0)")
