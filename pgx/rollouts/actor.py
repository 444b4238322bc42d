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
from pgx.envs.make import EnvsPlan
from pgx.networks.agents import AgentSpec
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.rollouts.inference import InferenceChannel, RemotePolicy
from pgx.rollouts.shared import Column, SharedParameters, acting_tensors, attach
from pgx.rollouts.trajectories import Stream, store
from pgx.rollouts.types import Episode
from pgx.rollouts.watch import Calls, counters, make_watched

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ActorPlan:
    """What every actor is made of, as plain values: whatever process it lives in."""

    agent: AgentSpec
    envs: EnvsPlan  # of one actor
    rollout_steps: int  # T
    seed: int  # of the run
    engine: EngineChoice

    def stepper(self, index: int, life: int, engine: Binds, calls: Calls) -> tuple[RolloutCollector, Agent]:
        """The environments and the agent of an actor; rewards stay as they are.

        One that takes the place of an actor that died must not live its life again: it draws from streams of its own.
        """
        envs = make_watched(self.envs, calls)
        agent = self.agent.make(envs.obs_spec, envs.action_spec, CPU)
        seed = self.seed if life == 0 else derive(self.seed, "life", life)
        return RolloutCollector(envs, None, seed, index, CPU, engine), agent


@dataclass(frozen=True)
class Places:
    """Where an actor finds what it shares with the learner: descriptors, and what lies behind them."""

    parameters: int
    parameter_columns: list[Column]
    slots: int
    slot_columns: list[list[Column]]
    desks: list[InferenceChannel] | None  # where actors ask for actions; None: they choose their own
    calls: int  # see `Watch`
    actors: int


@dataclass(frozen=True)
class Begin:
    """Start every environment anew."""

    iteration: int
    life: int  # 0, or for an actor in the place of another that died: how many had died by then
    stream: Stream | None


@dataclass(frozen=True)
class Order:
    """A trajectory is wanted."""

    slot: int


@dataclass(frozen=True)
class Done:
    """What was ordered is in its slot."""

    slot: int
    version: int
    episodes: list[Episode]
    env_seconds: float
    policy_seconds: float
    stream: Stream
    begins: bool  # the first since the environments began anew


class Reads(Protocol):
    """Where an actor finds the newest parameters."""

    def read(self, tensors: Mapping[str, Tensor]) -> int:
        """Copy them into tensors of the same names; returns their version."""
        ...


class Actor:
    """One actor, wherever it lives.

    Args:
        plan: what it is made of.
        index: its number.
        life: as in `Begin`.
        parameters: where the newest are.
        slots: where trajectories are written to, see `layout`.
        desk: where it asks for actions; None: it chooses its own.
        calls: its counter of calls of its environments.
    """

    def __init__(
        self,
        plan: ActorPlan,
        index: int,
        life: int,
        parameters: Reads,
        slots: Sequence[Mapping[str, Tensor]],
        desk: RemotePolicy | None,
        calls: Calls,
    ) -> None:
        self._desk = desk
        self._steps = plan.rollout_steps
        # The learner compiles the same programs first, and reports it.
        engine = make_engine(plan.engine, "cpu", discard_report) if desk is None else desk
        self.stepper, self._agent = plan.stepper(index, life, engine, calls)
        self._parameters = parameters
        self._acting = acting_tensors(self._agent)
        self._slots = slots
        self._begins = True

    def begin(self, begin: Begin) -> None:
        """Start every environment anew."""
        self.stepper.begin(begin.iteration)
        if begin.stream is not None:
            self.stepper.load_state_dict({"sampling": torch.from_numpy(begin.stream), "reward_scaler": None})
        self._begins = True

    def fill(self, slot: int) -> Done:
        """A trajectory, into its slot."""
        stepper = self.stepper
        before = stepper.env_seconds, stepper.policy_seconds
        version = self._parameters.read(self._acting) if self._desk is None else 0
        recording = RolloutBuffer(room=self._steps + 1)
        stepper.advance(self._agent, recording, self._steps)
        store(stepper.rollout(recording), self._slots[slot])
        if self._desk is not None:
            version = self._desk.take_version()
        episodes, stepper.episodes = stepper.episodes, []
        begins, self._begins = self._begins, False
        stream: Stream = np.asarray(stepper.state_dict()["sampling"])
        spent = stepper.env_seconds - before[0], stepper.policy_seconds - before[1]
        return Done(slot, version, episodes, *spent, stream, begins)


def act(plan: ActorPlan, places: Places, index: int, channel: "Connection[Any, Any]") -> None:
    """Do as the learner says; for `Workers`."""
    begin: Begin = channel.recv()
    shared = attach(places.slots, [column for slot in places.slot_columns for column in slot])
    slots = [
        {column.name.partition(".")[2]: shared[column.name] for column in slot}
        for slot in places.slot_columns
    ]
    parameters = SharedParameters(places.parameters, places.parameter_columns)
    desk = None if places.desks is None else RemotePolicy(places.desks[index])
    calls = counters(places.calls, places.actors)[index : index + 1]
    actor = Actor(plan, index, begin.life, parameters, slots, desk, calls)
    try:
        actor.begin(begin)
        while True:
            message: Begin | Order = channel.recv()
            if isinstance(message, Begin):
                actor.begin(message)
            else:
                channel.send(actor.fill(message.slot))
    except RunError as error:
        raise of_actor(error, plan, index) from error.__cause__
    finally:
        actor.stepper.envs.close()


def of_actor(error: RunError, plan: ActorPlan, index: int) -> RunError:
    """What an actor's environments raised, with which actor's they are."""
    first, last = index * plan.envs.num_envs, (index + 1) * plan.envs.num_envs - 1
    return RunError(f"{error} (actor {index}, which counts environments {first} to {last} from 0)")
