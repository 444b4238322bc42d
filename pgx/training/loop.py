"""Training loops: progress counters, the protocol of a loop, and the synchronous loop."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from pgx.config.run_config import OnNaN
from pgx.core.agent import Agent, Metrics, State, policy_report
from pgx.core.algorithm import Algorithm, Learner
from pgx.core.data import Rollout
from pgx.core.nonfinite import FailedUpdate, FailureRecord, NotFiniteError
from pgx.core.ranks import Ranks
from pgx.rollouts.sources import Episode, Runner
from pgx.runs.checkpoints import snapshot
from pgx.training import health
from pgx.training.nan_debug.post_mortem import learned_state, nonfinite_network, nonfinite_update, rollback

RECENT_EPISODES = 20  # episodes in the running mean that "best" and "final" returns are taken from

RunStatus = Literal["finished", "stopped", "interrupted", "pruned", "failed"]


@dataclass
class Counters:
    """Progress of a run; part of every checkpoint."""

    steps: int = 0  # environment steps
    iterations: int = 0
    seconds: float = 0.0  # wall clock, including the time before resumes
    recent: list[float] = field(default_factory=list)  # raw returns of the last episodes, RECENT at most
    best_return: float | None = None  # largest mean of a full `recent`
    best_steps: int | None = None
    skipped: int = 0  # updates undone because they made parameters NaN or infinite
    rows: int = 0  # logged rows of metrics

    @property
    def recent_return(self) -> float | None:
        """Mean of `recent`; None before the first episode ends."""
        return float(np.mean(self.recent)) if self.recent else None

    def summary(self, status: RunStatus, failure: str | None) -> dict[str, Any]:
        """Return the contents of summary.json for a run that ended with this status and error."""
        return {
            "status": status,
            "error": failure,
            "steps": self.steps,
            "iterations": self.iterations,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.steps / self.seconds, 1) if self.seconds > 0 else None,
            "final_return": self.recent_return,
            "final_return_episodes": len(self.recent),
            "best_return": self.best_return,
            "best_steps": self.best_steps,
        }

    def add_returns(self, returns: Sequence[float]) -> bool:
        """Add the returns of ended episodes; return whether the mean of a full `recent` is the best so far."""
        self.recent = [*self.recent, *returns][-RECENT_EPISODES:]
        mean = float(np.mean(self.recent)) if len(self.recent) == RECENT_EPISODES else -math.inf
        if mean <= (-math.inf if self.best_return is None else self.best_return):
            return False
        self.best_return, self.best_steps = mean, self.steps
        return True


@dataclass(frozen=True)
class IterationReport:
    """Report of one iteration: the collected steps and episodes, and the metrics of the update."""

    steps: int  # environment steps
    episodes: Sequence[Episode]  # that ended in it
    metrics: Metrics | None  # of the rule, health and time; None: this update was not measured
    skipped: bool = False  # the update was undone
    updated: bool = True  # False: warm-up steps of the statistics, without an update
    rollout: Rollout | None = None  # None: collected by workers that update by themselves


class TrainingLoop(Protocol):
    """Loop that executes the iterations of a run and reports each of them."""

    def next(self, counters: Counters) -> IterationReport:
        """Complete the next iteration and return its report.

        Args:
            counters: progress of the run before the iteration.

        Raises:
            RunError: an environment or a worker failed.
            NotFiniteError: an observation, a reward or a parameter is NaN or infinite.
        """
        ...

    @property
    def can_roll_back(self) -> bool:
        """Return whether an unfinished iteration can be abandoned and undone."""
        ...

    def roll_back(self, counters: Counters) -> int:
        """Undo the unfinished iteration and return the environment steps that it had taken.

        Begin or close the runner afterwards.

        Args:
            counters: progress of the run before the iteration.
        """
        ...

    def pause(self) -> Sequence[IterationReport]:
        """Stop all updates until the runner begins again; return the reports of iterations not returned before."""
        ...


class SyncLoop:
    """Synchronous loop: an iteration collects a rollout and updates the agent on it.

    Args:
        agent, algorithm, learner, runner: agent, update rule, learner and source of rollouts.
        total_steps: step budget of the run, for schedules.
        log_every: iterations between measurements of health; the last update of the run is always measured.
        clip_range: argument of `health.measure`.
        warmup_steps: environment steps over all ranks, before the first update, from which an empty observation
            normalizer learns; 0: none.
        reward_clip: bound on the scaled reward, infinite for none; None: rewards are not scaled.
        on_nan: action if an update makes parameters NaN or infinite: stop the run, or undo the update and continue.
        ranks: processes that train this run together; a report covers all of them.
    """

    def __init__(
        self,
        agent: Agent,
        algorithm: Algorithm,
        learner: Learner,
        runner: Runner,
        total_steps: int,
        log_every: int,
        clip_range: float,
        warmup_steps: int,
        reward_clip: float | None,
        on_nan: OnNaN,
        ranks: Ranks,
    ) -> None:
        self.agent = agent
        self.algorithm = algorithm
        self.learner = learner
        self.runner = runner
        self.total_steps = total_steps
        self.log_every = log_every
        self.clip_range = clip_range
        self.warmup_steps = warmup_steps
        self.reward_clip = reward_clip
        self.on_nan = on_nan
        self.ranks = ranks
        self._kept: _Snapshot | None = None

    def next(self, counters: Counters) -> IterationReport:
        """Collect a rollout and update on it; before the first update, warm up the statistics."""
        before = snapshot(learned_state(self.agent, self.learner))
        self._kept = _Snapshot(counters.steps, counters.iterations, before, self.runner.state_dict())
        if self.warmup_steps and self.agent.normalizer.count == 0:
            return self._warm_up()
        progress = min(1.0, counters.steps / self.total_steps)

        def measured(rollout: Rollout) -> bool:
            return (counters.iterations + 1) % self.log_every == 0 or self._is_last(rollout, counters)

        rollout, metrics = iterate(
            self.agent,
            self.algorithm,
            self.learner,
            self.runner,
            progress,
            self.clip_range,
            self.reward_clip,
            measured,
        )
        skipped = self._undo_if_nonfinite(FailedUpdate(progress, before, rollout), counters.iterations + 1)
        through = None if metrics is None else health.before_normalizer_update(self.agent, rollout)
        steps, episodes = self._merge_ranks(rollout)
        if metrics is not None and through is not None:
            metrics["normalizer_kl"] = health.normalizer_kl(through, self.agent, self.ranks)
        return IterationReport(steps, episodes, None if skipped else metrics, skipped, rollout=rollout)

    def _warm_up(self) -> IterationReport:
        """Update the statistics with steps of the initial policy."""
        steps, episodes = 0, list[Episode]()
        for rollout in self.runner.warm_up(self.agent, self.warmup_steps):
            taken, ended = self._merge_ranks(rollout)
            steps, episodes = steps + taken, episodes + ended
        return IterationReport(steps, episodes, metrics=None, updated=False)

    def _merge_ranks(self, rollout: Rollout) -> tuple[int, list[Episode]]:
        """Update the normalizer with the rollouts of all ranks; return the steps and ended episodes of all ranks."""
        normalizer, ended = self.agent.normalizer, list(self.runner.episodes)
        self.runner.episodes.clear()
        seen = normalizer.moments_of(rollout.obs[rollout.valid])
        parts = self.ranks.gather(_RankResult(self.runner.steps, ended, seen, rollout.done.cpu()))
        for part in parts:
            normalizer.merge(part.seen)
        return sum(part.steps for part in parts), _in_order(parts)

    def _is_last(self, rollout: Rollout, counters: Counters) -> bool:
        """Return whether the rollout spends the step budget of the run."""
        return counters.steps + sum(self.ranks.gather(self.runner.steps)) >= self.total_steps

    def _undo_if_nonfinite(self, attempt: FailedUpdate, iteration: int) -> bool:
        """Undo an update if it made parameters NaN or infinite; return whether it did.

        Raises:
            NotFiniteError: it did, and `on_nan` is "stop".
        """
        if (network := nonfinite_network(self.agent)) is None:
            return False
        if self.on_nan == "stop":
            raise NotFiniteError(nonfinite_update(network, iteration), FailureRecord(attempt))
        rollback(self.agent, self.learner, attempt.before)
        return True

    can_roll_back = True

    def roll_back(self, counters: Counters) -> int:
        """Restore agent, learner and runner as they were before the iteration."""
        kept = self._kept
        if kept is None or (kept.steps, kept.iterations) != (counters.steps, counters.iterations):
            return 0  # no iteration is unfinished
        self.learner.engine.settle()  # the second thread must not change the restored state
        rollback(self.agent, self.learner, kept.learned_state)
        self.runner.load_state_dict(kept.runner)
        self.runner.episodes.clear()
        self._kept = None
        return self.runner.steps_taken

    def pause(self) -> Sequence[IterationReport]:
        """Return no reports: nothing runs between two iterations."""
        return ()


@dataclass(frozen=True)
class _Snapshot:
    """State of a run before the current iteration."""

    steps: int
    iterations: int
    learned_state: State  # of agent and learner
    runner: State


@dataclass(frozen=True)
class _RankResult:
    """Part of an iteration that one rank collected."""

    steps: int
    episodes: Sequence[Episode]
    seen: State  # moments of its observations
    done: Tensor  # [T, N] bool, where the episodes ended


def _in_order(parts: Sequence[_RankResult]) -> list[Episode]:
    """Return the episodes of all ranks in the order that one process with all environments would give."""
    if len(parts) == 1:
        return list(parts[0].episodes)
    steps = [int(t) for part in parts for t in part.done.nonzero()[:, 0]]
    episodes = [episode for part in parts for episode in part.episodes]
    in_order = sorted(zip(steps, episodes, strict=True), key=lambda pair: pair[0])
    return [episode for _, episode in in_order]


def iterate(
    agent: Agent,
    algorithm: Algorithm,
    learner: Learner,
    runner: Runner,
    progress: float,
    clip_range: float,
    reward_clip: float | None,
    measured: Callable[[Rollout], bool],
) -> tuple[Rollout, Metrics | None]:
    """Collect a rollout and update on it; measure health around the update.

    Args:
        agent, algorithm, learner, runner: agent, update rule, learner and source of rollouts.
        progress: fraction of the step budget used so far, in [0, 1].
        clip_range: argument of `health.measure`.
        reward_clip: argument of `health.clipping`.
        measured: returns whether to measure the health of the update on this rollout.

    Returns:
        The rollout, and the metrics of the rule, its health and time fractions; None if the update is not measured.
    """
    began, env, policy = time.perf_counter(), runner.env_seconds, runner.policy_seconds
    rollout = runner.collect(agent)
    collected = time.perf_counter()
    before = health.before_update(agent, algorithm.estimate(agent, rollout)) if measured(rollout) else None
    taken = learner.gradient_steps
    started = time.perf_counter()
    extras = algorithm.update(agent, learner, rollout, progress)
    updated = time.perf_counter()
    if before is None:
        return rollout, None
    metrics = health.measure(before, agent, learner.engine, clip_range) | extras | runner.metrics()
    metrics |= policy_report(agent.policy)
    reward = rollout.reward[rollout.valid]
    metrics |= health.clipping(before.batch, agent, runner.envs.action_spec, reward, reward_clip)
    metrics["gradient_steps"] = float(learner.gradient_steps - taken)
    ended = time.perf_counter()
    spent = {
        "environment_fraction": runner.env_seconds - env,
        "policy_fraction": runner.policy_seconds - policy,
        "update_fraction": updated - started,
        "health_fraction": ended - updated + started - collected,
    }
    return rollout, metrics | {key: seconds / (ended - began) for key, seconds in spent.items()}
