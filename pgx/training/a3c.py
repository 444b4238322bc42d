"""Workers that learn beside each other: each from environments of its own, all of them the same parameters."""

import math
import os
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial

from pgx.core.agent import Agent
from pgx.core.errors import RunError
from pgx.core.plain import State
from pgx.core.rule import Learner
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.shared import allocate
from pgx.rollouts.watch import Watch
from pgx.rollouts.workers import Workers
from pgx.training.a3c_memory import Common
from pgx.training.a3c_worker import A3CPlan, Begin, Said, Update, tensors, work
from pgx.training.counters import Counters
from pgx.training.loop import Report
from pgx.training.nan_debug.evidence import refuse_unsound


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
        plan: A3CPlan,
        max_restarts: int,
        warmup_steps: int,
        checkpoint_every: int | None,
    ) -> None:
        self.agent = agent
        self.learner = learner
        self.reward_scaler = reward_scaler
        self.envs = envs
        self.plan = plan
        self.max_restarts = max_restarts
        self.warmup_steps = warmup_steps
        self.checkpoint_every = checkpoint_every
        self.workers: Workers | None = None  # until the run begins
        self._iteration = 0
        self._warming = False  # the workers take the steps of a warm-up
        self._steps = [0] * plan.workers  # reported by each; the first of them has those of earlier lives
        self._updates = [0] * plan.workers
        self._reports: deque[Report] = deque()
        self._resting: set[int] = set()

    def __str__(self) -> str:
        return f"{self.plan.workers} workers x {self.plan.envs.num_envs} environments x {self.plan.rollout_steps} steps"

    def begin(self, iteration: int) -> None:
        """Start every environment of every worker anew, and let them go on to the next checkpoint."""
        self._iteration = iteration
        self._warming = self.warmup_steps > 0 and self.agent.normalizer.seen == 0
        if self.workers is None:
            self.workers = self._started()
        self._go_on(self.workers)

    def _go_on(self, workers: Workers) -> None:
        """Have those that rest begin."""
        self.common.limit.fill_(self._limit())
        for index in sorted(self._resting):
            workers.send(index, self._beginning(life=0))
        self._resting.clear()

    def _beginning(self, life: int) -> Begin:
        num_envs = self.plan.workers * self.plan.envs.num_envs
        steps = math.ceil(self.warmup_steps / num_envs) if self._warming else 0
        return Begin(self._iteration, life, steps)

    def _started(self) -> Workers:
        """Workers, and what they have in common, which is from then on what agent and learner consist of."""
        memory = allocate()
        weakref.finalize(self, os.close, memory)
        optimizers = self.learner.optimizer, self.learner.critic_optimizer
        self.common = Common(memory, self.agent, optimizers, self.plan.workers)
        self.common.hold(self.agent, optimizers)
        if self.reward_scaler is not None:
            self.common.publish(self.reward_scaler)
        watch = Watch(self.plan.workers, self.plan.envs.worker_timeout)
        target = partial(work, self.plan, memory, watch.memory)
        return Workers(target, self.plan.workers, self.max_restarts, [memory, watch.memory], watch)

    def _limit(self) -> int:
        """Environment steps of the next checkpoint, or of the end."""
        if self.checkpoint_every is None:
            return self.plan.total_steps
        following = (sum(self._steps) // self.checkpoint_every + 1) * self.checkpoint_every
        return min(self.plan.total_steps, following)

    def next(self, counters: Counters) -> Report:
        """The next update that a worker reports."""
        self._iteration = counters.iterations
        while not self._reports:
            self._hear()
        refuse_unsound(self.agent, counters.iterations + 1)
        return self._reports.popleft()

    undoes = False  # workers learn meanwhile

    def roll_back(self, counters: Counters) -> int:
        """End the workers; what they learned stands, and what they reported is still told."""
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        return 0

    def pause(self) -> Sequence[Report]:
        """Let all rest after the update that they are at; what they have reported since."""
        if self.workers is not None:
            self._warming = False  # all rest after their steps of it
            self.common.limit.fill_(0)
            while len(self._resting) < self.plan.workers:
                self._hear()
        reports = list(self._reports)
        self._reports.clear()
        refuse_unsound(self.agent, self._iteration + len(reports))
        return reports

    def _hear(self) -> None:
        assert self.workers is not None, "nothing began"
        try:
            heard = self.workers.receive(timeout_s=60.0)
        except RunError:
            self.close()
            raise
        for index, said in heard:
            self._note(self.workers, index, said)

    def _note(self, workers: Workers, index: int, said: Said) -> None:
        if said == "resting":
            self._resting.add(index)
            if self._warming and len(self._resting) == self.plan.workers:
                self._warming = False
                self._go_on(workers)
        elif isinstance(said, Update):
            self._steps[index] += said.steps
            self._updates[index] += said.updated
            self.agent.normalizer.merge(tensors(said.observations))
            if self.reward_scaler is not None:
                self.reward_scaler.moments.merge(tensors(said.returns))
                self.common.publish(self.reward_scaler)
            metrics = said.metrics
            if metrics is not None:
                metrics = metrics | {"worker_restarts": float(workers.restarts)}
            self._reports.append(Report(said.steps, said.episodes, metrics, updated=said.updated))
        else:
            # One that took another's place: what that one did and could no longer report has not been.
            self.common.steps[index] = self._steps[index]
            self.common.updates[index] = self._updates[index]
            self._resting.discard(index)
            workers.send(index, self._beginning(life=workers.restarts))

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
