"""Trainer: run a loop to its step budget, log its reports, write checkpoints and call callbacks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pgx.compiler import EngineChoice
from pgx.config.stored import pgx_command
from pgx.core.agent import Agent, Metrics, State, policy_metrics
from pgx.core.algorithm import Algorithm, Learner
from pgx.core.errors import RunError
from pgx.core.metrics import Metric
from pgx.core.nonfinite import FailedUpdate, NotFiniteError
from pgx.core.periodic import PeriodicTrigger
from pgx.core.ranks import Ranks
from pgx.core.specs import dimensions
from pgx.core.stopping import Abandonable, StopAtCheckpoint
from pgx.distributed.torchrun import RankMismatch, check_agreement
from pgx.rollouts.sources import Episode, RolloutSource
from pgx.runs.checkpoints import serialize
from pgx.runs.lock import lock_run
from pgx.runs.metrics import tagged, tags_of
from pgx.runs.versions import versions
from pgx.runs.writer import PendingCheckpoint, Writer, refuse_existing_run
from pgx.training.callbacks import Callback, Stop, TrainingState, callback_failure, callback_name
from pgx.training.evaluation import episode_metrics
from pgx.training.loop import Counters, IterationReport, RunStatus, TrainingLoop
from pgx.training.nan_debug.post_mortem import report_failure


class Trainer:
    """Trainer of one run, which can be evaluated and resumed.

    Args:
        agent, algorithm, learner, runner: agent, update rule, learner and source of rollouts.
        loop: loop that executes the iterations of these four.
        ranks: processes that train together; only rank 0 writes the folder and the logs.
        writer: writer of the run.
        total_steps: environment steps to train for; the last iteration may exceed it.
        checkpoint_every: environment steps between checkpoints; None: only one at the end.
        backend_reason: reason for the choice of the environment backend, for the console.
        engine: whether the run is compiled and why, for the console.
        callbacks: called at the start, after each iteration and at the end.
        diagnose: returns where in a failed update a number first becomes NaN or infinite; None: nowhere on replay.
    """

    def __init__(
        self,
        agent: Agent,
        algorithm: Algorithm,
        learner: Learner,
        runner: RolloutSource,
        loop: TrainingLoop,
        ranks: Ranks,
        writer: Writer,
        total_steps: int,
        checkpoint_every: int | None,
        backend_reason: str,
        engine: EngineChoice,
        callbacks: Sequence[Callback],
        diagnose: Callable[[FailedUpdate], str | None],
    ) -> None:
        self.agent = agent
        self.algorithm = algorithm
        self.learner = learner
        self.runner = runner
        self.loop = loop
        self.ranks = ranks
        self.writes = ranks.rank == 0
        self.writer = writer
        self.run_dir = writer.run_dir
        self.total_steps = total_steps
        self.checkpoint_every = PeriodicTrigger(checkpoint_every)
        self.backend_reason = backend_reason
        self.engine = engine
        self.callbacks = list(callbacks)
        self.diagnose = diagnose
        self.counters = Counters()
        self.stop_requested = False  # set by callers to end the run after the current iteration; see `stop`
        self._abandonable = Abandonable()
        self._stop: Stop | None = None  # of a callback
        self._open_callbacks: list[Callback] = []  # neither failed nor ended
        self._tags = tags_of(self._declared())
        self._resumed = False
        self._best: bytes | None = None  # written with the next checkpoint
        self._finished: list[Episode] = []  # since the last logged iteration
        self._timed = (0, 0.0)  # steps and seconds at the last logged iteration
        self._saved_at = -1
        self._warned_of_cuts = False

    def train(self) -> dict[str, Any]:
        """Train until the step budget is used or a stop is requested; return the contents of summary.json.

        Raises:
            RunLockedError: another process works in the run's folder.
            RunError: an environment failed or a number became NaN or infinite. The summary contains the error.
        """
        if not self.writes:
            return self._train()
        with nullcontext() if self.run_dir is None else self._locked(self.run_dir):
            self.writer.open(self.counters.steps if self._resumed else None, self.counters.rows)
            return self._train()

    @contextmanager
    def _locked(self, run_dir: Path) -> Iterator[None]:
        """Create and lock the folder of the run."""
        run_dir.mkdir(parents=True, exist_ok=True)
        with lock_run(run_dir):
            if not self._resumed:
                refuse_existing_run(run_dir)
            yield

    def _train(self) -> dict[str, Any]:
        status: RunStatus = "failed"
        failure: str | None = None
        self._tags = tags_of(self._declared())
        clean_exit = False
        self._open_callbacks = list(self.callbacks) if self.writes else []
        try:
            self.runner.begin(self.counters.iterations)
            self._call_callbacks("on_start", self._state(self.counters.steps, None, {}))
            while self.counters.steps < self.total_steps and not self._should_stop():
                self._iterate()
            if self._saved_at != self.counters.steps:
                self._save()
            ended: RunStatus = "interrupted" if self._stop is None else self._stop.status
            ended = "finished" if self.counters.steps >= self.total_steps else ended
            self._end_callbacks(ended)
            status, clean_exit = ended, True
        except StopAtCheckpoint:
            status = "interrupted"
            raise
        except KeyboardInterrupt:
            status = "interrupted"
            self._save_finished()
            raise
        except NotFiniteError as error:
            writer = self.writer if self.writes else None
            said = report_failure(error, self.counters.iterations + 1, writer, self.diagnose)
            failure = f"{type(error).__name__}: {said}"
            raise RunError(said) from error
        except RankMismatch as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
            self._save_finished()  # the finished iterations are valid
            raise
        finally:
            saved = self._saved_at if self._saved_at >= 0 else None
            summary = self.counters.summary(status, failure) | {"checkpoint_steps": saved}
            summary["action_dimensions"] = dimensions(self.runner.envs.action_spec)
            try:
                if not clean_exit:
                    self._end_callbacks_of_failed_run(status)
                if self.writes:
                    self._log_tail()
                    self.writer.finish(summary, wait_for_disk=clean_exit)
            finally:
                self.runner.close()
        return summary

    def _declared(self) -> dict[str, list[Metric]]:
        """Return the definitions of metrics by who reports them."""
        declared = {
            f"the update rule {type(self.algorithm).__name__}": list(self.algorithm.metrics),
            f"the policy {type(self.agent.policy).__name__}": list(policy_metrics(self.agent.policy)),
        }
        for callback in self.callbacks:
            declared.setdefault(f"the callback {callback_name(callback)}", []).extend(callback.metrics)
        return declared

    def _stop_asked(self) -> bool:
        return self.stop_requested

    def _should_stop(self) -> bool:
        """Return whether any rank is to stop: all ranks stop after the same iteration."""
        requests = self.ranks.gather((self.stop_requested, self._stop))
        self._stop = next((stop for _, stop in requests if stop is not None), None)
        return self._stop is not None or any(requested for requested, _ in requests)

    def _iterate(self) -> None:
        self.writer.retry_checkpoint()
        before, started = self.counters.steps, time.perf_counter()
        report = self._abandonable.run(lambda: self.loop.next(self.counters))
        if report is None:
            if (lost := self.loop.roll_back(self.counters)) and self.writes:
                self.writer.warn(f"stopped within an iteration; its {lost:,} steps are dropped")
            return
        self._process(report, started)
        if self.checkpoint_every.due(before, self.counters.steps) and self.counters.steps < self.total_steps:
            self._save()
            # A checkpoint is an episode boundary in this process and in one that resumes from it.
            self.runner.begin(self.counters.iterations)

    def stop(self) -> None:
        """Request the end of the run; call it from a signal handler of the main thread.

        The synchronous loop undoes the current iteration, and the run ends with the last finished one. A3C workers
        finish their updates, and ranks finish their iteration.

        Raises:
            IterationAbandoned: within the current iteration.
        """
        self.stop_requested = True
        if self.ranks.size == 1 and self.loop.can_roll_back:
            self._abandonable.abandon()

    def _save_finished(self) -> None:
        """Write a checkpoint of the last finished iteration of a failed run, without communication between ranks."""
        self.loop.roll_back(self.counters)
        if self.writes and self.counters.steps > 0 and self._saved_at != self.counters.steps:
            for report in self.loop.pause():
                self._process(report, time.perf_counter())
            self._write_checkpoint()
            if self.run_dir is not None:
                again = pgx_command("train", "--resume", self.run_dir, of=self.run_dir)
                self.writer.warn(
                    f"a checkpoint of the last finished iteration is written; resume with: {again}"
                )

    def _process(self, report: IterationReport, started: float) -> None:
        """Count and log an iteration that started at `started` (seconds of `time.perf_counter`)."""
        counters, before = self.counters, self.counters.steps
        counters.steps += report.steps
        counters.iterations += report.updated
        counters.skipped += report.skipped
        self._add_episodes(report.episodes)
        metrics: Metrics = {}
        if report.metrics is not None:
            metrics |= report.metrics | episode_metrics(self._finished, counters.recent)
            self._finished = []
        if report.skipped:
            metrics |= {"updates_skipped": float(counters.skipped)}
        state = self._state(before, report, tagged(metrics, self._tags))
        try:
            self._call_callbacks("on_iteration", state)
        finally:
            counters.seconds += time.perf_counter() - started
            metrics |= state.logged
            if report.metrics is not None:
                metrics |= self._timing_metrics()
            if metrics:
                counters.rows += 1
                self.writer.write_row(counters.steps, tagged(metrics, self._tags))

    def _state(self, before: int, report: IterationReport | None, metrics: Metrics) -> TrainingState:
        return TrainingState(
            step=self.counters.steps,
            previous_step=before,
            iteration=self.counters.iterations,
            total_steps=self.total_steps,
            resumed=self._resumed,
            recent_return=self.counters.recent_return,
            metrics=metrics,
            episodes=() if report is None else report.episodes,
            agent=self.agent,
            rollout=None if report is None else report.rollout,
            run_dir=self.run_dir,
            stop_requested=self._stop_asked,
        )

    def _call_callbacks(self, method: Literal["on_start", "on_iteration"], state: TrainingState) -> None:
        """Call each open callback; the first Stop ends the run after this iteration."""
        for callback in list(self._open_callbacks):
            try:
                stop = getattr(callback, method)(state)
            except Exception as error:
                self._open_callbacks.remove(callback)
                raise callback_failure(callback, method, error) from error
            self._stop = self._stop or stop

    def _end_callbacks(self, status: RunStatus) -> None:
        """Call on_end of each open callback, once."""
        state = replace(self._state(self.counters.steps, None, {}), status=status)
        while self._open_callbacks:
            callback = self._open_callbacks.pop(0)
            try:
                callback.on_end(state)
            except Exception as error:
                raise callback_failure(callback, "on_end", error) from error

    def _end_callbacks_of_failed_run(self, status: RunStatus) -> None:
        """Call on_end after a failure, which a failing callback must not hide."""
        try:
            self._end_callbacks(status)
        except Exception as error:
            self.writer.warn(str(error))

    def _timing_metrics(self) -> Metrics:
        """Return the progress of the run and its speed since the previous call."""
        counters, (steps, seconds) = self.counters, self._timed
        self._timed = counters.steps, counters.seconds
        return {
            "steps_per_second": (counters.steps - steps) / (counters.seconds - seconds),
            "iteration": float(counters.iterations),
            "seconds": counters.seconds,
        }

    def _log_tail(self) -> None:
        """Log the episodes and the time since the last measured update, when a run ends without a measured one.

        No checkpoint counts this row: a resumed run drops it and logs the episodes in its next row.
        """
        counters, (steps, seconds) = self.counters, self._timed
        if counters.steps > steps and counters.seconds > seconds:
            metrics = episode_metrics(self._finished, counters.recent) | self._timing_metrics()
            self.writer.write_row(counters.steps, tagged(metrics, self._tags))

    def _add_episodes(self, episodes: Sequence[Episode]) -> None:
        self._finished += episodes
        cut = sum(episode.cut for episode in episodes)
        if cut and self.writes and not self._warned_of_cuts:
            self._warned_of_cuts = True
            self.writer.warn(f"{cut} of {len(episodes)} episodes were cut at runner.max_episode_steps")
        if self.counters.add_returns([episode.episode_return for episode in episodes]):
            self._best = serialize(self.state_dict())

    def _save(self) -> None:
        """Write a checkpoint; begin the runner again afterwards."""
        started = time.perf_counter()
        for report in self.loop.pause():
            self._process(report, started)
            started = time.perf_counter()
        check_agreement(self.agent, self.ranks, self.counters.iterations)
        if self.writes:
            self._write_checkpoint()
        self._best = None
        self._saved_at = self.counters.steps

    def _write_checkpoint(self) -> None:
        state = serialize(self.state_dict())
        self.writer.write_checkpoint(PendingCheckpoint(self.counters.steps, state, self._best))
        self._best, self._saved_at = None, self.counters.steps

    def state_dict(self) -> State:
        return {
            "agent": self.agent.state_dict(),
            "learner": self.learner.state_dict(),
            "runner": self.runner.state_dict(),
            "counters": asdict(self.counters),
            "unlogged": [asdict(episode) for episode in self._finished],
            "config": self.writer.config,
            "versions": versions(),
            "compiled": self.engine.compiled,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a checkpoint; `train` then continues from it."""
        self.agent.load_state_dict(state["agent"])
        self.learner.load_state_dict(state["learner"])
        self.runner.load_state_dict(state["runner"])
        self.counters = Counters(**state["counters"])
        self._finished = [Episode(**episode) for episode in state["unlogged"]]
        self._timed = self.counters.steps, self.counters.seconds
        self._saved_at = self.counters.steps
        self._resumed = True
