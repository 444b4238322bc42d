"""Construction of vector environments on the backend that the config names."""

import math
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.envs import envpool_backend, process_backend
from pgx.envs.gymnasium_backend import GymnasiumVector, make_single, signal_problem
from pgx.envs.registry import later_version, pickle_env, unpickle_env
from pgx.envs.rewards.shaped import ShapedRewardEnv
from pgx.envs.rewards.spec import RewardSpec, required_signals
from pgx.envs.vector import AnyArray, SignalEnv, Step, VectorEnv

if TYPE_CHECKING:  # imports torch
    from pgx.distributed.worker_pool import CallCounts

Backend = Literal["auto", "envpool", "processes", "gymnasium"]

# Seconds. Sending a step to workers and back takes about 0.1 ms. Below a few times that, the gain does not make up for
# the start of the workers (half a second, 50 MB each).
_MIN_SECONDS_FOR_WORKERS = 0.3e-3
_TIMING_SECONDS = 0.2  # for measuring the duration of a step


@dataclass(frozen=True)
class BackendChoice:
    """A backend and the reason for it, for the console."""

    name: Literal["envpool", "processes", "gymnasium"]
    reason: str


def nan_kwargs_warnings(kwargs: Mapping[str, Any]) -> list[str]:
    """Return a warning for each keyword of an environment that is or contains NaN. An environment may accept it."""
    return [
        f"env.kwargs.{key}: the environment gets a number that is NaN; for the text, type env.kwargs.{key}=\"'nan'\""
        for key, value in kwargs.items()
        if _has_nan(value)
    ]


def _has_nan(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nan, value))
    return isinstance(value, float) and math.isnan(value)


def choose_backend(
    env_id: str,
    backend: Backend,
    kwargs: dict[str, Any],
    num_envs: int,
    num_threads: int,
    reward: RewardSpec,
) -> BackendChoice:
    """Choose the backend of an environment.

    `auto` is EnvPool if it has the same task and the signals of the reward, else Gymnasium: in worker processes if that
    is faster. The latter depends on the machine; the results are the same to the bit.

    Raises:
        UserError: the requested backend cannot run the environment, or the environment lacks a signal of the reward.
    """
    signals = required_signals(reward)
    _check_signals(env_id, kwargs, signals)
    if backend == "gymnasium":
        return BackendChoice("gymnasium", "as configured")
    if backend == "processes":
        problem = process_backend.worker_process_problem(env_id, kwargs)
        if problem is not None:
            raise UserError(f"env.backend=processes: {problem}; set env.backend=gymnasium")
        return BackendChoice("processes", "as configured")
    problem = envpool_backend.envpool_problem(env_id, kwargs, list(signals))
    if problem is None:
        return BackendChoice("envpool", "as configured" if backend == "envpool" else "auto")
    if backend == "envpool":
        raise UserError(f"env.backend=envpool: {problem}; {_envpool_alternative(env_id, kwargs)}")
    workers = min(num_threads, num_envs)
    if workers > 1 and process_backend.worker_process_problem(env_id, kwargs) is None:
        seconds = step_seconds(env_id, kwargs)
        if seconds * (num_envs - math.ceil(num_envs / workers)) > _MIN_SECONDS_FOR_WORKERS:
            reason = f"a step takes {1000 * seconds:.2g} ms, so {workers} processes share the environments"
            return BackendChoice("processes", f"auto: {problem}; {reason}")
    return BackendChoice("gymnasium", f"auto: {problem}")


def _envpool_alternative(env_id: str, kwargs: dict[str, Any]) -> str:
    """Return advice: Gymnasium, or a later version if Gymnasium cannot create this environment."""
    try:
        make_single(env_id, kwargs).close()
    except Exception:  # a constructor may raise anything; the problem of EnvPool names it
        later = later_version(env_id)
        return f"choose a later version: env={later}" if later else "choose another environment"
    return "set env.backend=gymnasium"


def _check_signals(env_id: str, kwargs: dict[str, Any], signals: Mapping[str, str]) -> None:
    """Check that an environment has the signals that reward terms read.

    Raises:
        UserError: the missing signals, each with its term.
    """
    if not signals:
        return
    try:
        with closing(make_single(env_id, kwargs)) as env:
            found = {term: signal_problem(env, signal) for signal, term in signals.items()}
    except Exception:  # the run reports it when it creates the environment
        return
    if problems := [
        f"reward.terms.{term}: {env_id}: {problem}" for term, problem in found.items() if problem
    ]:
        raise UserError(*problems)


def step_seconds(env_id: str, kwargs: dict[str, Any]) -> float:
    """Return the median duration of a random step of one environment; 0 if it raises.

    It may raise because it forbids some actions, or because it is broken, which the run reports.
    """
    durations: list[float] = []
    try:
        with closing(make_single(env_id, kwargs)) as env:
            env.action_space.seed(0)
            env.reset(seed=0)
            end = time.perf_counter() + _TIMING_SECONDS
            while (started := time.perf_counter()) < end:
                ended = any(env.step(env.action_space.sample())[2:4])
                durations.append(time.perf_counter() - started)
                if ended:
                    env.reset()
    except Exception:
        return 0.0
    return statistics.median(durations)


def make_envs(
    choice: BackendChoice,
    env_id: str,
    num_envs: int,
    kwargs: dict[str, Any],
    num_threads: int,
    worker_timeout: float,
    reward: RewardSpec,
) -> VectorEnv:
    """Create N environments.

    Args:
        choice: backend.
        env_id: Gymnasium id.
        num_envs: N.
        kwargs: of the environments' constructor.
        num_threads: threads of EnvPool, or worker processes.
        worker_timeout: seconds within which worker processes must answer; unused by the other backends.
        reward: reward of a step.
    """
    signals = list(required_signals(reward))
    envs: SignalEnv
    if choice.name == "envpool":
        envs = envpool_backend.EnvPoolVector(env_id, num_envs, kwargs, num_threads, signals)
    elif choice.name == "processes":
        envs = process_backend.ProcessVector(env_id, num_envs, kwargs, num_threads, worker_timeout, signals)
    else:
        envs = GymnasiumVector(env_id, num_envs, kwargs, first_index=0, signals=signals)
    return ShapedRewardEnv(envs, reward, kwargs) if reward.is_shaped else envs


@dataclass(frozen=True)
class EnvSpec:
    """Vector environment as plain values, which this process or a worker process can create.

    Args:
        choice: backend.
        id, num_envs, kwargs, num_threads, worker_timeout: as in `make_envs`.
        pickled_env: registration of the environment, from `pickle_env`; None: not needed.
        reward: reward of a step.
    """

    choice: BackendChoice
    id: str
    num_envs: int
    kwargs: dict[str, Any]
    num_threads: int
    worker_timeout: float
    pickled_env: bytes | None
    reward: RewardSpec

    def make(self) -> VectorEnv:
        """Create the environments."""
        kwargs = self.kwargs if self.pickled_env is None else unpickle_env(self.id, self.pickled_env)
        return make_envs(
            self.choice, self.id, self.num_envs, kwargs, self.num_threads, self.worker_timeout, self.reward
        )


def env_spec(
    env_id: str,
    backend: Backend,
    num_envs: int,
    kwargs: dict[str, Any],
    num_threads: int,
    worker_timeout: float,
    reward: RewardSpec,
) -> EnvSpec:
    """Choose the backend, and return the spec of environments that worker processes can create.

    Raises:
        UserError: worker processes cannot create them, or the requested backend cannot run them.
    """
    choice = choose_backend(env_id, backend, kwargs, num_envs, num_threads, reward)
    pickled_env = None
    if choice.name != "envpool":
        try:
            pickled_env = pickle_env(env_id, kwargs)
        except ValueError as error:
            raise UserError(f"env.id={env_id}: {error}") from error
    return EnvSpec(choice, env_id, num_envs, kwargs, num_threads, worker_timeout, pickled_env, reward)


def make_counted_envs(spec: EnvSpec, calls: "CallCounts") -> VectorEnv:
    """Create environments of a worker whose calls, including their creation, are counted for a watchdog.

    Args:
        spec: of the environments.
        calls: [1] the worker's counter.
    """
    calls += 1
    envs = spec.make()
    calls += 1
    # ProcessVector has the same timeout for its workers.
    return envs if spec.choice.name == "processes" else CallCountingEnv(envs, calls)


class CallCountingEnv:
    """Vector environment that increments a counter before and after every call, so that it is odd during a call."""

    def __init__(self, envs: VectorEnv, calls: "CallCounts") -> None:
        self._envs = envs
        self._calls = calls

    @property
    def id(self) -> str:
        return self._envs.id

    @property
    def backend(self) -> str:
        return self._envs.backend

    @property
    def num_envs(self) -> int:
        return self._envs.num_envs

    @property
    def obs_spec(self) -> ObsSpec:
        return self._envs.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        return self._envs.action_spec

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        return self._envs.action_mask

    @property
    def success(self) -> NDArray[np.int8] | None:
        return self._envs.success

    def reset(self, seed: int) -> AnyArray:
        self._calls += 1
        obs = self._envs.reset(seed)
        self._calls += 1
        return obs

    def send(self, action: AnyArray) -> None:
        self._calls += 1
        self._envs.send(action)
        self._calls += 1

    def receive(self) -> Step:
        self._calls += 1
        step = self._envs.receive()
        self._calls += 1
        return step

    def close(self) -> None:
        self._envs.close()
