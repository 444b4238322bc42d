"""How far a run has come, and how it ended.

What the trainer's loop goes through: iterations, one after another, and what each reports.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from pgx.config.run_config import OnNaN
from pgx.core.agent import Agent, Metrics, State
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
    """How far a run has come; part of every checkpoint."""

    steps: int = 0  # environment steps
    iterations: int = 0
    seconds: float = 0.0  # wall clock, over all lives of the run
    recent: list[float] = field(default_factory=list)  # raw returns of the last episodes, RECENT at most
    best_return: float | None = None  # largest mean of a full `recent`
    best_steps: int | None = None
    skipped: int = 0  # updates that were undone, since they made parameters NaN or infinite
    rows: int = 0  # of metrics, logged

    @property
    def recent_return(self) -> float | None:
        """Mean of `recent`; None before an episode ended."""
        return float(np.mean(self.recent)) if self.recent else None

    def summary(self, status: RunStatus, failure: str | None) -> dict[str, Any]:
        """Return what summary.json holds of a run that ended so."""
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
        """Count the returns of ended episodes; returns whether the mean of a full `recent` is the best so far."""
        self.recent = [*self.recent, *returns][-RECENT_EPISODES:]
        mean = float(np.mean(self.recent)) if len(self.recent) == RECENT_EPISODES else -math.inf
        if mean <= (-math.inf if self.best_return is None else self.best_return):
            return False
        self.best_return, self.best_steps = mean, self.steps
        return True


@dataclass(frozen=True)
class IterationReport:
    """One iteration: what was collected, and what the update made of it."""

    steps: int  # environment steps
    episodes: Sequence[Episode]  # that ended in it
    metrics: (
        Metrics | None
    )  # of the rule, its health and where the time went; None: this update was not looked at
    skipped: bool = False  # the update was undone
    updated: bool = True  # False: steps that warmed up the statistics, without an update
    rollout: Rollout | None = None  # that was collected; None: by workers that update by themselves


class TrainingLoop(Protocol):
    """Gives iterations of a run, of its agent and by its rule, each as its report."""

    def next(self, counters: Counters) -> IterationReport:
        """Wait for the next iteration of a run that has come so far.

        Raises:
            RunError: an environment failed, or what steps it.
            NotFiniteError: an observation, a reward or a parameter is not a finite number.
        """
        ...

    @property
    def can_roll_back(self) -> bool:
        """Whether an iteration may be ended in its middle, and undone."""
        ...

    def roll_back(self, counters: Counters) -> int:
        """Undo the iteration under way of a run that has come so far; returns the steps that it had taken.

        The runner has to begin again afterwards, or to be closed.
        """
        ...

    def pause(self) -> Sequence[IterationReport]:
        """From now until the runner begins again nothing changes; the iterations that were not told of before."""
        ...


class SyncLoop:
    """An iteration is a rollout of the runner's and an update on it, here and now.

    Args:
        agent, algorithm, learner, runner: what learns, by which rule, with what, from where.
        total_steps: environment steps of the run, for schedules.
        log_every: iterations between looks at the update's health; the last update of the run is always looked at.
        clip_range: for `health.measure`.
        warmup_steps: environment steps, over all ranks, that an empty observation normaliser learns from before the
            first update; 0 for none.
        reward_clip: bound on the scaled reward, infinite for none; None: rewards are not scaled.
        on_nan: what becomes of an update that makes parameters NaN or infinite: the run stops there, or goes on as if
            it had not been made.
        ranks: who learn the same from the other environments; a report is of all.
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
        """Collect, and learn from it; at the run's beginning, warm up the statistics."""
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
        """Let the statistics learn from steps of the initial policy."""
        steps, episodes = 0, list[Episode]()
        for rollout in self.runner.warm_up(self.agent, self.warmup_steps):
            taken, ended = self._merge_ranks(rollout)
            steps, episodes = steps + taken, episodes + ended
        return IterationReport(steps, episodes, metrics=None, updated=False)

    def _merge_ranks(self, rollout: Rollout) -> tuple[int, list[Episode]]:
        """Let the normaliser learn from a rollout; returns the steps and the ended episodes of all ranks."""
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
        """Undo an update that made parameters NaN or infinite; False: it did not.

        Raises:
            NotFiniteError: it did, and the run is to stop there.
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
            return 0  # none is under way
        self.learner.engine.settle()  # else the second thread would go on to change what is restored
        rollback(self.agent, self.learner, kept.learned_state)
        self.runner.load_state_dict(kept.runner)
        self.runner.episodes.clear()
        self._kept = None
        return self.runner.steps_taken

    def pause(self) -> Sequence[IterationReport]:
        """Nothing goes on between two iterations."""
        return ()


@dataclass(frozen=True)
class _Snapshot:
    """A run as it was before the iteration under way."""

    steps: int
    iterations: int
    learned_state: State  # of agent and learner
    runner: State


@dataclass(frozen=True)
class _RankResult:
    """What one rank adds to an iteration."""

    steps: int
    episodes: Sequence[Episode]
    seen: State  # moments of its observations
    done: Tensor  # [T, N] bool, where the episodes ended


def _in_order(parts: Sequence[_RankResult]) -> list[Episode]:
    """The episodes of all ranks in the order of one process with all environments."""
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
    """Collect a rollout and update on it, with the update's health measured around it.

    Args:
        agent, algorithm, learner, runner: what learns, by which rule, with what, from where.
        progress: share of the step budget used so far, in [0, 1].
        clip_range: for `health.measure`.
        reward_clip: for `health.clipping`.
        measured: whether to measure the health of the update on this rollout.

    Returns:
        The rollout; and the metrics of rule and health, and where the time went, None where nobody looked.
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
