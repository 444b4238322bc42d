"""What the processes of an A3C run have in common: parameters, moments of optimizers, the lens, counters.

The worker's side of `runners/a3c.py`: copy, collect, learn, again and again.

Workers that learn beside each other: each from environments of its own, all of them the same parameters.
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
    """Memory that all see and change without locks. Every number has one writer, but for weights and moments.

    Args:
        memory: descriptor of shared memory.
        agent: of the run's kind; its parameters and its lens are of the sizes to share.
        optimizers: of the policy and of the critic.
        workers: W.
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
        columns += [array_spec(f"lens.{k}", part) for k, part in enumerate(normalize_fn)]
        columns += [ArraySpec(name, (workers,), np.int64) for name in ("steps", "updates")]
        columns += [ArraySpec("limit", (), np.int64), ArraySpec("returns", (3,), np.float64)]
        shared = as_tensors(attach(memory, columns))
        self.weights: list[Tensor] = [shared[f"weights.{i}"] for i in (0, 1)]  # of policy and critic, [P]
        self.moments: list[list[Tensor]] = [  # of their optimizers, [P] each
            [shared[f"moments.{i}.{k}"] for k in range(counts[i])] for i in (0, 1)
        ]
        self.normalize_fn: list[Tensor] = [shared[f"lens.{k}"] for k in range(len(normalize_fn))]
        self.steps = shared[
            "steps"
        ]  # [W] environment steps of each worker's updates; worker i writes number i
        self.updates = shared["updates"]  # [W] likewise
        self.limit = shared["limit"]  # workers rest when they have come so many steps together
        self.returns = shared["returns"]  # moments of RewardScaler: count, mean, squares

    @torch.no_grad()
    def move_to_shared(self, agent: Agent, optimizers: Sequence[Optimizer]) -> None:
        """From now on what these consist of is the common memory, which takes their numbers."""
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
        """Copy what it takes to act and to learn into an agent of the same kind, and into its scaler."""
        for parameters, weights in zip(_parameters(agent), self.weights, strict=True):
            if parameters:
                assign(parameters, weights)
        for part, shared in zip(tensor_leaves(agent.normalizer.normalize_fn), self.normalize_fn, strict=True):
            part.copy_(shared)
        if scaler is not None:
            count, mean, squares = self.returns.clone()
            scaler.moments.load_state_dict({"count": count, "mean": mean, "squares": squares})

    def write_returns(self, scaler: RewardScaler) -> None:
        """Let all know of the returns that the run has seen."""
        moments = scaler.moments
        self.returns.copy_(torch.stack([moments.count, moments.mean, moments.squares]))


def _parameters(agent: Agent) -> list[list[nn.Parameter]]:
    """Of the policy and of the critic."""
    return [list(agent.policy.parameters()), list(agent.critic.parameters())]


_CPU = torch.device("cpu")
MomentArrays = Mapping[str, NDArray[np.float64]]  # moments, as they travel


@dataclass(frozen=True)
class A3CSpec:
    """What a worker is made of, as plain values."""

    agent: AgentSpec
    envs: EnvSpec  # of one worker
    algorithm: Algorithm
    optimizer: OptimizerSpec
    critic_optimizer: OptimizerSpec
    reward_clip: float | None  # of scaled rewards, infinite for none; None: rewards stay as they are
    workers: int  # W
    rollout_steps: int  # t_max
    total_steps: int  # of the run, for schedules
    log_every: int  # updates of a worker between measurements of their health
    clip_range: float  # for `health.measure`
    seed: int  # of the run
    engine: EngineChoice


@dataclass(frozen=True)
class StartCommand:
    """Start every environment anew, and go on from there."""

    iteration: int
    generation: int  # 0, or for a worker in the place of another that died: how many had died by then
    warmup_steps: int = 0  # of each environment, for the statistics alone: take them and rest; 0: learn


@dataclass(frozen=True)
class Update:
    """One update that was made, or the steps of a warm-up."""

    steps: int
    episodes: list[Episode]
    metrics: Metrics | None
    updated: bool  # False: steps of a warm-up
    observations: MomentArrays  # moments of what was observed, for the normaliser
    returns: MomentArrays  # moments of what the reward scaler divides by; empty where there is none


WorkerMessage = Update | Literal["ready", "paused"]


class Worker:
    """One worker: an agent and environments of its own, and steps of the parameters that all have in common.

    Args:
        plan: what it is made of.
        memory: descriptor of what all have in common.
        index: its number.
        calls: its counter of calls of its environments.
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
        """Start every environment anew; all that is drawn from here on depends on seed, number, iteration and life."""
        seed = self.spec.seed if begin.generation == 0 else derive(self.spec.seed, "life", begin.generation)
        seed = seed if begin.iteration == 0 else derive(seed, "iteration", begin.iteration)
        seed = derive(seed, "warm-up") if begin.warmup_steps else seed
        collector = RolloutCollector(self.envs, self.scaler, seed, self.index, _CPU, self.engine)
        collector.begin(0)
        self.runner = SyncRunner(collector, self.spec.rollout_steps, lag=0)

    @property
    def steps_left(self) -> bool:
        """Whether there is more to do before all rest."""
        return int(self.shared.steps.sum()) < int(self.shared.limit)

    def warm_up(self, steps: int) -> Update:
        """Take so many steps of each environment with the initial policy."""
        self.shared.read(self.agent, self.scaler)
        rollout = self.runner.collector.collect(self.agent, steps)
        return self._report(rollout, None, updated=False)

    def update(self) -> Update:
        """One update of the parameters in common, along a gradient at a copy of them."""
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
        # Of others alone: its own comes to the counter below.
        lag = float(int(shared.updates.sum()) - copied)
        shared.updates[self.index] += 1
        return self._report(rollout, None if metrics is None else metrics | {"policy_lag": lag}, updated=True)

    def _report(self, rollout: Rollout, metrics: Metrics | None, updated: bool) -> Update:
        """Count the steps of a rollout; returns what the run is to know of it."""
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

        The workers take turns. The last updates of the run are measured, too: those that spend the budget if each other
        worker finishes an update of this size first. Which one is the last depends on the timing of the workers.
        """
        if int(self.shared.steps.sum()) + self.spec.workers * rollout.steps >= self.spec.total_steps:
            return True
        every, turn = self.spec.log_every, self.index * self.spec.log_every // self.spec.workers
        number = int(self.shared.updates[self.index]) + 1
        return (number + turn) % every == 0


def run_worker(spec: A3CSpec, memory: int, calls: int, index: int, channel: "Connection[Any, Any]") -> None:
    """Do as the run says, until it is over; for `WorkerPool`."""
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
    """Steps of what is in common, 0 for the policy and 1 for the critic; where there are none, none."""
    if not isinstance(own, GradientSteps):
        return own
    return SharedSteps(own, shared.weights[which], shared.moments[which])


def _to_arrays(moments: State) -> MomentArrays:
    return {name: tensor.numpy() for name, tensor in moments.items()}


def _to_tensors(numbers: MomentArrays) -> State:
    """Moments that have arrived."""
    return {name: torch.from_numpy(np.asarray(array)) for name, array in numbers.items()}


class A3C:
    """W processes, each with n environments, that change one set of parameters without locks.

    Each copies the parameters θ' <- θ, collects t_max steps of its environments with them, and makes the rule's update:
    gradients at θ', steps of θ (`SharedSteps`). This process steps nothing: it counts what they report, learns the
    statistics by which observations and rewards are scaled, and starts again who dies. The workers rest when they
    have come to the next checkpoint together, and begin anew after it.

    Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3.

    Args:
        agent: of which parameters and lens become those that the workers change.
        learner: of which the optimizers' moments become those that the workers change.
        reward_scaler: of the run; None leaves rewards raw.
        envs: of the kind that workers step; never stepped.
        plan: what each worker is made of.
        max_restarts: workers that may die and be started again, over the run.
        warmup_steps: environment steps, over all workers, that an empty observation normaliser learns from before any
            worker makes an update; 0 for none.
        checkpoint_every: environment steps at whose multiples all rest; None: at the run's end alone.
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
        self.workers: WorkerPool | None = None  # until the run begins
        self._iteration = 0
        self._warming = False  # the workers take the steps of a warm-up
        self._steps = [0] * spec.workers  # reported by each; the first of them has those of earlier lives
        self._updates = [0] * spec.workers
        self._reports: deque[IterationReport] = deque()
        self._paused: set[int] = set()

    def __str__(self) -> str:
        return f"{self.spec.workers} workers x {self.spec.envs.num_envs} environments x {self.spec.rollout_steps} steps"

    def begin(self, iteration: int) -> None:
        """Start every environment of every worker anew, and let them go on to the next checkpoint."""
        self._iteration = iteration
        self._warming = self.warmup_steps > 0 and self.agent.normalizer.count == 0
        if self.workers is None:
            self.workers = self._start_workers()
        self._start_resting(self.workers)

    def _start_resting(self, workers: WorkerPool) -> None:
        """Have those that rest begin."""
        self.shared.limit.fill_(self._limit())
        for index in sorted(self._paused):
            workers.send(index, self._start_command(generation=0))
        self._paused.clear()

    def _start_command(self, generation: int) -> StartCommand:
        num_envs = self.spec.workers * self.spec.envs.num_envs
        steps = math.ceil(self.warmup_steps / num_envs) if self._warming else 0
        return StartCommand(self._iteration, generation, steps)

    def _start_workers(self) -> WorkerPool:
        """Workers, and what they have in common, which is from then on what agent and learner consist of."""
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
        """Environment steps of the next checkpoint, or of the end."""
        if self.checkpoint_every is None:
            return self.spec.total_steps
        following = (sum(self._steps) // self.checkpoint_every + 1) * self.checkpoint_every
        return min(self.spec.total_steps, following)

    def next(self, counters: Counters) -> IterationReport:
        """The next update that a worker reports."""
        self._iteration = counters.iterations
        while not self._reports:
            self._receive()
        raise_if_nonfinite(self.agent, counters.iterations + 1)
        return self._reports.popleft()

    can_roll_back = False  # workers learn meanwhile

    def roll_back(self, counters: Counters) -> int:
        """End the workers; what they learned stands, and what they reported is still told."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        return 0

    def pause(self) -> Sequence[IterationReport]:
        """Let all rest after the update that they are at; what they have reported since."""
        if self.workers is not None:
            self._warming = False  # all rest after their steps of it
            self.shared.limit.fill_(0)
            while len(self._paused) < self.spec.workers:
                self._receive()
        reports = list(self._reports)
        self._reports.clear()
        raise_if_nonfinite(self.agent, self._iteration + len(reports))
        return reports

    def _receive(self) -> None:
        assert self.workers is not None, "nothing began"
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
                self._start_resting(workers)
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
            # One that took another's place: what that one did and could no longer report has not been.
            self.shared.steps[index] = self._steps[index]
            self.shared.updates[index] = self._updates[index]
            self._paused.discard(index)
            workers.send(index, self._start_command(generation=workers.restarts))

    def state_dict(self) -> State:
        """How far all have come, and statistics. Streams are made anew where the environments are."""
        scaler = self.reward_scaler
        return {"steps": sum(self._steps), "reward_scaler": None if scaler is None else scaler.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._steps[0] = state["steps"]
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        """End the workers; what they reported is still told."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        self.envs.close()
