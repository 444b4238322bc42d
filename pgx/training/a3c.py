"""Asynchronous advantage actor-critic: workers update shared parameters without locks (Hogwild).

From top to bottom: the shared memory, the worker (copy, collect, update) and the coordinator in the trainer's process.
"""

import math
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgx.compiler import EngineChoice, discard_report, make_engine, print_report
from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Algorithm, Learner, Optimizer, OptimizerSpec
from pgx.core.data import Rollout
from pgx.core.errors import RunError
from pgx.core.seeding import derive, generator
from pgx.core.tensor_tree import tensor_leaves
from pgx.distributed.shared_memory import ArraySpec, allocate, attach
from pgx.distributed.worker_pool import CallCounts, Watchdog, WorkerPool, attach_call_counts
from pgx.envs.make import EnvSpec, make_counted_envs
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.networks.agents import AgentSpec
from pgx.ops.optim import GradientSteps
from pgx.ops.optim.gradient_steps import SharedSteps
from pgx.ops.params import assign, flatten, split
from pgx.rollouts.collector import RolloutCollector
from pgx.rollouts.shared_parameters import array_spec, as_tensors
from pgx.rollouts.sources import Episode
from pgx.rollouts.sync import SyncRunner
from pgx.training.loop import Counters, IterationReport, iterate
from pgx.training.nan_debug.post_mortem import raise_if_nonfinite


class SharedState:
    """Shared memory of all processes: parameters, optimizer moments, observation statistics and counters.

    There are no locks. Only weights and moments have several writers.

    Args:
        memory: file descriptor of the shared memory.
        agent: agent whose parameter and statistics sizes define the layout.
        optimizers: of the policy and of the critic; the number of their moments defines the layout.
        workers: number of workers W.
    """

    def __init__(
        self, memory: int, agent: Agent, optimizers: tuple[Optimizer, Optimizer], workers: int
    ) -> None:
        sizes = [sum(p.numel() for p in parameters) for parameters in _parameters(agent)]
        counts = [len(o.moments) if isinstance(o, GradientSteps) else 0 for o in optimizers]
        normalize_fn = list(tensor_leaves(agent.normalizer.normalize_fn))
        columns = [ArraySpec(f"weights.{i}", (size,), np.float32) for i, size in enumerate(sizes)]
        columns += [
            ArraySpec(f"moments.{i}.{k}", (sizes[i],), np.float32) for i in (0, 1) for k in range(counts[i])
        ]
        columns += [array_spec(f"normalizer.{k}", part) for k, part in enumerate(normalize_fn)]
        columns += [ArraySpec(name, (workers,), np.int64) for name in ("steps", "updates")]
        columns += [ArraySpec("limit", (), np.int64), ArraySpec("returns", (3,), np.float64)]
        shared = as_tensors(attach(memory, columns))
        self.weights: list[Tensor] = [shared[f"weights.{i}"] for i in (0, 1)]  # of policy and critic, [P]
        self.moments: list[list[Tensor]] = [  # of their optimizers, [P] each
            [shared[f"moments.{i}.{k}"] for k in range(counts[i])] for i in (0, 1)
        ]
        self.normalize_fn: list[Tensor] = [shared[f"normalizer.{k}"] for k in range(len(normalize_fn))]
        self.steps = shared[
            "steps"
        ]  # [W] environment steps of each worker's updates; worker i writes number i
        self.updates = shared["updates"]  # [W] likewise
        self.limit = shared["limit"]  # workers pause when the sum of `steps` reaches it
        self.returns = shared["returns"]  # moments of RewardScaler: count, mean, squares

    @torch.no_grad()
    def move_to_shared(self, agent: Agent, optimizers: Sequence[Optimizer]) -> None:
        """Copy parameters, moments and statistics to shared memory, and make agent and optimizers use it."""
        for parameters, weights in zip(_parameters(agent), self.weights, strict=True):
            if parameters:
                weights.copy_(flatten(parameters))
                for parameter, part in zip(parameters, split(weights, parameters), strict=True):
                    parameter.data = part
        for optimizer, moments in zip(optimizers, self.moments, strict=True):
            if isinstance(optimizer, GradientSteps):
                for shared, moment in zip(moments, optimizer.moments, strict=True):
                    shared.copy_(moment)
                optimizer.moments = moments
        for part, shared in zip(tensor_leaves(agent.normalizer.normalize_fn), self.normalize_fn, strict=True):
            shared.copy_(part)
            part.data = shared

    @torch.no_grad()
    def read(self, agent: Agent, scaler: RewardScaler | None) -> None:
        """Copy the shared parameters and statistics to a local agent and reward scaler."""
        for parameters, weights in zip(_parameters(agent), self.weights, strict=True):
            if parameters:
                assign(parameters, weights)
        for part, shared in zip(tensor_leaves(agent.normalizer.normalize_fn), self.normalize_fn, strict=True):
            part.copy_(shared)
        if scaler is not None:
            count, mean, squares = self.returns.clone()
            scaler.moments.load_state_dict({"count": count, "mean": mean, "squares": squares})

    def write_returns(self, scaler: RewardScaler) -> None:
        """Write the statistics of the reward scaler to shared memory."""
        moments = scaler.moments
        self.returns.copy_(torch.stack([moments.count, moments.mean, moments.squares]))


def _parameters(agent: Agent) -> list[list[nn.Parameter]]:
    """Return the parameters of the policy and of the critic."""
    return [list(agent.policy.parameters()), list(agent.critic.parameters())]


_CPU = torch.device("cpu")
MomentArrays = Mapping[str, NDArray[np.float64]]  # as NumPy arrays, for messages between processes


@dataclass(frozen=True)
class A3CSpec:
    """Specification of a worker, in plain values that can be pickled."""

    agent: AgentSpec
    envs: EnvSpec  # of one worker
    algorithm: Algorithm
    optimizer: OptimizerSpec
    critic_optimizer: OptimizerSpec
    reward_clip: float | None  # bound on scaled rewards, infinite for none; None: rewards are not scaled
    workers: int  # W
    rollout_steps: int  # t_max
    total_steps: int  # of the run, for schedules
    log_every: int  # updates of a worker between measurements of their health
    clip_range: float  # for `health.measure`
    seed: int  # of the run
    engine: EngineChoice


@dataclass(frozen=True)
class StartCommand:
    """Order to reset all environments of a worker and to collect or update until the step limit."""

    iteration: int
    generation: int  # 0, or for a worker that replaces a crashed one: the number of crashes so far
    warmup_steps: int = 0  # > 0: only collect so many steps of each environment, for the statistics


@dataclass(frozen=True)
class Update:
    """Message of a worker: one update, or the steps of a warm-up."""

    steps: int
    episodes: list[Episode]
    metrics: Metrics | None
    updated: bool  # False: steps of a warm-up
    observations: MomentArrays  # of the observations, for the normalizer
    returns: MomentArrays  # of the returns, for the reward scaler; empty without one


WorkerMessage = Update | Literal["ready", "paused"]


class Worker:
    """Worker with a local agent and environments, which applies its gradients to the shared parameters.

    Args:
        spec: specification of the worker.
        memory: file descriptor of the shared memory.
        index: index of the worker, in [0, W).
        calls: counter of the calls of its environments, [1].
    """

    def __init__(self, spec: A3CSpec, memory: int, index: int, calls: CallCounts) -> None:
        self.spec = spec
        self.index = index
        self.envs = make_counted_envs(spec.envs, calls)
        self.engine = make_engine(spec.engine, "cpu", print_report if index == 0 else discard_report)
        self.agent = spec.agent.make(self.envs.obs_spec, self.envs.action_spec, _CPU)
        own = (
            spec.optimizer.make(self.agent.policy, self.engine),
            spec.critic_optimizer.make(self.agent.critic, self.engine),
        )
        self.shared = SharedState(memory, self.agent, own, spec.workers)
        steps = [_shared_optimizer(optimizer, self.shared, i) for i, optimizer in enumerate(own)]
        self.learner = Learner(
            steps[0], steps[1], self.engine, generator(spec.seed, "minibatches", index=index)
        )
        self.scaler = None
        if spec.reward_clip is not None:
            self.scaler = RewardScaler(spec.algorithm.discount, spec.reward_clip)

    def begin(self, begin: StartCommand) -> None:
        """Reset all environments, with random streams that depend on seed, worker, iteration and generation."""
        seed = self.spec.seed if begin.generation == 0 else derive(self.spec.seed, "life", begin.generation)
        seed = seed if begin.iteration == 0 else derive(seed, "iteration", begin.iteration)
        seed = derive(seed, "warm-up") if begin.warmup_steps else seed
        collector = RolloutCollector(self.envs, self.scaler, seed, self.index, _CPU, self.engine)
        collector.begin(0)
        self.runner = SyncRunner(collector, self.spec.rollout_steps, lag=0)

    @property
    def steps_left(self) -> bool:
        """Return whether the workers together are below the step limit."""
        return int(self.shared.steps.sum()) < int(self.shared.limit)

    def warm_up(self, steps: int) -> Update:
        """Collect `steps` steps of each environment with the initial policy."""
        self.shared.read(self.agent, self.scaler)
        rollout = self.runner.collector.collect(self.agent, steps)
        return self._report(rollout, None, updated=False)

    def update(self) -> Update:
        """Copy the shared parameters, collect a rollout with the copy, and apply its gradients to the shared ones."""
        shared, spec = self.shared, self.spec
        shared.read(self.agent, self.scaler)
        copied = int(shared.updates.sum())
        progress = min(1.0, int(shared.steps.sum()) / spec.total_steps)
        rollout, metrics = iterate(
            self.agent,
            spec.algorithm,
            self.learner,
            self.runner,
            progress,
            spec.clip_range,
            spec.reward_clip,
            self._measured,
        )
        # Counts updates of other workers only: the counter of this worker increases below.
        lag = float(int(shared.updates.sum()) - copied)
        shared.updates[self.index] += 1
        return self._report(rollout, None if metrics is None else metrics | {"policy_lag": lag}, updated=True)

    def _report(self, rollout: Rollout, metrics: Metrics | None, updated: bool) -> Update:
        """Count the steps of a rollout and return the message about it."""
        self.shared.steps[self.index] += rollout.steps
        episodes = list(self.runner.episodes)
        self.runner.episodes.clear()
        return Update(
            rollout.steps,
            episodes,
            metrics,
            updated,
            _to_arrays(self.agent.normalizer.moments_of(rollout.obs[rollout.valid])),
            {} if self.scaler is None else _to_arrays(self.scaler.latest),
        )

    def _measured(self, rollout: Rollout) -> bool:
        """Return whether to measure the health of the next update.

        Every worker measures every `log_every`-th update, at shifted times. The last updates of the run are measured
        too. Their order depends on timing, so these are all that can be the last one if updates have equal sizes.
        """
        if int(self.shared.steps.sum()) + self.spec.workers * rollout.steps >= self.spec.total_steps:
            return True
        every, turn = self.spec.log_every, self.index * self.spec.log_every // self.spec.workers
        number = int(self.shared.updates[self.index]) + 1
        return (number + turn) % every == 0


def run_worker(spec: A3CSpec, memory: int, calls: int, index: int, channel: "Connection[Any, Any]") -> None:
    """Execute start commands until the process is stopped; the target of `WorkerPool`."""
    worker = Worker(spec, memory, index, attach_call_counts(calls, spec.workers)[index : index + 1])
    try:
        channel.send("ready")
        while True:
            begin: StartCommand = channel.recv()
            worker.begin(begin)
            if begin.warmup_steps:
                channel.send(worker.warm_up(begin.warmup_steps))
            while worker.steps_left and not begin.warmup_steps:
                channel.send(worker.update())
            channel.send("paused")
    finally:
        worker.envs.close()


def _shared_optimizer(own: Optimizer, shared: SharedState, which: int) -> Optimizer:
    """Return an optimizer that steps the shared weights (0: policy, 1: critic); `own` if it takes no gradient steps."""
    if not isinstance(own, GradientSteps):
        return own
    return SharedSteps(own, shared.weights[which], shared.moments[which])


def _to_arrays(moments: State) -> MomentArrays:
    return {name: tensor.numpy() for name, tensor in moments.items()}


def _to_tensors(numbers: MomentArrays) -> State:
    """Return moments as tensors."""
    return {name: torch.from_numpy(np.asarray(array)) for name, array in numbers.items()}


class A3C:
    """Training loop of W workers, each with n environments, that update one set of parameters without locks.

    Each worker repeats: copy the parameters θ' <- θ, collect t_max steps with θ', compute the gradients at θ' and
    apply them to θ (`SharedSteps`). This process steps no environments. It counts the reported steps, updates the
    statistics of observations and rewards, and restarts workers that crash. All workers pause at a checkpoint and reset
    their environments after it.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3.

    Args:
        agent: agent of the run; its parameters and statistics are moved to shared memory.
        learner: learner of the run; the moments of its optimizers are moved to shared memory.
        reward_scaler: reward scaler of the run; None: rewards are not scaled.
        envs: environments with the specs of the workers' ones; never stepped.
        spec: specification of each worker.
        max_restarts: number of worker restarts allowed in the run, >= 0.
        warmup_steps: environment steps over all workers, before the first update, from which an empty observation
            normalizer learns; 0: none.
        checkpoint_every: environment steps between checkpoints, at which all workers pause; None: only at the end.
    """

    def __init__(
        self,
        agent: Agent,
        learner: Learner,
        reward_scaler: RewardScaler | None,
        envs: VectorEnv,
        spec: A3CSpec,
        max_restarts: int,
        warmup_steps: int,
        checkpoint_every: int | None,
    ) -> None:
        self.agent = agent
        self.learner = learner
        self.reward_scaler = reward_scaler
        self.envs = envs
        self.spec = spec
        self.max_restarts = max_restarts
        self.warmup_steps = warmup_steps
        self.checkpoint_every = checkpoint_every
        self.workers: WorkerPool | None = None  # None before `begin`
        self._iteration = 0
        self._warming = False  # the workers collect warm-up steps
        self._steps = [0] * spec.workers  # by worker; the first number includes the steps before a resume
        self._updates = [0] * spec.workers
        self._reports: deque[IterationReport] = deque()
        self._paused: set[int] = set()

    def __str__(self) -> str:
        return f"{self.spec.workers} workers x {self.spec.envs.num_envs} environments x {self.spec.rollout_steps} steps"

    def begin(self, iteration: int) -> None:
        """Reset the environments of all workers and start them; they run to the next checkpoint."""
        self._iteration = iteration
        self._warming = self.warmup_steps > 0 and self.agent.normalizer.count == 0
        if self.workers is None:
            self.workers = self._start_workers()
        self._start_paused(self.workers)

    def _start_paused(self, workers: WorkerPool) -> None:
        """Send the start command to all paused workers."""
        self.shared.limit.fill_(self._limit())
        for index in sorted(self._paused):
            workers.send(index, self._start_command(generation=0))
        self._paused.clear()

    def _start_command(self, generation: int) -> StartCommand:
        num_envs = self.spec.workers * self.spec.envs.num_envs
        steps = math.ceil(self.warmup_steps / num_envs) if self._warming else 0
        return StartCommand(self._iteration, generation, steps)

    def _start_workers(self) -> WorkerPool:
        """Create the shared memory, move agent and learner to it, and return the started workers."""
        memory = allocate()
        weakref.finalize(self, os.close, memory)
        optimizers = self.learner.optimizer, self.learner.critic_optimizer
        self.shared = SharedState(memory, self.agent, optimizers, self.spec.workers)
        self.shared.move_to_shared(self.agent, optimizers)
        if self.reward_scaler is not None:
            self.shared.write_returns(self.reward_scaler)
        watchdog = Watchdog(self.spec.workers, self.spec.envs.worker_timeout)
        target = partial(run_worker, self.spec, memory, watchdog.memory)
        return WorkerPool(target, self.spec.workers, self.max_restarts, [memory, watchdog.memory], watchdog)

    def _limit(self) -> int:
        """Return the environment steps of the next checkpoint or of the end of the run."""
        if self.checkpoint_every is None:
            return self.spec.total_steps
        following = (sum(self._steps) // self.checkpoint_every + 1) * self.checkpoint_every
        return min(self.spec.total_steps, following)

    def next(self, counters: Counters) -> IterationReport:
        """Return the report of the next update of any worker."""
        self._iteration = counters.iterations
        while not self._reports:
            self._receive()
        raise_if_nonfinite(self.agent, counters.iterations + 1)
        return self._reports.popleft()

    can_roll_back = False  # workers continue to update the parameters

    def roll_back(self, counters: Counters) -> int:
        """Stop the workers. Their updates stay, and received reports remain available."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        return 0

    def pause(self) -> Sequence[IterationReport]:
        """Pause all workers after their current update and return the reports received since."""
        if self.workers is not None:
            self._warming = False  # start no updates when the warm-up ends
            self.shared.limit.fill_(0)
            while len(self._paused) < self.spec.workers:
                self._receive()
        reports = list(self._reports)
        self._reports.clear()
        raise_if_nonfinite(self.agent, self._iteration + len(reports))
        return reports

    def _receive(self) -> None:
        assert self.workers is not None, "begin() was not called"
        try:
            received = self.workers.receive(timeout_s=60.0)
        except RunError:
            self.close()
            raise
        for index, message in received:
            self._process(self.workers, index, message)

    def _process(self, workers: WorkerPool, index: int, message: WorkerMessage) -> None:
        if message == "paused":
            self._paused.add(index)
            if self._warming and len(self._paused) == self.spec.workers:
                self._warming = False
                self._start_paused(workers)
        elif isinstance(message, Update):
            self._steps[index] += message.steps
            self._updates[index] += message.updated
            self.agent.normalizer.merge(_to_tensors(message.observations))
            if self.reward_scaler is not None:
                self.reward_scaler.moments.merge(_to_tensors(message.returns))
                self.shared.write_returns(self.reward_scaler)
            metrics = message.metrics
            if metrics is not None:
                metrics = metrics | {"worker_restarts": float(workers.restarts)}
            self._reports.append(
                IterationReport(message.steps, message.episodes, metrics, updated=message.updated)
            )
        else:
            # A restarted worker: steps and updates that the crashed one did not report are not counted.
            self.shared.steps[index] = self._steps[index]
            self.shared.updates[index] = self._updates[index]
            self._paused.discard(index)
            workers.send(index, self._start_command(generation=workers.restarts))

    def state_dict(self) -> State:
        """Return the steps so far and the reward statistics. Workers derive their random streams again on resume."""
        scaler = self.reward_scaler
        return {"steps": sum(self._steps), "reward_scaler": None if scaler is None else scaler.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._steps[0] = state["steps"]
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        """Stop the workers and close the environments. Received reports remain available."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        self.envs.close()
