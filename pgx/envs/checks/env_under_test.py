"""What is said of an assumption.

One environment, played as the trainer plays it, and everything that it answered.

The environment that is looked at: what it is, and what is seen of it, each looked at once.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choices
from pgx.core.tracebacks import exception_frames, location
from pgx.envs import spaces
from pgx.envs.gymnasium_backend import make_single, suppressed_warnings
from pgx.envs.make import Backend, BackendChoice, choose_backend
from pgx.envs.registry import unpickle_env
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.spaces import Convert
from pgx.envs.vector import Array

Outcome = Literal["holds", "fails", "cannot be told"]


@dataclass(frozen=True)
class CheckResult:
    """Whether an assumption holds, and one line of what was seen."""

    outcome: Outcome
    evidence: str


class Inconclusive(Exception):
    """What an assumption would be judged by is not there; says why."""


def holds(evidence: str) -> CheckResult:
    return CheckResult("holds", evidence)


def fails(evidence: str) -> CheckResult:
    return CheckResult("fails", evidence)


def unknown(evidence: str) -> CheckResult:
    return CheckResult("cannot be told", evidence)


MAX_OBS_BYTES = 64 * 2**20  # bytes of observations that a recording keeps

Single = gymnasium.Env[Any, Any]


@dataclass(frozen=True)
class Specs:
    """What an environment shows and takes."""

    obs: ObsSpec
    action: ActionSpec
    write: Convert  # from a policy's samples [N, ...] to actions


@dataclass(frozen=True)
class Result:
    """What an environment said of one reset or step, as it said it."""

    first: bool  # of an episode: the answer of a reset
    seen: Any  # the observation itself
    kept: Any  # a copy of it, made at once
    reward: Any  # 0.0 of a reset
    terminated: Any  # False of a reset
    truncated: Any  # False of a reset
    info: dict[str, Any]

    @property
    def ended(self) -> bool:
        return bool(self.terminated) or bool(self.truncated)


@dataclass
class EpisodeTrace:
    """Answers in order, the first of a reset."""

    results: list[Result] = field(default_factory=list)
    error: str = ""  # what broke it off; empty: nothing did
    step_seconds: list[float] = field(default_factory=list)
    reset_seconds: list[float] = field(default_factory=list)

    @property
    def ends(self) -> list[int]:
        """Where episodes ended."""
        return [i for i, result in enumerate(self.results) if result.ended]


class InvalidReturn(Exception):
    """What reset or step returned is not what Gymnasium's return."""


def run_random_policy(env: Single, specs: Specs, seed: int, steps: int, seconds: float) -> EpisodeTrace:
    """reset(seed), then random actions that depend on the seed, and a reset without a seed after each end.

    Args:
        env: one environment.
        specs: of its spaces.
        seed: of environment and actions.
        steps: at most, resets among them.
        seconds: after which no further step is taken.
    """
    trace, rng, end = EpisodeTrace(), np.random.default_rng(seed), time.perf_counter() + seconds
    bytes_left, call = MAX_OBS_BYTES, "reset"
    try:
        while len(trace.results) <= steps and time.perf_counter() < end and bytes_left > 0:
            last = trace.results[-1] if trace.results else None
            started = time.perf_counter()
            if last is None or last.ended:
                call = "reset()"
                result = reset(env, seed if last is None else None)
                trace.reset_seconds.append(time.perf_counter() - started)
            else:
                action = specs.write(draw(rng, specs.action, 1, allowed(last.info, specs.action)))[0]
                started, call = time.perf_counter(), f"step() number {len(trace.step_seconds) + 1}"
                result = step(env, action)
                trace.step_seconds.append(time.perf_counter() - started)
            trace.results.append(result)
            bytes_left -= np.asarray(result.kept).nbytes
    except Exception as error:  # whatever an environment raises
        trace.error = f"{call} {describe_error(error)}"
    return trace


def reset(env: Single, seed: int | None) -> Result:
    """An answer of its own.

    Raises:
        Malformed: it is not what Gymnasium's reset returns.
    """
    said: Any = env.reset(seed=seed)
    if not (isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], dict)):
        raise InvalidReturn(f"returned {_describe_type(said)}, expected (observation, info), info a dict")
    return Result(True, said[0], copy.deepcopy(said[0]), 0.0, False, False, said[1])


def step(env: Single, action: Any) -> Result:
    """An answer of its own.

    Raises:
        Malformed: it is not what Gymnasium's step returns.
    """
    said: Any = env.step(action)
    if not (isinstance(said, tuple) and len(said) == 5 and isinstance(said[4], dict)):
        raise InvalidReturn(
            f"returned {_describe_type(said)}, expected (observation, reward, terminated, truncated, info), info a dict"
        )
    return Result(False, said[0], copy.deepcopy(said[0]), *said[1:])


def _describe_type(said: Any) -> str:
    if isinstance(said, tuple):
        return f"({', '.join(type(part).__name__ for part in said)})"
    return type(said).__name__


def describe_error(error: Exception) -> str:
    """What an environment raised, and at which line; or what it returned."""
    if isinstance(error, InvalidReturn):
        return str(error)
    where = location(exception_frames(error))
    return f"raised {type(error).__name__}: {error}" + (f", {where}" if where else "")


def allowed(info: dict[str, Any], action: ActionSpec) -> NDArray[np.bool_] | None:
    """The mask [1, K] of an answer; None where there is none, or none that can be read."""
    mask = info.get("action_mask")
    mask = np.concatenate(mask) if isinstance(mask, tuple) and mask else mask
    size = sum(choices(action))
    if mask is None or np.shape(mask) != (size,) or size == 0:
        return None
    return np.asarray(mask).astype(bool)[None]


def draw(
    rng: np.random.Generator, action: ActionSpec, n: int, mask: NDArray[np.bool_] | None
) -> NDArray[Any]:
    """Actions [n, ...] as a policy that has learned nothing samples them: allowed ones, or standard normal ones."""
    if isinstance(action, Continuous):
        return rng.standard_normal((n, *action.shape)).astype(np.float32)
    sizes = choices(action)
    free = np.ones((n, sum(sizes)), bool) if mask is None else mask
    columns = []
    for part in np.split(free, np.cumsum(sizes)[:-1], axis=1):
        # The largest of as many random numbers; of those that are not allowed none is the largest.
        columns.append(np.where(part, rng.random(part.shape), -1.0).argmax(axis=1))
    return columns[0] if isinstance(action, Discrete) else np.stack(columns, axis=1)


def same(one: Result, other: Result) -> str:
    """What differs between two answers; empty: not a bit."""
    for what in ("kept", "reward", "terminated", "truncated"):
        if not same_bits(getattr(one, what), getattr(other, what)):
            return "observation" if what == "kept" else what
    masks = [np.concatenate(mask) if isinstance(mask, tuple) else mask for mask in _masks(one, other)]
    return "" if same_bits(*masks) else "action mask"


def _masks(*results: Result) -> list[Any]:
    return [result.info.get("action_mask") for result in results]


def same_bits(one: Any, other: Any) -> bool:
    """Whether two observations, rewards or flags are the same to the last bit, NaN included."""
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.hasobject or b.dtype.hasobject:
        return bool(np.array_equal(a, b))
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def flat(observation: Any) -> Array:
    """An observation as a vector of float64."""
    return np.asarray(observation, dtype=np.float64).ravel()


SECONDS = 4.0  # for one look
STEPS = 2000  # of the look that most is judged by

T = TypeVar("T")


@dataclass(frozen=True)
class CheckRequest:
    """Which environments a run would have, as plain values.

    Args:
        id, num_envs, kwargs, backend, num_threads: as in the config.
        worker_timeout: seconds in which worker processes answer.
        recipe: how the environment is registered where this was made; None: as it is everywhere.
        normalize_obs: as in the config.
    """

    id: str
    num_envs: int
    kwargs: dict[str, Any]
    backend: Backend
    num_threads: int
    worker_timeout: float
    pickled_env: bytes | None
    normalize_obs: bool = True


class EnvUnderTest:
    """One environment of those that were asked for. What cannot be looked at raises `Inconclusive`."""

    def __init__(self, request: CheckRequest) -> None:
        self.request = request
        self._cache: dict[Any, Any] = {}

    def cached(self, look: "Callable[[EnvUnderTest], T]") -> T:
        """What a look brings, or raises: of the first time that it is asked for."""
        if look not in self._cache:
            try:
                self._cache[look] = look(self)
            except Exception as error:
                self._cache[look] = error
        found = self._cache[look]
        if isinstance(found, Exception):
            raise found
        seen: T = found
        return seen

    @cached_property
    def env_or_problem(self) -> Single | str:
        """The environment, or why it cannot be made."""
        try:
            if self.request.pickled_env is not None:
                unpickle_env(self.request.id, self.request.pickled_env)
            return make_single(self.request.id, self.request.kwargs)
        except UserError as error:
            return str(error)
        except Exception as error:  # whatever a constructor raises
            return f"with env.kwargs={self.request.kwargs} it {describe_error(error)}"

    @property
    def env(self) -> Single:
        if isinstance(self.env_or_problem, str):
            raise Inconclusive("it cannot be made")
        return self.env_or_problem

    @contextmanager
    def fresh_env(self) -> Iterator[Single]:
        """A new one of the same kind."""
        assert not isinstance(self.env_or_problem, str)
        env = make_single(self.request.id, self.request.kwargs)
        try:
            yield env
        finally:
            env.close()

    @cached_property
    def specs_or_problem(self) -> Specs | str:
        """What it shows and takes, or why no policy can do that."""
        try:
            with suppressed_warnings():
                obs, _ = spaces.observation(self.request.id, self.env.observation_space)
                action, write = spaces.action(self.request.id, self.env.action_space)
        except UserError as error:
            return str(error).removeprefix(f"env.id={self.request.id}: ")
        return Specs(obs, action, write)

    @property
    def specs(self) -> Specs:
        if isinstance(self.specs_or_problem, str):
            raise Inconclusive("no policy takes its spaces")
        return self.specs_or_problem

    @cached_property
    def trace(self) -> EpisodeTrace:
        """What it answered to random actions."""
        return run_random_policy(self.env, self.specs, 0, STEPS, SECONDS)

    @property
    def step_seconds(self) -> float:
        """Median time of a step of one environment; 0 where none was taken."""
        seconds = self.trace.step_seconds
        return statistics.median(seconds) if seconds else 0.0

    @property
    def fails_on_steps(self) -> bool:
        """Whether it was played and something broke that off."""
        return "trace" in self.__dict__ and bool(self.trace.error)

    @property
    def played(self) -> EpisodeTrace:
        """The recording, in which there is something."""
        if not self.trace.results:
            raise Inconclusive("there was no observation")
        return self.trace

    @cached_property
    def choice(self) -> BackendChoice:
        """The backend that a run would have."""
        request = self.request
        return choose_backend(
            request.id, request.backend, request.kwargs, request.num_envs, request.num_threads, NO_SHAPING
        )

    def close(self) -> None:
        if "env_or_problem" in self.__dict__ and not isinstance(self.env_or_problem, str):
            self.env_or_problem.close()
