"""The environment under check: its construction, its spaces, and a trace of random actions, each computed once."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choice_sizes
from pgx.core.tracebacks import exception_frames, location
from pgx.envs import spaces
from pgx.envs.gymnasium_backend import GymEnv, make_single, suppressed_warnings
from pgx.envs.make import Backend, BackendChoice, choose_backend
from pgx.envs.registry import unpickle_env
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.spaces import Convert
from pgx.envs.vector import AnyArray

Outcome = Literal["holds", "fails", "unknown"]

CHECK_SECONDS = 4.0  # maximum duration of one trace
_TRACE_STEPS = 2000
MAX_OBS_BYTES = 64 * 2**20  # maximum size of the observations in a trace


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check, with one line of evidence."""

    outcome: Outcome
    evidence: str


class Inconclusive(Exception):
    """The check cannot decide; the message says why."""


def holds(evidence: str) -> CheckResult:
    return CheckResult("holds", evidence)


def fails(evidence: str) -> CheckResult:
    return CheckResult("fails", evidence)


def unknown(evidence: str) -> CheckResult:
    return CheckResult("unknown", evidence)


@dataclass(frozen=True)
class EnvSpaces:
    """Specs of an environment's spaces, and the conversion of its actions."""

    obs: ObsSpec
    action: ActionSpec
    to_env_action: Convert  # from a policy's samples [N, ...]


@dataclass(frozen=True)
class EnvOutput:
    """Values that an environment returned from one reset or step, unchanged."""

    is_reset: bool
    obs: Any  # the returned object
    obs_copy: Any  # copied as soon as it was returned
    reward: Any  # 0.0 for a reset
    terminated: Any  # False for a reset
    truncated: Any  # False for a reset
    info: dict[str, Any]

    @property
    def ended(self) -> bool:
        return bool(self.terminated) or bool(self.truncated)


@dataclass
class EpisodeTrace:
    """Outputs of one environment in order, beginning with a reset."""

    outputs: list[EnvOutput] = field(default_factory=list)
    error: str = ""  # that stopped the trace; empty: none
    step_seconds: list[float] = field(default_factory=list)
    reset_seconds: list[float] = field(default_factory=list)

    @property
    def ends(self) -> list[int]:
        """Indices of the outputs that ended an episode."""
        return [i for i, output in enumerate(self.outputs) if output.ended]


class InvalidReturn(Exception):
    """reset() or step() returned a value that Gymnasium's API does not allow."""


def run_random_policy(env: GymEnv, specs: EnvSpaces, seed: int, steps: int, seconds: float) -> EpisodeTrace:
    """Call reset(seed), then step() with random actions, and reset() without a seed after each end.

    Args:
        env: one environment.
        specs: of its spaces.
        seed: of the environment and of the actions.
        steps: maximum number of steps and resets.
        seconds: time after which no further step is taken.
    """
    trace, rng, end = EpisodeTrace(), np.random.default_rng(seed), time.perf_counter() + seconds
    bytes_left, call = MAX_OBS_BYTES, "reset"
    try:
        while len(trace.outputs) <= steps and time.perf_counter() < end and bytes_left > 0:
            last = trace.outputs[-1] if trace.outputs else None
            started = time.perf_counter()
            if last is None or last.ended:
                call = "reset()"
                output = reset_env(env, seed if last is None else None)
                trace.reset_seconds.append(time.perf_counter() - started)
            else:
                mask = action_mask_of(last.info, specs.action)
                action = specs.to_env_action(random_actions(rng, specs.action, 1, mask))[0]
                started, call = time.perf_counter(), f"step() number {len(trace.step_seconds) + 1}"
                output = step_env(env, action)
                trace.step_seconds.append(time.perf_counter() - started)
            trace.outputs.append(output)
            bytes_left -= np.asarray(output.obs_copy).nbytes
    except Exception as error:  # an environment may raise anything
        trace.error = f"{call} {describe_error(error)}"
    return trace


def reset_env(env: GymEnv, seed: int | None) -> EnvOutput:
    """Reset an environment and copy its observation.

    Raises:
        InvalidReturn: the returned value is not (observation, info).
    """
    returned: Any = env.reset(seed=seed)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InvalidReturn(f"returned {_describe_type(returned)}, expected (observation, info), info a dict")
    return EnvOutput(True, returned[0], copy.deepcopy(returned[0]), 0.0, False, False, returned[1])


def step_env(env: GymEnv, action: Any) -> EnvOutput:
    """Step an environment and copy its observation.

    Raises:
        InvalidReturn: the returned value is not (observation, reward, terminated, truncated, info).
    """
    returned: Any = env.step(action)
    if not (isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict)):
        raise InvalidReturn(
            f"returned {_describe_type(returned)}, expected (observation, reward, terminated, truncated, info), "
            "info a dict"
        )
    return EnvOutput(False, returned[0], copy.deepcopy(returned[0]), *returned[1:])


def _describe_type(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"({', '.join(type(part).__name__ for part in returned)})"
    return type(returned).__name__


def describe_error(error: Exception) -> str:
    """Return the exception and the line that raised it, or the message of an `InvalidReturn`."""
    if isinstance(error, InvalidReturn):
        return str(error)
    where = location(exception_frames(error))
    return f"raised {type(error).__name__}: {error}" + (f", {where}" if where else "")


def action_mask_of(info: dict[str, Any], action: ActionSpec) -> NDArray[np.bool_] | None:
    """Return info["action_mask"] as [1, K]; None if it is missing or has another size."""
    mask = info.get("action_mask")
    mask = np.concatenate(mask) if isinstance(mask, tuple) and mask else mask
    size = sum(choice_sizes(action))
    if mask is None or np.shape(mask) != (size,) or size == 0:
        return None
    return np.asarray(mask).astype(bool)[None]


def random_actions(
    rng: np.random.Generator, action: ActionSpec, n: int, mask: NDArray[np.bool_] | None
) -> NDArray[Any]:
    """Sample actions [n, ...]: standard normal if continuous, else uniform among the allowed ones.

    Args:
        rng: source of randomness.
        action: spec of one action.
        n: number of actions.
        mask: [n, K] allowed choices; None: all.
    """
    if isinstance(action, Continuous):
        return rng.standard_normal((n, *action.shape)).astype(np.float32)
    sizes = choice_sizes(action)
    allowed = np.ones((n, sum(sizes)), bool) if mask is None else mask
    columns = []
    for part in np.split(allowed, np.cumsum(sizes)[:-1], axis=1):
        # The argmax of uniform numbers is a uniform choice; forbidden choices get -1 and are never the largest.
        columns.append(np.where(part, rng.random(part.shape), -1.0).argmax(axis=1))
    return columns[0] if isinstance(action, Discrete) else np.stack(columns, axis=1)


def difference(one: EnvOutput, other: EnvOutput) -> str:
    """Return the name of the first part in which two outputs differ; empty: they are bit-equal."""
    for name in ("obs_copy", "reward", "terminated", "truncated"):
        if not bit_equal(getattr(one, name), getattr(other, name)):
            return "observation" if name == "obs_copy" else name
    masks = [np.concatenate(mask) if isinstance(mask, tuple) else mask for mask in _masks(one, other)]
    return "" if bit_equal(*masks) else "action mask"


def _masks(*outputs: EnvOutput) -> list[Any]:
    return [output.info.get("action_mask") for output in outputs]


def bit_equal(one: Any, other: Any) -> bool:
    """Return whether two observations, rewards or flags are equal to the last bit, NaN included."""
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.hasobject or b.dtype.hasobject:
        return bool(np.array_equal(a, b))
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def to_vector(observation: Any) -> AnyArray:
    """Return an observation as a vector [D] of float64."""
    return np.asarray(observation, dtype=np.float64).ravel()


_T = TypeVar("_T")


@dataclass(frozen=True)
class CheckRequest:
    """Environments of a run to check, as plain values.

    Args:
        id, num_envs, kwargs, backend, num_threads: as in the config.
        worker_timeout: seconds within which worker processes must answer.
        pickled_env: registration of the environment, from `pickle_env`; None: it is registered everywhere.
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
    """One environment of a request, with the traces that several checks share.

    Properties raise `Inconclusive` where an earlier problem leaves nothing to check.
    """

    def __init__(self, request: CheckRequest) -> None:
        self.request = request
        self._cache: dict[Any, Any] = {}

    def cached(self, function: "Callable[[EnvUnderTest], _T]") -> _T:
        """Call `function(self)` once; return or raise the same at every further call."""
        if function not in self._cache:
            try:
                self._cache[function] = function(self)
            except Exception as error:
                self._cache[function] = error
        found = self._cache[function]
        if isinstance(found, Exception):
            raise found
        value: _T = found
        return value

    @cached_property
    def env_or_problem(self) -> GymEnv | str:
        """Return the environment, or why it cannot be created."""
        try:
            if self.request.pickled_env is not None:
                unpickle_env(self.request.id, self.request.pickled_env)
            return make_single(self.request.id, self.request.kwargs)
        except UserError as error:
            return str(error)
        except Exception as error:  # a constructor may raise anything
            return f"with env.kwargs={self.request.kwargs} it {describe_error(error)}"

    @property
    def env(self) -> GymEnv:
        if isinstance(self.env_or_problem, str):
            raise Inconclusive("it cannot be created")
        return self.env_or_problem

    @contextmanager
    def fresh_env(self) -> Iterator[GymEnv]:
        """Yield a second environment of the same kind."""
        assert not isinstance(self.env_or_problem, str)
        env = make_single(self.request.id, self.request.kwargs)
        try:
            yield env
        finally:
            env.close()

    @cached_property
    def specs_or_problem(self) -> EnvSpaces | str:
        """Return the specs of the spaces, or why no policy supports them."""
        try:
            with suppressed_warnings():
                obs, _ = spaces.observation_spec(self.request.id, self.env.observation_space)
                action, to_env_action = spaces.action_spec(self.request.id, self.env.action_space)
        except UserError as error:
            return str(error).removeprefix(f"env.id={self.request.id}: ")
        return EnvSpaces(obs, action, to_env_action)

    @property
    def specs(self) -> EnvSpaces:
        if isinstance(self.specs_or_problem, str):
            raise Inconclusive("no policy supports its spaces")
        return self.specs_or_problem

    @cached_property
    def trace(self) -> EpisodeTrace:
        """Outputs for random actions; may be empty."""
        return run_random_policy(self.env, self.specs, 0, _TRACE_STEPS, CHECK_SECONDS)

    @property
    def nonempty_trace(self) -> EpisodeTrace:
        """Return the trace, which has at least one output."""
        if not self.trace.outputs:
            raise Inconclusive("there was no observation")
        return self.trace

    @property
    def step_seconds(self) -> float:
        """Median time of a step of one environment; 0 without steps."""
        seconds = self.trace.step_seconds
        return statistics.median(seconds) if seconds else 0.0

    @property
    def fails_on_steps(self) -> bool:
        """Return whether the trace was recorded and an error stopped it."""
        return "trace" in self.__dict__ and bool(self.trace.error)

    @cached_property
    def choice(self) -> BackendChoice:
        """Return the backend that a run would use."""
        request = self.request
        return choose_backend(
            request.id, request.backend, request.kwargs, request.num_envs, request.num_threads, NO_SHAPING
        )

    def close(self) -> None:
        if "env_or_problem" in self.__dict__ and not isinstance(self.env_or_problem, str):
            self.env_or_problem.close()
