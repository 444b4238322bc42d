"""The loop: collect, update, measure, log, checkpoint."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pgx.compiler import EngineChoice
from pgx.config.stored import command
from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Algorithm, Learner
from pgx.core.errors import RunError
from pgx.core.nonfinite import Attempt, NotFiniteError
from pgx.core.periodic import PeriodicTrigger
from pgx.core.ranks import Ranks
from pgx.core.specs import dimensions
from pgx.core.stopping import Abandonable, StopAtCheckpoint
from pgx.distributed.torchrun import RankMismatch, check_agreement
from pgx.rollouts.sources import Episode, RolloutSource
from pgx.runs.checkpoints import packed
from pgx.runs.lock import hold
from pgx.runs.metrics import tagged, tags_of
from pgx.runs.versions import versions
from pgx.runs.writer import PendingCheckpoint, Records, refuse_used
from pgx.training.evaluation import episode_metrics, evaluation_metrics
from pgx.training.loop import Counters, Iterations, Report, Status
from pgx.training.nan_debug.post_mortem import explained
from pgx.training.videos import Filming

# Told the environment steps so far and the mean return of the last episodes; True gives the run up.
OnProgress = Callable[[int, float | None], bool]

# Plays an evaluation, given the iteration for its seed and what asks it to stop.
Evaluate = Callable[[int, Callable[[], bool]], list[Episode]]


class Trainer:
    """Runs a rule to its step budget, leaving a folder from which the run can be read, evaluated and resumed.

    Args:
        agent, algorithm, learner, runner: what learns, by which rule, with what, from where.
        iterations: of these four; what is done, again and again.
        ranks: who train together; the folder and the loggers are rank 0's alone.
        records: what writes the run's folder.
        total_steps: environment steps to train for; the last iteration may overshoot.
        checkpoint_every: environment steps between checkpoints; None for one at the end alone.
        backend_reason: why the environments run on the backend they run on, for the console.
        engine: whether the run is compiled, and why, for the console.
        eval_every: environment steps between evaluations; None for none.
        evaluate: the agent's episodes, played deterministically; given the iteration for its seed and what asks it to
            stop; none where it was stopped.
        filming: videos of the agent, for those who look on.
        diagnose: where in an update that failed a number first ceased to be finite; None: nowhere when made again.
    """

    def __init__(
        self,
        agent: Agent,
        algorithm: Algorithm,
        learner: Learner,
        runner: RolloutSource,
        iterations: Iterations,
        ranks: Ranks,
        records: Records,
        total_steps: int,
        checkpoint_every: int | None,
        backend_reason: str,
        engine: EngineChoice,
        eval_every: int | None,
        evaluate: Evaluate,
        filming: Filming,
        diagnose: Callable[[Attempt], str | None],
    ) -> None:
        self.agent = agent
        self.algorithm = algorithm
        self.learner = learner
        self.runner = runner
        self.iterations = iterations
        self.ranks = ranks
        self.writes = ranks.rank == 0
        self.records = records
        self.run_dir = records.run_dir
        self.checkpoints = records.checkpoints
        self.total_steps = total_steps
        self.checkpoint_every = PeriodicTrigger(checkpoint_every)
        self.backend_reason = backend_reason
        self.engine = engine
        self.eval_every = PeriodicTrigger(eval_every)
        self.evaluate = evaluate
        self.filming = filming
        self.diagnose = diagnose
        self.counters = Counters()
        self._tags = tags_of(algorithm.metrics)
        self.stop_requested = (
            False  # set from outside to end the run after the iteration under way; see `stop`
        )
        self._abandonable = Abandonable()
        self.on_progress: OnProgress = (
            never_stop  # set from outside; asked after each iteration, and on resuming
        )
        self._resumed = False
        self._best: bytes | None = None  # to be written with the next checkpoint
        self._finished: list[Episode] = []  # since the last logged iteration
        self._clocked = (0, 0.0)  # steps and seconds at that
        self._saved_at = -1
        self._warned_of_cuts = False

    def train(self) -> dict[str, Any]:
        """Train until the budget is spent or a stop is requested; returns what summary.json holds.

        Raises:
            HeldError: another process is at work in the run's folder.
            RunError: an environment or a number failed; the summary says so and the last checkpoint stands.
        """
        if not self.writes:
            return self._train()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with hold(self.run_dir):
            self._open()
            return self._train()

    def _open(self) -> None:
        """Begin the run's folder, or go on with it."""
        if not self._resumed:
            refuse_used(self.run_dir)
        self.records.begin(self.counters.steps if self._resumed else None, self.counters.rows)

    def _train(self) -> dict[str, Any]:
        status: Status = "failed"
        failure: str | None = None
        clean_exit = False
        try:
            self.runner.begin(self.counters.iterations)
            # The life before may have died before it could tell.
            pruned = self._resumed and self._progressed()
            while self.counters.steps < self.total_steps and not pruned and not self._stops():
                self._iterate()
                pruned = self._progressed()
            if self._saved_at != self.counters.steps:
                self._save()
            ended: Status = "pruned" if pruned else "interrupted"
            status = "finished" if self.counters.steps >= self.total_steps else ended
            clean_exit = True
        except StopAtCheckpoint:
            status = "interrupted"
            raise
        except KeyboardInterrupt:
            status = "interrupted"
            self._save_finished()
            raise
        except NotFiniteError as error:
            records = self.records if self.writes else None
            said = explained(error, self.counters.iterations + 1, records, self.diagnose)
            failure = f"{type(error).__name__}: {said}"
            raise RunError(said) from error
        except RankMismatch as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
            self._save_finished()  # nothing is wrong with what was learned before
            raise
        finally:
            saved = self._saved_at if self._saved_at >= 0 else None
            summary = self.counters.summary(status, failure) | {"checkpoint_steps": saved}
            summary["action_dimensions"] = dimensions(self.runner.envs.action_spec)
            try:
                if self.writes:
                    self._log_tail()
                    self.records.end(summary, patient=clean_exit)
            finally:
                self.runner.close()
        return summary

    def _progressed(self) -> bool:
        return self.on_progress(self.counters.steps, self.counters.recent_return)

    def _stop_asked(self) -> bool:
        return self.stop_requested

    def _stops(self) -> bool:
        """Whether any rank was asked to stop: all do, after the same iteration."""
        return any(self.ranks.gather(self.stop_requested))

    def _iterate(self) -> None:
        self.records.catch_up()
        before, started = self.counters.steps, time.perf_counter()
        report = self._abandonable.run(lambda: self.iterations.next(self.counters))
        if report is None:
            if (lost := self.iterations.roll_back(self.counters)) and self.writes:
                self.records.warn(
                    f"stopped within an iteration; {lost:,} steps that it had taken are dropped"
                )
            return
        self._take(report, started)
        if self.checkpoint_every.due(before, self.counters.steps) and self.counters.steps < self.total_steps:
            self._save()
            # A checkpoint is an episode boundary, in this life as in one that resumes from it.
            self.runner.begin(self.counters.iterations)

    def stop(self) -> None:
        """Ask for the run's end, from a signal handler of the main thread.

        A synchronous iteration under way is undone and the run ends with the last finished one. Workers that learn by
        themselves finish their updates, and ranks their iteration.

        Raises:
            IterationAbandoned: into the iteration.
        """
        self.stop_requested = True
        if self.ranks.size == 1 and self.iterations.undoes:
            self._abandonable.abandon()

    def _save_finished(self) -> None:
        """Write a checkpoint of the last finished iteration where a run fails, without a word to other ranks."""
        self.iterations.roll_back(self.counters)
        if self.writes and self.counters.steps > 0 and self._saved_at != self.counters.steps:
            for report in self.iterations.pause():
                self._take(report, time.perf_counter())
            self._write_checkpoint()
            again = command("train", "--resume", self.run_dir, of=self.run_dir)
            self.records.warn(f"the last finished iteration is kept: {again}")

    def _take(self, report: Report, started: float) -> None:
        """Count an iteration, for which time has been spent since `started`, and log it."""
        counters, before = self.counters, self.counters.steps
        counters.steps += report.steps
        counters.iterations += report.updated
        counters.skipped += report.skipped
        self._note_episodes(report.episodes)
        metrics: Metrics = {}
        evaluates = self.writes and self.eval_every.due(before, counters.steps)
        if evaluates and (played := self.evaluate(counters.iterations, self._stop_asked)):
            metrics |= evaluation_metrics(played)
        if self.writes:
            self.filming.look(before, counters.steps, counters.iterations, self.records, self._stop_asked)
        counters.seconds += time.perf_counter() - started
        if report.metrics is not None:
            metrics |= report.metrics | episode_metrics(self._finished, counters.recent)
            metrics |= self._clock()
            self._finished = []
        if report.skipped:
            metrics |= {"updates_skipped": float(counters.skipped)}
        if metrics:
            counters.rows += 1
            self.records.row(counters.steps, tagged(metrics, self._tags))

    def _clock(self) -> Metrics:
        """How far the run is, and how fast it has been since this was last asked."""
        counters, (steps, seconds) = self.counters, self._clocked
        self._clocked = counters.steps, counters.seconds
        return {
            "steps_per_second": (counters.steps - steps) / (counters.seconds - seconds),
            "iteration": float(counters.iterations),
            "seconds": counters.seconds,
        }

    def _log_tail(self) -> None:
        """Log the episodes and the clock of updates since the last measured one, where a run ends unforeseen.

        No checkpoint counts this row: a run that resumes drops it and logs the episodes in its next one.
        """
        counters, (steps, seconds) = self.counters, self._clocked
        if counters.steps > steps and counters.seconds > seconds:
            metrics = episode_metrics(self._finished, counters.recent) | self._clock()
            self.records.row(counters.steps, tagged(metrics, self._tags))

    def _note_episodes(self, episodes: Sequence[Episode]) -> None:
        self._finished += episodes
        cut = sum(episode.cut for episode in episodes)
        if cut and self.writes and not self._warned_of_cuts:
            self._warned_of_cuts = True
            self.records.warn(f"{cut} of {len(episodes)} episodes were cut at runner.max_episode_steps")
        if self.counters.note([episode.episode_return for episode in episodes]):
            self._best = packed(self.state_dict())

    def _save(self) -> None:
        """Write a checkpoint, after which the runner has to begin again."""
        started = time.perf_counter()
        for report in self.iterations.pause():
            self._take(report, started)
            started = time.perf_counter()
        check_agreement(self.agent, self.ranks, self.counters.iterations)
        if self.writes:
            self._write_checkpoint()
        self._best = None
        self._saved_at = self.counters.steps

    def _write_checkpoint(self) -> None:
        state = packed(self.state_dict())
        self.records.checkpoint(PendingCheckpoint(self.counters.steps, state, self._best))
        self._best, self._saved_at = None, self.counters.steps

    def state_dict(self) -> State:
        return {
            "agent": self.agent.state_dict(),
            "learner": self.learner.state_dict(),
            "runner": self.runner.state_dict(),
            "counters": asdict(self.counters),
            "unlogged": [asdict(episode) for episode in self._finished],
            "config": self.records.config,
            "versions": versions(),
            "compiled": self.engine.compiled,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a checkpoint when `train` is called."""
        self.agent.load_state_dict(state["agent"])
        self.learner.load_state_dict(state["learner"])
        self.runner.load_state_dict(state["runner"])
        self.counters = Counters(**state["counters"])
        self._finished = [Episode(**episode) for episode in state["unlogged"]]
        self._clocked = self.counters.steps, self.counters.seconds
        self._saved_at = self.counters.steps
        self._resumed = True


def never_stop(steps: int, recent_return: float | None) -> bool:
    return False
