"""Callbacks: code that a run calls at its start, after each iteration and at its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pgx.config.named_objects import NamedObject, argument_problems, construct, import_object, read_entries
from pgx.core.agent import Agent, Metrics
from pgx.core.data import Rollout
from pgx.core.errors import RunError, UserCodeError, UserError
from pgx.core.metrics import Metric
from pgx.core.periodic import PeriodicTrigger
from pgx.core.tracebacks import describe_exception
from pgx.rollouts.sources import Episode
from pgx.training.evaluation import evaluation_metrics
from pgx.training.loop import RunStatus


@dataclass(frozen=True)
class Stop:
    """Request that ends a run after the current iteration, with a checkpoint and a summary."""

    status: Literal["stopped", "pruned"] = "stopped"  # of the summary; pruned: by a search


STOP = Stop()


@dataclass(frozen=True)
class TrainingState:
    """State of a run that callbacks receive.

    Args:
        step: environment steps so far.
        previous_step: environment steps before this iteration.
        iteration: updates so far.
        total_steps: step budget of the run.
        resumed: the run continues from a checkpoint.
        recent_return: mean return of the last 20 episodes; None before an episode ended.
        metrics: of this iteration by tag, without time/*; empty for iterations that `logger.every` leaves out.
        episodes: that ended in this iteration.
        agent: policy, critic and normalizer, after the update. Callbacks must not change it.
        rollout: of this iteration; None where workers update by themselves (A3C), and in on_start and on_end.
        run_dir: folder of the run; None: it writes nothing.
        stop_requested: returns whether the run is to end, for callbacks that take long.
        status: how the run ended, in on_end; None before.
    """

    step: int
    previous_step: int
    iteration: int
    total_steps: int
    resumed: bool
    recent_return: float | None
    metrics: Mapping[str, float]
    episodes: Sequence[Episode]
    agent: Agent
    rollout: Rollout | None
    run_dir: Path | None
    stop_requested: Callable[[], bool]
    status: RunStatus | None = None
    logged: Metrics = field(default_factory=dict)  # by `log`

    def log(self, key: str, value: float) -> None:
        """Add a metric to the row of this iteration; the callback declares its key in `metrics`."""
        self.logged[key] = value


class Callback(Protocol):
    """Code that a run calls. Only rank 0 of several ranks calls it."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Definitions of what the callback logs."""
        ...

    def on_start(self, state: TrainingState) -> Stop | None:
        """Prepare; STOP ends the run before its first iteration."""
        ...

    def on_iteration(self, state: TrainingState) -> Stop | None:
        """Use the state after an iteration; STOP ends the run."""
        ...

    def on_end(self, state: TrainingState) -> None:
        """Use the final state, whether the run finished, stopped or failed."""
        ...


@dataclass(frozen=True)
class PartialCallback:
    """Callback made of a function of the state, or of an object with some of the methods of `Callback`."""

    given: Any

    @property
    def metrics(self) -> tuple[Metric, ...]:
        declared: tuple[Metric, ...] = getattr(self.given, "metrics", ())
        return declared

    def on_start(self, state: TrainingState) -> Stop | None:
        return self._call("on_start", state)

    def on_iteration(self, state: TrainingState) -> Stop | None:
        return self._call("on_iteration", state)

    def on_end(self, state: TrainingState) -> None:
        self._call("on_end", state)

    def _call(self, name: str, state: TrainingState) -> Stop | None:
        method = getattr(self.given, name, None)
        if method is None and name == "on_iteration" and not _methods(self.given):
            method = self.given
        result: Stop | None = None if method is None else method(state)
        return result


def as_callback(given: Any) -> Callback:
    """Return a callback from a function, or from an object with some of the methods of `Callback`.

    Raises:
        UserError: it is neither.
    """
    if isinstance(given, type):
        raise UserError(f"callbacks: {given.__name__} is a class; pass an instance, {given.__name__}(...)")
    if not _methods(given) and not callable(given):
        raise UserError(
            f"callbacks: {given!r} is no callback; pass a function of the state, or an object with on_start, "
            "on_iteration or on_end"
        )
    return PartialCallback(given)


def callback_name(callback: Callback) -> str:
    """Return the name of a callback's class or function, for messages."""
    given = callback.given if isinstance(callback, PartialCallback) else callback
    return str(getattr(given, "__name__", type(given).__name__))


def callback_failure(callback: Callback, method: str, error: Exception) -> Exception:
    """Return the exception that ends a run whose callback raised one; errors of pgx stay as they are."""
    if isinstance(error, UserError | RunError):
        return error
    return UserCodeError(f"callback {callback_name(callback)}: {method} raised {describe_exception(error)}")


_KEY = "callbacks"  # of the config


def configured_callbacks(entries: Sequence[Any]) -> list[Callback]:
    """Return the callbacks that a config names: functions, or instances of classes.

    Args:
        entries: `module:Name`, or mappings with `name` and the arguments of a class.

    Raises:
        UserError: naming every problem of every entry.
    """
    return [
        as_callback(construct(_KEY, named, target) if isinstance(target, type) else target)
        for named, target in import_callbacks(entries)
    ]


def import_callbacks(entries: Sequence[Any]) -> list[tuple[NamedObject, Any]]:
    """Return the entries of a config with the classes and functions that they name; construct nothing.

    Args and Raises as in `configured_callbacks`.
    """
    return read_entries(_KEY, entries, _import)


def _import(named: NamedObject) -> Any:
    """Return the class or function of a callback.

    Raises:
        UserError: it does not exist, is no callback, or does not take the arguments.
    """
    if not named.is_external:
        raise UserError(f"{_KEY}: {named.name}: expected module:Name, for example my_module:EarlyStop")
    target = import_object(_KEY, named.name)
    if not _methods(target) and not callable(target):
        raise UserError(
            f"{_KEY}: {named.name} is no callback: it is no function and has no on_start, on_iteration or on_end"
        )
    if isinstance(target, type):
        called = any("__call__" in vars(base) for base in target.__mro__)
        if not _methods(target) and not called:
            raise UserError(
                f"{_KEY}: {named.name} is no callback: it has no on_start, on_iteration or on_end"
            )
        if problems := argument_problems(_KEY, named, target, given=0):
            raise UserError(*problems)
    elif named.arguments:
        raise UserError(f"{_KEY}: {named.name} is a function; arguments need a class")
    return target


def _methods(given: Any) -> list[str]:
    return [name for name in ("on_start", "on_iteration", "on_end") if hasattr(given, name)]


# Plays an evaluation, given the iteration for its seed and a function that returns whether to stop.
Evaluate = Callable[[int, Callable[[], bool]], list[Episode]]


@dataclass(frozen=True)
class PeriodicEvaluation:
    """Callback that plays deterministic episodes every so many environment steps (`trainer.eval_every`)."""

    every: PeriodicTrigger
    evaluate: Evaluate

    def on_iteration(self, state: TrainingState) -> None:
        """Log the evaluation metrics if an evaluation is due."""
        if self.every.due(state.previous_step, state.step) and (
            played := self.evaluate(state.iteration, state.stop_requested)
        ):
            state.logged.update(evaluation_metrics(played))
