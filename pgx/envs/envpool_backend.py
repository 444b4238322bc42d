"""EnvPool: environments in C++ threads. An optional dependency; nothing here is imported unless it is used."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as spaces_of
from numpy.typing import NDArray

from pgx.core.cpu import has_one_core_each
from pgx.core.errors import RunError
from pgx.core.imports import import_problem
from pgx.envs import spaces
from pgx.envs.gymnasium_backend import Signals, make_single, suppressed_warnings
from pgx.envs.vector import Array, Step, reported_success

# Packages of the environments that EnvPool reimplements. An environment of another package is never taken for
# EnvPool's of the same id.
REIMPLEMENTED = frozenset({"ale_py", "gymnasium", "gymnasium_robotics", "highway_env", "minigrid"})

# Keywords with which EnvPool simulates what Gymnasium does. Without post_constraint the contact forces that these two
# observe are all zero.
AS_IN_GYMNASIUM: dict[str, dict[str, Any]] = {
    "Humanoid-v4": {"post_constraint": True},
    "HumanoidStandup-v4": {"post_constraint": True},
}


def pool_id(env_id: str) -> str:
    """Return the id without the module that registers it: EnvPool knows `highway_env:highway-fast-v0` as
    `highway-fast-v0`."""
    return env_id.rpartition(":")[2]


def unsupported_reason(env_id: str, kwargs: dict[str, Any], signals: Sequence[str] = ()) -> str | None:
    """Why EnvPool cannot stand in for Gymnasium's environment of this id; None when it can.

    It can when it knows every keyword and the id, and the id names the same task in both: it is registered by a
    package that EnvPool reimplements, and made without keywords its spaces and time limit are those of Gymnasium. (The
    libraries name some keywords differently.)
    And it must show what is to be read beside its steps: it has no simulator to be looked into, and less info.
    """
    if problem := import_problem("envpool"):
        return problem
    import envpool

    name = pool_id(env_id)
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
                return f"EnvPool does not show the simulator's {key}"
            if f"info:{key}" not in spec.state_array_spec:
                return f"EnvPool's {name} has no '{key}' in its info"
        theirs = {"observations": spec.gymnasium_observation_space, "actions": spec.gymnasium_action_space}
    try:
        env = make_single(env_id, {})
    except Exception as error:
        return f"Gymnasium's {env_id} cannot be made to compare with: {error}"
    ours = {"observations": env.observation_space, "actions": env.action_space}
    limit = env.spec.max_episode_steps if env.spec else None
    env.close()
    if problem := _registration_problem(name):
        return problem
    for what, space in theirs.items():
        if not _same_spaces(space, ours[what]):
            return f"EnvPool's {name} has {what} {space}, Gymnasium's {ours[what]}"
    if limit is not None and spec.config.max_episode_steps != limit:
        return f"EnvPool's {name} lasts {spec.config.max_episode_steps} steps, Gymnasium's {limit}"
    return None


def _registration_problem(name: str) -> str | None:
    """Why a registered id does not name the environment that EnvPool reimplements; None: it does."""
    registered = gymnasium.registry[name]
    made = registered.entry_point
    module = made.partition(":")[0] if isinstance(made, str) else getattr(made, "__module__", "")
    if module.partition(".")[0] not in REIMPLEMENTED or registered.additional_wrappers:
        return f"{name} is made by {module or 'a function'} here, EnvPool's {name} may be another environment"
    return None


def _same_spaces(theirs: "gymnasium.Space[Any]", ours: "gymnasium.Space[Any]") -> bool:
    """Whether two spaces hold the same kind of values: shapes, numbers of choices, and so on for every entry."""
    if isinstance(theirs, spaces_of.Dict) and isinstance(ours, spaces_of.Dict):
        return theirs.keys() == ours.keys() and all(_same_spaces(theirs[key], ours[key]) for key in ours)
    if isinstance(theirs, spaces_of.Tuple) and isinstance(ours, spaces_of.Tuple):
        return len(theirs) == len(ours) and all(map(_same_spaces, theirs, ours))
    if isinstance(theirs, spaces_of.MultiDiscrete) and isinstance(ours, spaces_of.MultiDiscrete):
        return np.array_equal(theirs.nvec, ours.nvec)
    return type(theirs) is type(ours) and theirs.shape == ours.shape and _n(theirs) == _n(ours)


def _n(space: "gymnasium.Space[Any]") -> int | None:
    return int(space.n) if isinstance(space, spaces_of.Discrete) else None


class EnvPoolVector:
    """N environments stepped by `num_threads` C++ threads.

    EnvPool is seeded where it is made and nowhere else, so every reset makes the pool anew (milliseconds). The
    number of threads does not change a bit of the results.

    Steps go through the pool's own two calls, of columns to columns. The public ones around them look up who acts and
    make a tree of what comes back, with no environment moving meanwhile: 0.15 ms a step, a tenth of a step's time.
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
            self.obs_spec, self._read = spaces.observation(env_id, self._pool.observation_space)
            self.action_spec, self._write = spaces.action(env_id, self._pool.action_space)
        at = {key: i for i, key in enumerate(self._pool._state_keys)}
        self._infos = {signal: at["info:" + signal.removeprefix("info.")] for signal in signals}
        self._success_columns = {
            key: at[f"info:{key}"] for key in ("is_success", "success") if f"info:{key}" in at
        }
        self._at = {name: at[name] for name in ("reward", "done", "trunc")}
        self._at["obs"] = next(i for key, i in at.items() if key.partition(":")[0] == "obs")
        self._who: list[Array] = []  # acts, in every column but the last
        self._taken: np.dtype[Any] | None = None  # of an action

    def _make(self, seed: int) -> Any:
        import envpool

        name = pool_id(self.id)
        stay = {"thread_affinity_offset": 0} if has_one_core_each(self._num_threads) else {}
        with suppressed_warnings():
            return envpool.make(
                name,
                env_type="gymnasium",
                num_envs=self.num_envs,
                num_threads=self._num_threads,
                seed=seed,
                **(stay | AS_IN_GYMNASIUM.get(name, {}) | self._kwargs),
            )

    def reset(self, seed: int) -> Array:
        try:
            self._pool = self._make(seed)
            with suppressed_warnings():
                obs, _ = self._pool.reset()
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's reset raised {type(error).__name__}: {error}") from error
        return self._read(obs)

    def send(self, action: Array) -> None:
        written = self._write(action)
        try:
            if self._taken is None:
                *self._who, first = self._pool._from(written)
                self._pool._check_action([*self._who, first])
                self._taken = first.dtype
            # Kept, since EnvPool's threads read from it until `receive`.
            self._action = np.ascontiguousarray(written, self._taken)
            self._pool._send([*self._who, self._action])
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's send raised {type(error).__name__}: {error}") from error

    def receive(self) -> Step:
        try:  # rows come in the order of the environments, since a batch is all of them
            columns = self._pool._recv()
        except Exception as error:
            raise RunError(f"{self.id}: EnvPool's recv raised {type(error).__name__}: {error}") from error
        self.signals = {signal: np.array(columns[i], dtype=np.float64) for signal, i in self._infos.items()}
        said = reported_success({key: columns[i] for key, i in self._success_columns.items()})
        self.success = None if said is None else (np.asarray(said) > 0).astype(np.int8)
        obs, reward, done, truncated = (
            columns[self._at[name]] for name in ("obs", "reward", "done", "trunc")
        )
        return Step(self._read(obs), reward.astype(np.float64), done & ~truncated, truncated)

    def close(self) -> None:
        self._pool.close()
