"""An actor: steps environments of its own, and writes trajectories where the learner reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pgx.compiler import EngineChoice, discard_report, make_engine
from pgx.core.agent import Agent
from pgx.core.algorithm import Binds
from pgx.core.errors import RunError
from pgx.core.seeding import derive
from pgx.distributed.shared_memory import ArraySpec, attach
from pgx.distributed.worker_pool import CallCounts, attach_call_counts
from pgx.envs.counted_calls import make_counted
from pgx.envs.make import EnvSpec
from pgx.networks.agents import AgentSpec
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.inference import InferenceChannel, RemotePolicy
from pgx.rollouts.shared_parameters import SharedParameters, as_tensors, inference_tensors
from pgx.rollouts.sources import Episode
from pgx.rollouts.trajectories import Stream, write_trajectory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ActorSpec:
    """What every actor is made of, as plain values: whatever process it lives in."""

    agent: AgentSpec
    envs: EnvSpec  # of one actor
    rollout_steps: int  # T
    seed: int  # of the run
    engine: EngineChoice

    def make_collector(
        self, index: int, generation: int, engine: Binds, calls: CallCounts
    ) -> tuple[RolloutCollector, Agent]:
        """The environments and the agent of an actor; rewards stay as they are.

        One that takes the place of an actor that died must not live its life again: it draws from streams of its own.
        """
        envs = make_counted(self.envs, calls)
        agent = self.agent.make(envs.obs_spec, envs.action_spec, CPU)
        seed = self.seed if generation == 0 else derive(self.seed, "life", generation)
        return RolloutCollector(envs, None, seed, index, CPU, engine), agent


@dataclass(frozen=True)
class SharedLayout:
    """Where an actor finds what it shares with the learner: descriptors, and what lies behind them."""

    parameters: int
    parameter_columns: list[ArraySpec]
    slots: int
    slot_columns: list[list[ArraySpec]]
    channels: list[InferenceChannel] | None  # where actors ask for actions; None: they choose their own
    calls: int  # see `Watchdog`
    actors: int


@dataclass(frozen=True)
class ResetCommand:
    """Start every environment anew."""

    iteration: int
    generation: int  # 0, or for an actor in the place of another that died: how many had died by then
    stream: Stream | None


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
    stream: Stream
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
        buffer = RolloutBuffer(room=self._steps + 1)
        collector.advance(self._agent, buffer, self._steps)
        write_trajectory(collector.rollout(buffer), self._slots[slot])
        if self._remote_policy is not None:
            version = self._remote_policy.take_version()
        episodes, collector.episodes = collector.episodes, []
        begins, self._begins = self._begins, False
        stream: Stream = np.asarray(collector.state_dict()["sampling"])
        spent = collector.env_seconds - before[0], collector.policy_seconds - before[1]
        return CollectResult(slot, version, episodes, *spent, stream, begins)


def run_actor(plan: ActorSpec, places: SharedLayout, index: int, channel: "Connection[Any, Any]") -> None:
    """Do as the learner says; for `WorkerPool`."""
    begin: ResetCommand = channel.recv()
    shared = as_tensors(attach(places.slots, [column for slot in places.slot_columns for column in slot]))
    slots = [
        {column.name.partition(".")[2]: shared[column.name] for column in slot}
        for slot in places.slot_columns
    ]
    parameters = SharedParameters(places.parameters, places.parameter_columns)
    remote_policy = None if places.channels is None else RemotePolicy(places.channels[index])
    calls = attach_call_counts(places.calls, places.actors)[index : index + 1]
    actor = Actor(plan, index, begin.generation, parameters, slots, remote_policy, calls)
    try:
        actor.begin(begin)
        while True:
            message: ResetCommand | CollectCommand = channel.recv()
            if isinstance(message, ResetCommand):
                actor.begin(message)
            else:
                channel.send(actor.fill(message.slot))
    except RunError as error:
        raise with_actor_index(error, plan, index) from error.__cause__
    finally:
        actor.collector.envs.close()


def with_actor_index(error: RunError, plan: ActorSpec, index: int) -> RunError:
    """What an actor's environments raised, with which actor's they are."""
    first, last = index * plan.envs.num_envs, (index + 1) * plan.envs.num_envs - 1
    return RunError(f"{error} (actor {index}, which counts environments {first} to {last} from 0)")
