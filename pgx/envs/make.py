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
from pgx.envs.vector import Array, SignalEnv, Step, VectorEnv

if TYPE_CHECKING:  # imports torch
    from pgx.distributed.worker_pool import CallCounts

Backend = Literal["auto", "envpool", "processes", "gymnasium"]

# Seconds. Handing a step to workers and back takes about 0.1 ms; below some times that, what is gained by it would
# not make up for starting them (half a second, 50 MB each).
WORTH_WORKERS = 0.3e-3
TRIAL = 0.2  # seconds for timing an environment's step


@dataclass(frozen=True)
class BackendChoice:
    """Which backend will be used, and why in a few words for the console."""

    name: Literal["envpool", "processes", "gymnasium"]
    reason: str


def nan_keywords(kwargs: Mapping[str, Any]) -> list[str]:
    """Return a warning for each keyword of an environment that is NaN or holds one. An environment may take it."""
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
    """Resolve `auto` to EnvPool where it is the same task, else to Gymnasium: in worker processes where that is faster.

    The last depends on the machine; the results do not, to the last bit. EnvPool is also left where a
    term of the reward needs what it does not show.

    Raises:
        UserError: what was asked for by name cannot do it, or the environment has not what the reward needs.
    """
    signals = required_signals(reward)
    _check_signals(env_id, kwargs, signals)
    if backend == "gymnasium":
        return BackendChoice("gymnasium", "as configured")
    if backend == "processes":
        refusal = process_backend.unsupported_reason(env_id, kwargs)
        if refusal is not None:
            raise UserError(f"env.backend=processes: {refusal}; env.backend=gymnasium runs it")
        return BackendChoice("processes", "as configured")
    refusal = envpool_backend.unsupported_reason(env_id, kwargs, list(signals))
    if refusal is None:
        return BackendChoice("envpool", "as configured" if backend == "envpool" else "auto")
    if backend == "envpool":
        raise UserError(f"env.backend=envpool: {refusal}; {_instead(env_id, kwargs)}")
    workers = min(num_threads, num_envs)
    if workers > 1 and process_backend.unsupported_reason(env_id, kwargs) is None:
        seconds = step_seconds(env_id, kwargs)
        if seconds * (num_envs - math.ceil(num_envs / workers)) > WORTH_WORKERS:
            how = f"a step takes {1000 * seconds:.2g} ms, so {workers} processes share the environments"
            return BackendChoice("processes", f"auto: {refusal}; {how}")
    return BackendChoice("gymnasium", f"auto: {refusal}")


def _instead(env_id: str, kwargs: dict[str, Any]) -> str:
    """Advise what runs in place of EnvPool: Gymnasium, or a later version if Gymnasium cannot make this one."""
    try:
        make_single(env_id, kwargs).close()
    except Exception:  # whatever a constructor raises; the refusal says it
        later = later_version(env_id)
        return f"choose a later version: env={later}" if later else "choose another environment"
    return "env.backend=gymnasium runs it"


def _check_signals(env_id: str, kwargs: dict[str, Any], signals: Mapping[str, str]) -> None:
    """Look whether an environment has what terms would read of it, before there is a run.

    Raises:
        UserError: what it has not, with the term that asks.
    """
    if not signals:
        return
    try:
        with closing(make_single(env_id, kwargs)) as env:
            found = {term: signal_problem(env, signal) for signal, term in signals.items()}
    except Exception:  # an environment that is broken says so when the run makes it
        return
    if problems := [f"reward.terms.{term}: {env_id}: {said}" for term, said in found.items() if said]:
        raise UserError(*problems)


def step_seconds(env_id: str, kwargs: dict[str, Any]) -> float:
    """The median time of a random step of one environment; 0 for one that does not stand a trial.

    That may be one in which some actions are forbidden, or one that is broken, which the run itself will say.
    """
    took: list[float] = []
    try:
        with closing(make_single(env_id, kwargs)) as env:
            env.action_space.seed(0)
            env.reset(seed=0)
            end = time.perf_counter() + TRIAL
            while (started := time.perf_counter()) < end:
                ended = any(env.step(env.action_space.sample())[2:4])
                took.append(time.perf_counter() - started)
                if ended:
                    env.reset()
    except Exception:
        return 0.0
    return statistics.median(took)


def make_envs(
    choice: BackendChoice,
    env_id: str,
    num_envs: int,
    kwargs: dict[str, Any],
    num_threads: int,
    worker_timeout: float,
    reward: RewardSpec,
) -> VectorEnv:
    """N environments on the chosen backend.

    Args:
        choice: of the backend.
        env_id, num_envs, kwargs: which, how many and how they are made.
        num_threads: of EnvPool, or worker processes.
        worker_timeout: seconds in which worker processes answer; the other backends have none.
        reward: what is paid.
    """
    signals = list(required_signals(reward))
    envs: SignalEnv
    if choice.name == "envpool":
        envs = envpool_backend.EnvPoolVector(env_id, num_envs, kwargs, num_threads, signals)
    elif choice.name == "processes":
        envs = process_backend.ProcessVector(env_id, num_envs, kwargs, num_threads, worker_timeout, signals)
    else:
        envs = GymnasiumVector(env_id, num_envs, kwargs, first=0, signals=signals)
    return ShapedRewardEnv(envs, reward, kwargs) if reward.shapes else envs


@dataclass(frozen=True)
class EnvSpec:
    """Environments as plain values, to be made here or in a worker process.

    Args:
        choice: of the backend.
        id, num_envs, kwargs, num_threads, worker_timeout: as `make_envs` takes them.
        recipe: how the environment is registered here, from `pickle_env`; None: as it is everywhere.
        reward: what is paid.
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
        """The environments."""
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
    """Environments that worker processes can make.

    Raises:
        UserError: they cannot, or the backend that was asked for cannot.
    """
    choice = choose_backend(env_id, backend, kwargs, num_envs, num_threads, reward)
    pickled_env = None
    if choice.name != "envpool":
        try:
            pickled_env = pickle_env(env_id, kwargs)
        except ValueError as error:
            raise UserError(f"env.id={env_id}: {error}") from error
    return EnvSpec(choice, env_id, num_envs, kwargs, num_threads, worker_timeout, pickled_env, reward)


def make_counted(plan: EnvSpec, calls: "CallCounts") -> VectorEnv:
    """Environments of a worker, whose every call is counted, the first being that which makes them.

    Args:
        plan: of the environments.
        calls: the worker's own counter, [1].
    """
    calls += 1
    envs = plan.make()
    calls += 1
    # Those in processes of their own are watched from here, by the same bound.
    return envs if plan.choice.name == "processes" else CountedCalls(envs, calls)


class CountedCalls:
    """Environments whose calls are counted."""

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

    def reset(self, seed: int) -> Array:
        self._calls += 1
        obs = self._envs.reset(seed)
        self._calls += 1
        return obs

    def send(self, action: Array) -> None:
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
