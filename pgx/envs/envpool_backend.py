"""Backend `envpool`: environments in C++ threads. EnvPool is an optional dependency, imported on use only."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gym_spaces
from numpy.typing import NDArray

from pgx.core.cpu import has_one_core_each
from pgx.core.errors import RunError
from pgx.core.imports import import_problem
from pgx.envs import spaces
from pgx.envs.callables import NAMESPACE
from pgx.envs.gymnasium_backend import make_single, suppressed_warnings
from pgx.envs.vector import AnyArray, Signals, Step, reported_success

# Packages whose environments EnvPool reimplements. An environment that another package registers under one of EnvPool's
# ids may differ from it.
_REIMPLEMENTED_PACKAGES = frozenset({"ale_py", "gymnasium", "gymnasium_robotics", "highway_env", "minigrid"})

# Keywords with which EnvPool simulates the same as Gymnasium. Without post_constraint, the contact forces in the
# observations of these two are all zero.
_GYMNASIUM_KWARGS: dict[str, dict[str, Any]] = {
    "Humanoid-v4": {"post_constraint": True},
    "HumanoidStandup-v4": {"post_constraint": True},
}


def _pool_id(env_id: str) -> str:
    """Return EnvPool's id, which has no module: `highway-fast-v0` for `highway_env:highway-fast-v0`."""
    return env_id.rpartition(":")[2]


def envpool_problem(env_id: str, kwargs: dict[str, Any], signals: Sequence[str] = ()) -> str | None:
    """Return why EnvPool cannot replace Gymnasium's environment of this id; None: it can.

    EnvPool can if it has the id, takes every keyword and returns every signal, and if the id names the same task in
    both: a package that EnvPool reimplements registers it, and without keywords its spaces and its time limit equal
    those of Gymnasium. (Some keywords have different names in the two libraries.) EnvPool gives no access to the
    simulator, and its info has fewer keys.
    """
    if problem := import_problem("envpool"):
        return problem
    import envpool

    if env_id.startswith(f"{NAMESPACE}/"):
        return "a Python function makes it"
    name = _pool_id(env_id)
    if name not in envpool.list_all_envs():
        return f"EnvPool has no {name}"
    with suppressed_warnings():
        try:
            envpool.make_spec(name, **kwargs)
        except (TypeError, ValueError) as error:
            return f"EnvPool's {name} does not take these env.kwargs: {error}"
        spec = envpool.make_spec(name)
        for signal in signals:
            source, _, key = signal.partition(".")
            if source == "simulator":
                return f"EnvPool does not return the simulator's {key}"
            if f"info:{key}" not in spec.state_array_spec:
                return f"EnvPool's {name} has no '{key}' in its info"
        pool_spaces = {
            "observations": spec.gymnasium_observation_space,
            "actions": spec.gymnasium_action_space,
        }
    try:
        env = make_single(env_id, {})
    except Exception as error:
        return f"Gymnasium's {env_id} cannot be created for comparison: {error}"
    env_spaces = {"observations": env.observation_space, "actions": env.action_space}
    limit = env.spec.max_episode_steps if env.spec else None
    env.close()
    if problem := _registration_problem(name):
        return problem
    for what, space in pool_spaces.items():
        if not _same_spaces(space, env_spaces[what]):
            return f"EnvPool's {name} has {what} {space}, Gymnasium's {env_spaces[what]}"
    if limit is not None and spec.config.max_episode_steps != limit:
        return (
            f"EnvPool's {name} has a time limit of {spec.config.max_episode_steps} steps, Gymnasium's {limit}"
        )
    return None


def _registration_problem(name: str) -> str | None:
    """Return why a registered id may not name the environment that EnvPool reimplements; None: it does."""
    registered = gymnasium.registry[name]
    entry_point = registered.entry_point
    by_name = entry_point.partition(":")[0] if isinstance(entry_point, str) else None
    module = getattr(entry_point, "__module__", "") if by_name is None else by_name
    if module.partition(".")[0] not in _REIMPLEMENTED_PACKAGES or registered.additional_wrappers:
        return (
            f"{name} is registered by {module or 'a function'}; EnvPool's {name} may be another environment"
        )
    return None


def _same_spaces(one: "gymnasium.Space[Any]", other: "gymnasium.Space[Any]") -> bool:
    """Return whether two spaces have the same types, shapes and numbers of choices; bounds may differ."""
    if isinstance(one, gym_spaces.Dict) and isinstance(other, gym_spaces.Dict):
        return one.keys() == other.keys() and all(_same_spaces(one[key], other[key]) for key in other)
    if isinstance(one, gym_spaces.Tuple) and isinstance(other, gym_spaces.Tuple):
        return len(one) == len(other) and all(map(_same_spaces, one, other))
    if isinstance(one, gym_spaces.MultiDiscrete) and isinstance(other, gym_spaces.MultiDiscrete):
        return np.array_equal(one.nvec, other.nvec)
    return type(one) is type(other) and one.shape == other.shape and _n(one) == _n(other)


def _n(space: "gymnasium.Space[Any]") -> int | None:
    return int(space.n) if isinstance(space, gym_spaces.Discrete) else None


class EnvPoolVector:
    """N environments stepped by C++ threads.

    EnvPool takes its seed only at construction, so every reset constructs the pool again (milliseconds). The number of
    threads does not change the results.

    Steps use the pool's internal calls from arrays to arrays. The public calls around them look up environment ids and
    build a tree of the results, during which no environment moves: 0.15 ms, a tenth of a step.

    Args:
        env_id: Gymnasium id.
        num_envs: N.
        kwargs: of the environments.
        num_threads: of the pool; at most N are used.
        signals: names of the signals to read, all `info.KEY`.
    """

    backend = "envpool"
    action_mask = None

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        kwargs: dict[str, Any],
        num_threads: int,
        signals: Sequence[str] = (),
    ) -> None:
        self.id = env_id
        self.num_envs = num_envs
        self.success: NDArray[np.int8] | None = None
        self.signals: Signals = {}
        self._kwargs = kwargs
        self._num_threads = min(num_threads, num_envs)
        self._pool = self._make(seed=0)
        with suppressed_warnings():
            self.obs_spec, self._convert_obs = spaces.observation_spec(env_id, self._pool.observation_space)
            self.action_spec, self._convert_action = spaces.action_spec(env_id, self._pool.action_space)
        column = {key: i for i, key in enumerate(self._pool._state_keys)}
        self._signal_columns = {signal: column["info:" + signal.removeprefix("info.")] for signal in signals}
        self._success_columns = {
            key: column[f"info:{key}"] for key in ("is_success", "success") if f"info:{key}" in column
        }
        self._columns = {name: column[name] for name in ("reward", "done", "trunc")}
        self._columns["obs"] = next(i for key, i in column.items() if key.partition(":")[0] == "obs")
        self._id_arrays: list[AnyArray] = []  # ids of the environments, which precede the action
        self._action_dtype: np.dtype[Any] | None = None

    def _make(self, seed: int) -> Any:
        import envpool

        name = _pool_id(self.id)
        affinity = {"thread_affinity_offset": 0} if has_one_core_each(self._num_threads) else {}
        with suppressed_warnings():
            return envpool.make(
                name,
                env_type="gymnasium",
                num_envs=self.num_envs,
                num_threads=self._num_threads,
                seed=seed,
                **(affinity | _GYMNASIUM_KWARGS.get(name, {}) | self._kwargs),
            )

    def reset(self, seed: int) -> AnyArray:
        try:
            self._pool = self._make(seed)
            with suppressed_warnings():
                obs, _ = self._pool.reset()
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's reset raised {type(error).__name__}: {error}") from error
        return self._convert_obs(obs)

    def send(self, action: AnyArray) -> None:
        converted = self._convert_action(action)
        try:
            if self._action_dtype is None:
                *self._id_arrays, first = self._pool._from(converted)
                self._pool._check_action([*self._id_arrays, first])
                self._action_dtype = first.dtype
            # An attribute keeps the array alive: EnvPool's threads read it until `receive`.
            self._action = np.ascontiguousarray(converted, self._action_dtype)
            self._pool._send([*self._id_arrays, self._action])
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's send raised {type(error).__name__}: {error}") from error

    def receive(self) -> Step:
        try:  # a batch has all environments, so its rows are in the order of the environments
            columns = self._pool._recv()
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's recv raised {type(error).__name__}: {error}") from error
        self.signals = {
            signal: np.array(columns[i], dtype=np.float64) for signal, i in self._signal_columns.items()
        }
        success = reported_success({key: columns[i] for key, i in self._success_columns.items()})
        self.success = None if success is None else (np.asarray(success) > 0).astype(np.int8)
        obs, reward, done, truncated = (
            columns[self._columns[name]] for name in ("obs", "reward", "done", "trunc")
        )
        return Step(self._convert_obs(obs), reward.astype(np.float64), done & ~truncated, truncated)

    def close(self) -> None:
        self._pool.close()
