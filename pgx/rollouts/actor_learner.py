"""Runner whose rollouts come from actors that collect trajectories while the learner updates."""

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
from pgx.core.specs import choice_sizes
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
    """Runner that returns rollouts of several trajectories, which actors collect during the learner's updates.

    Actor k mod W collects trajectory k with the latest parameters at its start. The runner takes trajectories in the
    order of k, and requests as many new ones when the next parameters are published. So `queue` trajectories are
    requested and not yet learned from at any time, the policy lag is at most ceil(queue / trajectories) - 1, and the
    faster side waits for the slower one. With queue = trajectories actors wait for the learner, and the lag is 0.

    Source: Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
    architectures", 2018, section 3.

    Args:
        envs: environments like those of the actors; they are not stepped.
        actors: W actors.
        reward_scaler: divides the rewards of a rollout by one number; None: rewards stay raw.
        trajectories: number in a rollout, >= 1.
        queue: maximum number that is requested and not yet learned from, >= trajectories.
        rows: T and n, steps and environments of a trajectory.
        device: device of the networks.
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
        # One number divides all rewards; returns are tracked for each actor.
        self._scalers = None if reward_scaler is None else reward_scaler.shared(actors.count)
        self._streams: list[StreamState | None] = [None] * actors.count
        self._started = False
        self._version = 0  # of the published parameters
        self._requested = 0  # k: trajectories requested since the last reset
        self._pending = 0  # requested and not yet taken
        self.steps = 0
        self.steps_taken = 0
        self._lags: list[int] = []
        self._queue_fill = 0.0

    def __str__(self) -> str:
        steps, num_envs = self.rows
        return (
            f"{self.actors.count} actors x {num_envs} environments x {steps} steps, {self.trajectories} trajectories "
            f"an update, {self.queue} in the queue"
        )

    def begin(self, iteration: int) -> None:
        """Reset all environments. Unfinished trajectories are dropped, and their use of random streams is undone."""
        self.actors.begin(iteration, self._streams)
        self._started, self._requested, self._pending = True, 0, 0

    def collect(self, agent: Agent) -> Rollout:
        """Return the next trajectories, [T, trajectories * n], of this agent or of its state some updates ago.

        If every environment only resets (possible with T = 1), there is no data, and the next trajectories are taken.
        """
        if not self._started:
            self.begin(iteration=0)
        self.steps_taken = 0
        self._publish(agent)
        self._request(self.queue - self._pending)
        self._queue_fill = self.actors.finished() / self.queue
        while (rollout := self._take(self.trajectories)).steps == 0:
            self._request(self.trajectories)
        return rollout

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Yield rollouts of one trajectory of each actor until they have enough steps, without requests in advance."""
        if not self._started:
            self.begin(iteration=0)
        self._publish(agent)
        length, num_envs = self.rows
        for _ in range(math.ceil(steps / (length * num_envs * self.actors.count))):
            self._request(self.actors.count)
            yield self._take(self.actors.count)

    def _publish(self, agent: Agent) -> None:
        self._version += 1
        self.actors.publish(self._version, inference_tensors(agent))

    def _request(self, count: int) -> None:
        """Request `count` trajectories from the actors in turn."""
        for _ in range(count):
            self.actors.request(self._requested % self.actors.count)
            self._requested += 1
        self._pending += count

    def _take(self, count: int) -> Rollout:
        """Take the oldest trajectories, and return them as a rollout with all rewards divided by one number."""
        trajectories = [self.actors.take() for _ in range(count)]
        self._pending -= count
        self._lags = [self._version - trajectory.version for trajectory in trajectories]
        for trajectory in trajectories:
            self._record(trajectory)
        rollout = concatenate([trajectory.columns for trajectory in trajectories], self.device)
        self.steps = rollout.steps
        self.steps_taken += rollout.steps
        if self._scalers is None:
            return rollout
        return replace(rollout, reward=self._scalers[0].scaled(rollout.reward))

    def _record(self, trajectory: Trajectory) -> None:
        """Update episodes, times, random streams and the reward scaler from a trajectory."""
        self.episodes += trajectory.episodes
        self.env_seconds += trajectory.env_seconds / self.actors.count  # actors work in parallel
        self.policy_seconds += trajectory.policy_seconds / self.actors.count
        self._streams[trajectory.actor] = trajectory.stream
        if self._scalers is not None:
            columns = trajectory.columns
            done = columns["terminated"] | columns["truncated"]
            scaler = self._scalers[trajectory.actor]
            if trajectory.after_reset:
                scaler.begin()
            scaler.observe(columns["reward"], done, columns["valid"])

    def metrics(self) -> Metrics:
        return {
            "policy_lag": float(np.mean(self._lags)),
            "policy_lag_max": float(max(self._lags)),
            "queue_fill": self._queue_fill,
            "worker_restarts": float(self.actors.restarts),
        }

    def state_dict(self) -> State:
        """Return the random streams of the actors after the last trajectories that were taken, and statistics."""
        return {
            "streams": [None if stream is None else torch.from_numpy(stream) for stream in self._streams],
            "reward_scaler": None if self._scalers is None else self._scalers[0].state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        streams = [None if stream is None else stream.numpy() for stream in state["streams"]]
        if len(streams) == self.actors.count:  # differs where `auto` resolves to another number of actors
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
    actor_spec: Callable[[int], ActorSpec],
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
    """Return an ActorLearner with new actors. Other args as in `ActorLearner` and `ActorSizes`.

    Args:
        engine: executes the policy if inference="learner".
        num_envs: environments of all actors.
        actor_spec: function from the number of actors to the description of one.
        inference: process that chooses the actions.
        max_restarts: total restarts of actors in the run.
        backend: processes of this machine, or of Ray.
        address: address of a Ray cluster, host:port or auto; None: start Ray for this run.
        connect_seconds: time limit for the cluster to answer and to have room for the actors.
    """
    sizes = resolve_sizes(num_envs, workers, trajectories, queue, available_cores())
    spec = actor_spec(sizes.workers)
    agent = spec.agent.make(envs.obs_spec, envs.action_spec, _CPU)
    state = agent.policy.recurrent_state
    state_size = 0 if state is None else state.size
    columns = trajectory_specs(
        rollout_steps, sizes.envs_per_actor, envs.obs_spec, envs.action_spec, state_size
    )
    inputs = example_inputs(agent, columns[0], sizes.envs_per_actor)
    server = None
    if inference == "learner":
        server = InferenceServer(agent, engine, inputs, sum(choice_sizes(envs.action_spec)), sizes.workers)
    elif spec.engine.compiled:
        with torch.inference_mode():  # compile here once; actors load the programs from disk
            engine.bind(respond, agent.policy, agent.normalizer.normalize_fn, False)(*inputs)
    actors: Actors
    match backend:
        case "local":
            actors = LocalActors(
                spec, sizes.workers, max_restarts, sizes.queue, columns, inference_tensors(agent), server
            )
        case "ray":
            suppress_ray_logs()
            from pgx.rollouts.ray_actors import RayActors  # Ray is an optional dependency

            actors = RayActors(spec, sizes.workers, max_restarts, columns, address, connect_seconds)
    rows = (rollout_steps, sizes.envs_per_actor)
    return ActorLearner(envs, actors, reward_scaler, sizes.trajectories, sizes.queue, rows, device)
