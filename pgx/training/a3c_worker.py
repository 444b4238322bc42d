"""The worker's side of `runners/a3c.py`: copy, collect, learn, again and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.compiler import EngineChoice, aloud, make_engine, silently
from pgx.core.data import Rollout
from pgx.core.plain import Metrics, State
from pgx.core.ranks import ALONE
from pgx.core.rule import Algorithm, Learner, Optimizer
from pgx.core.seeding import derive, generator
from pgx.envs.make import EnvsPlan
from pgx.envs.normalizers import RewardScaler
from pgx.networks.agents import AgentPlan
from pgx.ops.optim import CRITIC_OPTIMIZERS, OPTIMIZERS, GradientSteps, make_optimizer
from pgx.ops.optim.shared_steps import SharedSteps
from pgx.rollouts.stepper import Stepper
from pgx.rollouts.sync import SyncRunner
from pgx.rollouts.types import Episode
from pgx.rollouts.watch import Calls, counters, make_watched
from pgx.training.a3c_memory import Common
from pgx.training.loop import iterate

CPU = torch.device("cpu")
Numbers = Mapping[str, NDArray[np.float64]]  # moments, as they travel


@dataclass(frozen=True)
class A3CPlan:
    """What a worker is made of, as plain values."""

    agent: AgentPlan
    envs: EnvsPlan  # of one worker
    algorithm: Algorithm
    optimizer: Mapping[str, Any]  # its name and its values
    critic_optimizer: Mapping[str, Any]  # its name and its values
    reward_clip: float | None  # of scaled rewards, infinite for none; None: rewards stay as they are
    workers: int  # W
    rollout_steps: int  # t_max
    total_steps: int  # of the run, for schedules
    log_every: int  # updates of a worker between measurements of their health
    clip_range: float  # for `health.measure`
    seed: int  # of the run
    engine: EngineChoice


@dataclass(frozen=True)
class Begin:
    """Start every environment anew, and go on from there."""

    iteration: int
    life: int  # 0, or for a worker in the place of another that died: how many had died by then
    warmup_steps: int = 0  # of each environment, for the statistics alone: take them and rest; 0: learn


@dataclass(frozen=True)
class Update:
    """One update that was made, or the steps of a warm-up."""

    steps: int
    episodes: list[Episode]
    metrics: Metrics | None
    updated: bool  # False: steps of a warm-up
    observations: Numbers  # moments of what was observed, for the normaliser
    returns: Numbers  # moments of what the reward scaler divides by; empty where there is none


Said = Update | Literal["ready", "resting"]


class Worker:
    """One worker: an agent and environments of its own, and steps of the parameters that all have in common.

    Args:
        plan: what it is made of.
        memory: descriptor of what all have in common.
        index: its number.
        calls: its counter of calls of its environments.
    """

    def __init__(self, plan: A3CPlan, memory: int, index: int, calls: Calls) -> None:
        self.plan = plan
        self.index = index
        self.envs = make_watched(plan.envs, calls)
        self.engine = make_engine(plan.engine, "cpu", aloud if index == 0 else silently)
        self.agent = plan.agent.make(self.envs.obs_spec, self.envs.action_spec, CPU)
        own = (
            make_optimizer(OPTIMIZERS, plan.optimizer, self.agent.policy, self.engine, ALONE),
            make_optimizer(CRITIC_OPTIMIZERS, plan.critic_optimizer, self.agent.critic, self.engine, ALONE),
        )
        self.common = Common(memory, self.agent, own, plan.workers)
        steps = [_shared(optimizer, self.common, i) for i, optimizer in enumerate(own)]
        self.learner = Learner(
            steps[0], steps[1], self.engine, generator(plan.seed, "minibatches", index=index)
        )
        self.scaler = None
        if plan.reward_clip is not None:
            self.scaler = RewardScaler(plan.algorithm.discount, plan.reward_clip)

    def begin(self, begin: Begin) -> None:
        """Start every environment anew; all that is drawn from here on depends on seed, number, iteration and life."""
        seed = self.plan.seed if begin.life == 0 else derive(self.plan.seed, "life", begin.life)
        seed = seed if begin.iteration == 0 else derive(seed, "iteration", begin.iteration)
        seed = derive(seed, "warm-up") if begin.warmup_steps else seed
        stepper = Stepper(self.envs, self.scaler, seed, self.index, CPU, self.engine)
        stepper.begin(0)
        self.runner = SyncRunner(stepper, self.plan.rollout_steps, lag=0)

    @property
    def due(self) -> bool:
        """Whether there is more to do before all rest."""
        return int(self.common.steps.sum()) < int(self.common.limit)

    def warm_up(self, steps: int) -> Update:
        """Take so many steps of each environment with the initial policy."""
        self.common.read(self.agent, self.scaler)
        rollout = self.runner.stepper.collect(self.agent, steps)
        return self._noted(rollout, None, updated=False)

    def update(self) -> Update:
        """One update of the parameters in common, along a gradient at a copy of them."""
        common, plan = self.common, self.plan
        common.read(self.agent, self.scaler)
        copied = int(common.updates.sum())
        progress = min(1.0, int(common.steps.sum()) / plan.total_steps)
        rollout, metrics = iterate(
            self.agent,
            plan.algorithm,
            self.learner,
            self.runner,
            progress,
            plan.clip_range,
            plan.reward_clip,
            self._measured,
        )
        # Of others alone: its own comes to the counter below.
        lag = float(int(common.updates.sum()) - copied)
        common.updates[self.index] += 1
        return self._noted(rollout, None if metrics is None else metrics | {"policy_lag": lag}, updated=True)

    def _noted(self, rollout: Rollout, metrics: Metrics | None, updated: bool) -> Update:
        """Count the steps of a rollout; returns what the run is to know of it."""
        self.common.steps[self.index] += rollout.steps
        episodes = list(self.runner.episodes)
        self.runner.episodes.clear()
        return Update(
            rollout.steps,
            episodes,
            metrics,
            updated,
            _numbers(self.agent.normalizer.moments_of(rollout.obs[rollout.valid])),
            {} if self.scaler is None else _numbers(self.scaler.latest),
        )

    def _measured(self, rollout: Rollout) -> bool:
        """Return whether to measure the health of the next update.

        The workers take turns. The last updates of the run are measured, too: those that spend the budget if each other
        worker finishes an update of this size first. Which one is the last depends on the timing of the workers.
        """
        if int(self.common.steps.sum()) + self.plan.workers * rollout.steps >= self.plan.total_steps:
            return True
        every, turn = self.plan.log_every, self.index * self.plan.log_every // self.plan.workers
        number = int(self.common.updates[self.index]) + 1
        return (number + turn) % every == 0


def work(plan: A3CPlan, memory: int, calls: int, index: int, channel: "Connection[Any, Any]") -> None:
    """Do as the run says, until it is over; for `Workers`."""
    worker = Worker(plan, memory, index, counters(calls, plan.workers)[index : index + 1])
    try:
        channel.send("ready")
        while True:
            begin: Begin = channel.recv()
            worker.begin(begin)
            if begin.warmup_steps:
                channel.send(worker.warm_up(begin.warmup_steps))
            while worker.due and not begin.warmup_steps:
                channel.send(worker.update())
            channel.send("resting")
    finally:
        worker.envs.close()


def _shared(own: Optimizer, common: Common, which: int) -> Optimizer:
    """Steps of what is in common, 0 for the policy and 1 for the critic; where there are none, none."""
    if not isinstance(own, GradientSteps):
        return own
    return SharedSteps(own, common.weights[which], common.moments[which])


def _numbers(moments: State) -> Numbers:
    return {name: tensor.numpy() for name, tensor in moments.items()}


def tensors(numbers: Numbers) -> State:
    """Moments that have arrived."""
    return {name: torch.from_numpy(np.asarray(array)) for name, array in numbers.items()}
