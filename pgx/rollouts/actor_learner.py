"""Actors that step environments at their own pace, and a learner that takes their trajectories as they come."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Engine
from pgx.core.cpu import available_cores
from pgx.core.data import Rollout
from pgx.core.schema import Count, Index, Positive
from pgx.core.specs import choices
from pgx.distributed.ray_cluster import suppress_ray_logs
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.actors import (
    _CPU,
    Actors,
    ActorSpec,
    StreamState,
    Trajectory,
    concatenate,
    trajectory_specs,
)
from pgx.rollouts.collector import respond
from pgx.rollouts.inference import InferenceServer, example_inputs
from pgx.rollouts.local_actors import LocalActors
from pgx.rollouts.shared_parameters import inference_tensors
from pgx.rollouts.sizes import Auto, resolve_sizes
from pgx.rollouts.sources import Episode


class ActorLearner:
    """Gives out rollouts of so many trajectories side by side, which actors go on making while it is learned from them.

    Trajectory k is made by actor k mod W, with the newest parameters of the moment when it begins. Trajectories are
    taken in the order of k, and so many new ones are ordered when the next parameters are published: `queue` of them
    are begun and not yet learned from at any time, none is more than ceil(queue / trajectories) - 1 updates old, and
    whoever is faster waits for the other. With queue = trajectories actors wait for the learner, and nothing is old.

    Source: Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
    architectures", 2018, section 3.

    Args:
        envs: of the kind that actors step; never stepped.
        actors: W of them.
        reward_scaler: divides the rewards of a rollout by one number; None leaves them raw.
        trajectories: of a rollout, >= 1.
        queue: >= trajectories.
        rows: T and n, steps and environments of a trajectory.
        device: where the networks are.
    """

    def __init__(
        self,
        envs: VectorEnv,
        actors: Actors,
        reward_scaler: RewardScaler | None,
        trajectories: int,
        queue: int,
        rows: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.envs = envs
        self.actors = actors
        self.trajectories = trajectories
        self.queue = queue
        self.rows = rows
        self.device = device
        self.episodes: list[Episode] = []
        self.env_seconds = 0.0
        self.policy_seconds = 0.0
        # One number divides all rewards, while each actor's environments have returns of their own.
        self._scalers = None if reward_scaler is None else reward_scaler.shared(actors.count)
        self._streams: list[StreamState | None] = [None] * actors.count
        self._started = False
        self._version = 0  # of the parameters that are published
        self._requested = 0  # k, since the environments began
        self._pending = 0  # ordered and not yet taken
        self.steps = 0
        self.steps_taken = 0
        self._lags: list[int] = []
        self._fill = 0.0

    def __str__(self) -> str:
        steps, num_envs = self.rows
        return (
            f"{self.actors.count} actors x {num_envs} environments x {steps} steps, {self.trajectories} trajectories "
            f"an update, {self.queue} in the queue"
        )

    def begin(self, iteration: int) -> None:
        """Start every environment anew; trajectories under way are dropped, and their draws with them."""
        self.actors.begin(iteration, self._streams)
        self._started, self._requested, self._pending = True, 0, 0

    def collect(self, agent: Agent) -> Rollout:
        """The next trajectories [T, trajectories * n], of this agent or of what it was some updates ago.

        Trajectories in which every environment only reset itself (T = 1) hold no data, and the next ones are taken.
        """
        if not self._started:
            self.begin(iteration=0)
        self.steps_taken = 0
        self._publish(agent)
        self._request(self.queue - self._pending)
        self._fill = self.actors.finished() / self.queue
        while (rollout := self._taken(self.trajectories)).steps == 0:
            self._request(self.trajectories)
        return rollout

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Rollouts of one trajectory of each actor, until there are so many steps; nothing is ordered ahead."""
        if not self._started:
            self.begin(iteration=0)
        self._publish(agent)
        length, num_envs = self.rows
        for _ in range(math.ceil(steps / (length * num_envs * self.actors.count))):
            self._request(self.actors.count)
            yield self._taken(self.actors.count)

    def _publish(self, agent: Agent) -> None:
        self._version += 1
        self.actors.publish(self._version, inference_tensors(agent))

    def _request(self, count: int) -> None:
        """Order so many trajectories, of one actor after the other."""
        for _ in range(count):
            self.actors.request(self._requested % self.actors.count)
            self._requested += 1
        self._pending += count

    def _taken(self, count: int) -> Rollout:
        """The oldest trajectories side by side; one number divides all their rewards."""
        taken = [self.actors.take() for _ in range(count)]
        self._pending -= count
        self._lags = [self._version - trajectory.version for trajectory in taken]
        for trajectory in taken:
            self._record(trajectory)
        rollout = concatenate([trajectory.columns for trajectory in taken], self.device)
        self.steps = rollout.steps
        self.steps_taken += rollout.steps
        if self._scalers is None:
            return rollout
        return replace(rollout, reward=self._scalers[0].scaled(rollout.reward))

    def _record(self, trajectory: Trajectory) -> None:
        """Note all of a trajectory but its steps; the reward scaler learns its returns."""
        self.episodes += trajectory.episodes
        self.env_seconds += trajectory.env_seconds / self.actors.count  # actors work beside each other
        self.policy_seconds += trajectory.policy_seconds / self.actors.count
        self._streams[trajectory.actor] = trajectory.stream
        if self._scalers is not None:
            columns = trajectory.columns
            done = columns["terminated"] | columns["truncated"]
            scaler = self._scalers[trajectory.actor]
            if trajectory.begins:
                scaler.begin()
            scaler.observe(columns["reward"], done, columns["valid"])

    def metrics(self) -> Metrics:
        return {
            "policy_lag": float(np.mean(self._lags)),
            "policy_lag_max": float(max(self._lags)),
            "queue_fill": self._fill,
            "worker_restarts": float(self.actors.restarts),
        }

    def state_dict(self) -> State:
        """The actors' streams, as they were after the last trajectories that were learned from; and statistics."""
        return {
            "streams": [None if stream is None else torch.from_numpy(stream) for stream in self._streams],
            "reward_scaler": None if self._scalers is None else self._scalers[0].state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        streams = [None if stream is None else stream.numpy() for stream in state["streams"]]
        if len(streams) == self.actors.count:  # else on a machine where `auto` means another number of them
            self._streams = streams
        if self._scalers is not None:
            self._scalers[0].load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        self.actors.close()
        self.envs.close()


def make_actor_learner(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    device: torch.device,
    engine: Engine,
    num_envs: int,
    actor_plan: Callable[[int], ActorSpec],
    rollout_steps: Count,
    workers: Count | Auto,
    trajectories: Count | Auto,
    queue: Count | Auto,
    inference: Literal["actor", "learner"],
    max_restarts: Index,
    backend: Literal["local", "ray"],
    address: str | None,
    connect_seconds: Positive,
) -> ActorLearner:
    """An ActorLearner with actors of its own. Args as in `ActorSizes` and both.

    Args:
        engine: runs the policy where the learner chooses the actions.
        num_envs: over all actors.
        actor_plan: what each of so many actors is made of.
        inference: who answers to observations.
        max_restarts: of actors, over the run.
        backend: where actors run: in processes of this machine, or of Ray's.
        address: of a Ray cluster, host:port or auto; None: a Ray of this run's own.
        connect_seconds: to wait for the cluster, and for its room for the actors.
    """
    size = resolve_sizes(num_envs, workers, trajectories, queue, available_cores())
    plan = actor_plan(size.workers)
    twin = plan.agent.make(envs.obs_spec, envs.action_spec, _CPU)
    state = twin.policy.recurrent_state
    state_size = 0 if state is None else state.size
    columns = trajectory_specs(
        rollout_steps, size.envs_per_actor, envs.obs_spec, envs.action_spec, state_size
    )
    given = example_inputs(twin, columns[0], size.envs_per_actor)
    service = None
    if inference == "learner":
        service = InferenceServer(twin, engine, given, sum(choices(envs.action_spec)), size.workers)
    elif plan.engine.compiled:
        with torch.inference_mode():  # compiled here, once, and found on disk by every actor
            engine.bind(respond, twin.policy, twin.normalizer.normalize_fn, False)(*given)
    actors: Actors
    match backend:
        case "local":
            actors = LocalActors(
                plan, size.workers, max_restarts, size.queue, columns, inference_tensors(twin), service
            )
        case "ray":
            suppress_ray_logs()
            from pgx.rollouts.ray_actors import RayActors  # imports Ray, an extra

            actors = RayActors(plan, size.workers, max_restarts, columns, address, connect_seconds)
    rows = (rollout_steps, size.envs_per_actor)
    return ActorLearner(envs, actors, reward_scaler, size.trajectories, size.queue, rows, device)
