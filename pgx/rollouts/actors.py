"""Actors: the interface that the learner uses, the trajectories they return, and the actor itself."""

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
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec, choice_sizes, obs_dtype
from pgx.distributed.shared_memory import ArraySpec
from pgx.distributed.worker_pool import CallCounts
from pgx.envs.make import EnvSpec, make_counted_envs
from pgx.networks.agents import AgentSpec
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.inference import RemotePolicy
from pgx.rollouts.shared_parameters import inference_tensors
from pgx.rollouts.sources import Episode

_CPU = torch.device("cpu")

# State of the random stream from which an actor samples its actions.
StreamState = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Trajectory:
    """T steps of an actor's n environments."""

    columns: Mapping[str, Tensor]  # see `trajectory_specs`; valid until the next trajectory is requested
    actor: int
    version: int  # of the parameters at the first step
    episodes: list[Episode]  # that ended in it
    env_seconds: float  # spent in environments
    policy_seconds: float  # spent choosing actions
    stream: StreamState  # after the trajectory
    after_reset: bool  # whether all environments were reset before it


class Actors(Protocol):
    """Pool of actors, in processes of this machine or of a cluster.

    The learner requests trajectories and takes them in the order of the requests. An actor that exited is restarted
    and repeats its unfinished requests from their start.
    """

    @property
    def count(self) -> int: ...
    @property
    def restarts(self) -> int:
        """Restarts of actors that exited."""
        ...

    def begin(self, iteration: int, streams: Sequence[StreamState | None]) -> None:
        """Drop all requests, and let each actor reset its environments with seeds from (seed, iteration).

        Args:
            iteration: iteration of the run.
            streams: for each actor, the state of its random stream; None: a stream derived from the seed.
        """
        ...

    def publish(self, version: int, parameters: Mapping[str, Tensor]) -> None:
        """Set the parameters for trajectories that start after this call."""
        ...

    def request(self, actor: int) -> None:
        """Request one more trajectory from an actor."""
        ...

    def finished(self) -> int:
        """Return the number of trajectories that are finished and not yet taken."""
        ...

    def take(self) -> Trajectory:
        """Return the trajectory of the oldest request, waiting for it.

        Raises:
            RunError: an environment raised.
            WorkersLost: actors exited more often than allowed.
        """
        ...

    def close(self) -> None: ...


def trajectory_specs(
    steps: int, num_envs: int, obs: ObsSpec, action: ActionSpec, state_size: int
) -> list[ArraySpec]:
    """Return the columns of a trajectory, [T, n, ...]; observations have T + 1 rows, including the last successor.

    Args:
        steps: T.
        num_envs: n.
        obs, action: specs of the environments.
        state_size: M, numbers of the recurrent state; 0: a feed-forward policy.
    """
    obs_shape = () if isinstance(obs, Discrete) else obs.shape
    action_dtype = np.float32 if isinstance(action, Continuous) else np.int64
    action_shape: tuple[int, ...] = ()
    if not isinstance(action, Discrete):
        action_shape = (len(action.sizes),) if isinstance(action, MultiDiscrete) else action.shape
    rows = (steps, num_envs)
    return [
        ArraySpec("obs", (steps + 1, num_envs, *obs_shape), obs_dtype(obs)),
        ArraySpec("action", (*rows, *action_shape), action_dtype),
        ArraySpec("log_prob", rows, np.float32),
        ArraySpec("reward", rows, np.float32),
        ArraySpec("terminated", rows, np.bool_),
        ArraySpec("truncated", rows, np.bool_),
        ArraySpec("valid", rows, np.bool_),
        ArraySpec("time", rows, np.int64),
        ArraySpec("has_mask", (1,), np.bool_),  # whether the environments had action masks
        ArraySpec("action_mask", (*rows, sum(choice_sizes(action))), np.bool_),
        ArraySpec("recurrent_state", (*rows, state_size), np.float32),
    ]


def write_trajectory(rollout: Rollout, columns: Mapping[str, Tensor]) -> None:
    """Write a rollout of an actor into the columns of a trajectory."""
    columns["obs"][:-1].copy_(rollout.obs)
    columns["obs"][-1].copy_(rollout.next_obs[-1])
    for name in ("action", "log_prob", "reward", "terminated", "truncated", "valid", "time"):
        columns[name].copy_(getattr(rollout, name))
    columns["has_mask"].fill_(rollout.action_mask is not None)
    columns["action_mask"].copy_(torch.tensor(True) if rollout.action_mask is None else rollout.action_mask)
    if rollout.recurrent_state is not None:
        columns["recurrent_state"].copy_(rollout.recurrent_state)


def concatenate(trajectories: Sequence[Mapping[str, Tensor]], device: torch.device) -> Rollout:
    """Return one rollout [T, sum of n, ...] with copies of the columns of trajectories."""
    joined = {
        name: torch.cat([columns[name] for columns in trajectories], 0 if name == "has_mask" else 1).to(
            device
        )
        for name in trajectories[0]
    }
    obs, has_mask, mask, state = (
        joined.pop(name) for name in ("obs", "has_mask", "action_mask", "recurrent_state")
    )
    return Rollout(
        obs=obs[:-1],
        next_obs=obs[1:],
        action_mask=mask if bool(has_mask.any()) else None,
        recurrent_state=state if state.shape[-1] else None,
        **joined,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class ActorSpec:
    """Description of the actors as plain values, so that any process can build them."""

    agent: AgentSpec
    envs: EnvSpec  # of one actor
    rollout_steps: int  # T
    seed: int  # of the run
    engine: EngineChoice

    def make_collector(
        self, index: int, generation: int, engine: SupportsBind, calls: CallCounts
    ) -> tuple[RolloutCollector, Agent]:
        """Return the collector and the agent of an actor. Rewards are not scaled.

        A restarted actor uses new random streams; otherwise it would repeat the data of its predecessor.
        """
        envs = make_counted_envs(self.envs, calls)
        agent = self.agent.make(envs.obs_spec, envs.action_spec, _CPU)
        seed = self.seed if generation == 0 else derive(self.seed, "life", generation)
        return RolloutCollector(envs, None, seed, index, _CPU, engine), agent


@dataclass(frozen=True)
class ResetCommand:
    """Command to reset all environments of an actor."""

    iteration: int
    generation: int  # 0; for a restarted actor the number of restarts of all actors
    stream: StreamState | None


@dataclass(frozen=True)
class CollectCommand:
    """Command to collect a trajectory."""

    slot: int


@dataclass(frozen=True)
class CollectResult:
    """Answer to a `CollectCommand`; the trajectory is in its slot. Fields as in `Trajectory`."""

    slot: int
    version: int
    episodes: list[Episode]
    env_seconds: float
    policy_seconds: float
    stream: StreamState
    after_reset: bool


class ParameterReader(Protocol):
    """Reader of the latest published parameters."""

    def read(self, tensors: Mapping[str, Tensor]) -> int:
        """Copy the parameters into tensors of the same names, and return their version."""
        ...


class Actor:
    """Actor: a collector, the agent it acts with, and the slots for its trajectories.

    Args:
        spec: description of the actor.
        index: number of the actor.
        generation: see `ResetCommand`.
        parameters: reader of the latest parameters.
        slots: columns of trajectories, see `trajectory_specs`.
        remote_policy: chooses the actions in the learner's process; None: the actor's own agent chooses them.
        calls: counter of calls of the environments.
    """

    def __init__(
        self,
        spec: ActorSpec,
        index: int,
        generation: int,
        parameters: ParameterReader,
        slots: Sequence[Mapping[str, Tensor]],
        remote_policy: RemotePolicy | None,
        calls: CallCounts,
    ) -> None:
        self._remote_policy = remote_policy
        self._steps = spec.rollout_steps
        # The learner compiles the same programs first and reports it.
        engine = make_engine(spec.engine, "cpu", discard_report) if remote_policy is None else remote_policy
        self.collector, self._agent = spec.make_collector(index, generation, engine, calls)
        self._parameters = parameters
        self._inference_tensors = inference_tensors(self._agent)
        self._slots = slots
        self._after_reset = True

    def reset(self, command: ResetCommand) -> None:
        """Reset all environments."""
        self.collector.begin(command.iteration)
        if command.stream is not None:
            self.collector.load_state_dict(
                {"sampling": torch.from_numpy(command.stream), "reward_scaler": None}
            )
        self._after_reset = True

    def collect(self, slot: int) -> CollectResult:
        """Collect a trajectory into a slot."""
        collector = self.collector
        before = collector.env_seconds, collector.policy_seconds
        version = self._parameters.read(self._inference_tensors) if self._remote_policy is None else 0
        buffer = RolloutBuffer(capacity=self._steps + 1)
        collector.advance(self._agent, buffer, self._steps)
        write_trajectory(collector.rollout(buffer), self._slots[slot])
        if self._remote_policy is not None:
            version = self._remote_policy.take_version()
        episodes, collector.episodes = collector.episodes, []
        after_reset, self._after_reset = self._after_reset, False
        stream: StreamState = np.asarray(collector.state_dict()["sampling"])
        seconds = collector.env_seconds - before[0], collector.policy_seconds - before[1]
        return CollectResult(slot, version, episodes, *seconds, stream, after_reset)


def name_actor(error: RunError, spec: ActorSpec, index: int) -> RunError:
    """Return an error of an actor's environments with the actor and its environments added to the message."""
    first, last = index * spec.envs.num_envs, (index + 1) * spec.envs.num_envs - 1
    return RunError(
        f"{error} (actor {index}, whose environments 0 to {last - first} are {first} to {last} of the run)"
    )
