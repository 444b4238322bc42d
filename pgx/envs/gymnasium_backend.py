"""Backend `gymnasium`: Gymnasium environments in this process, stepped one after another."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.schema import nearest
from pgx.core.specs import choice_sizes
from pgx.envs import spaces
from pgx.envs.registry import later_version
from pgx.envs.results import describe_failure, stack_observations, to_scalar, unpack_reset, unpack_step
from pgx.envs.spaces import Mask, mask_problem, no_action_allowed, read_mask
from pgx.envs.vector import AnyArray, Signals, Step, reported_success

GymEnv = gymnasium.Env[Any, Any]
_GymSpace = gymnasium.Space[Any]


@contextmanager
def suppressed_warnings() -> Iterator[None]:
    """Suppress warnings about newer versions of an environment and about rounded bounds of a space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*precision lowered by casting.*", UserWarning)
        yield


def make_single(env_id: str, kwargs: dict[str, Any]) -> GymEnv:
    """Create one Gymnasium environment."""
    with suppressed_warnings():
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


# A signal is a quantity that reward terms read in addition to the results of a step: `info.KEY` or `simulator.NAME`.


def _airborne_seconds(env: Any) -> float:
    """Return the duration of the step if no part of the robot touches the world at its end; else 0."""
    contacts = env.data.contact.geom[: env.data.ncon]
    return 0.0 if (env.model.geom_bodyid[contacts] == 0).any() else float(env.dt)


_SIMULATOR_SIGNALS: dict[str, Callable[[Any], Any]] = {
    "flight": _airborne_seconds,
    "qpos": lambda env: env.data.qpos,
    "qvel": lambda env: env.data.qvel,
}


def _read_signal(env: GymEnv, info: Mapping[str, Any], name: str) -> Any:
    """Read a signal of one environment.

    Raises:
        KeyError, AttributeError: the environment does not have it.
    """
    source, _, key = name.partition(".")
    return info[key] if source == "info" else _SIMULATOR_SIGNALS[key](env.unwrapped)


def signal_problem(env: GymEnv, name: str) -> str | None:
    """Return why an environment does not have a signal; None: it has it.

    Args:
        env: environment, which is reset and stepped once to read its info.
        name: of the signal.
    """
    source, _, key = name.partition(".")
    if source == "simulator":
        return None if {"data", "model"} <= vars(env.unwrapped).keys() else "it is not a MuJoCo environment"
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    info = env.step(env.action_space.sample())[4]
    if key not in info:
        return f"the info of its steps has no '{key}'{nearest(key, info)}; it has: {', '.join(info) or 'nothing'}"
    if np.shape(info[key]) != ():
        return f"'{key}' in the info of its steps is not a number"
    return None


class SignalReader:
    """Reader of signals of environments with one id.

    Args:
        names: of the signals.
        envs: environments; MuJoCo's if a signal is of the simulator.
    """

    def __init__(self, names: Sequence[str], envs: Sequence[GymEnv]) -> None:
        self.shapes = {name: _signal_shape(envs[0], name) for name in names}
        self._envs = envs

    def read(self, infos: Sequence[Mapping[str, Any]], resetting: NDArray[np.bool_]) -> Signals:
        """Return the signals of the last step.

        Args:
            infos: one of each environment.
            resetting: [N] whether the step only reset the environment; its signals are 0.

        Raises:
            KeyError: an info does not have the key.
        """
        found = {name: np.zeros((len(self._envs), *shape)) for name, shape in self.shapes.items()}
        for name, values in found.items():
            for i, (env, info) in enumerate(zip(self._envs, infos, strict=True)):
                if not resetting[i]:
                    values[i] = _read_signal(env, info, name)
        return found


def _signal_shape(env: GymEnv, name: str) -> tuple[int, ...]:
    return np.shape(_read_signal(env, {}, name)) if name.startswith("simulator.") else ()


# Types of rewards and flags that can be stored in arrays without conversion.
_REAL_TYPES = frozenset({float, int, np.float64, np.float32})
_BOOL_TYPES = frozenset({bool, np.bool_})


class GymnasiumVector:
    """N environments in this process, each reset on the step after its episode's end (Gymnasium's NEXT_STEP).

    Gymnasium's SyncVectorEnv does the same and also collects every number of every info, which pgx does not read: 10 us
    of the 130 us of a step of a walker.

    Args:
        env_id: Gymnasium id.
        num_envs: N.
        kwargs: of the environments' constructor.
        first_index: index of the first environment in messages; > 0 if other processes have environments 0, 1, ...
        signals: names of the signals to read.

    Raises:
        UserError: an environment cannot be created, or its spaces are not supported.
    """

    backend = "gymnasium"

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        kwargs: dict[str, Any],
        first_index: int,
        signals: Sequence[str] = (),
    ) -> None:
        self.id = env_id
        self.num_envs = num_envs
        self.action_mask: Mask | None = None
        self.success: NDArray[np.int8] | None = None
        self.signals: Signals = {}
        self._first_index = first_index
        self._resetting = np.zeros(num_envs, dtype=bool)
        self._episode_steps = np.zeros(num_envs, dtype=np.int64)
        self._action: AnyArray | None = None
        try:
            self._envs = [make_single(env_id, kwargs) for _ in range(num_envs)]
            self._obs_space, self._action_space = _common_spaces(self._envs)
            self.signal_reader = SignalReader(signals, self._envs)
        except Exception as error:  # a constructor may raise anything; the cause is this id with these kwargs
            later = None if kwargs else later_version(env_id)
            raise UserError(
                f"env.id={env_id}: cannot be created with env.kwargs={kwargs}: {type(error).__name__}: {error}"
                + (f"; choose a later version: env={later}" if later else "")
            ) from error
        self.obs_spec, self._convert_obs = spaces.observation_spec(env_id, self._obs_space)
        self.action_spec, self._convert_action = spaces.action_spec(env_id, self._action_space)

    def reset(self, seed: int) -> AnyArray:
        assert self._action is None, "reset between send and receive"
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._episode_steps[:] = 0
        try:
            results = [unpack_reset(env.reset(seed=seed + i)) for i, env in enumerate(self._envs)]
            obs, infos = zip(*results, strict=True)
            rows = stack_observations(obs, "reset()", self._obs_space)
        except Exception as error:
            raise RunError(f"{self.id}: {describe_failure('reset()', error, self.id)}") from error
        self._set_action_mask(infos, ended=self._resetting, call="reset()")
        return self._convert_obs(rows)

    def send(self, action: AnyArray) -> None:
        assert self._action is None, "two actions sent, none received"
        self._action = self._convert_action(action)

    def receive(self) -> Step:
        assert self._action is not None, "nothing was sent"
        action, self._action = self._action, None
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        obs: list[Any] = []
        infos: list[dict[str, Any]] = []
        call = "step()"
        try:
            for i, env in enumerate(self._envs):
                if self._resetting[i]:
                    call = "reset()"
                    next_obs, info = unpack_reset(env.reset())
                else:
                    call = "step()"
                    next_obs, r, term, trunc, info = unpack_step(env.step(action[i]))
                    if type(r) in _REAL_TYPES and type(term) in _BOOL_TYPES and type(trunc) in _BOOL_TYPES:
                        reward[i], terminated[i], truncated[i] = r, term, trunc
                    else:  # NumPy would convert None to NaN and any text to True
                        reward[i] = to_scalar(r, "reward")
                        terminated[i] = to_scalar(term, "terminated")
                        truncated[i] = to_scalar(trunc, "truncated")
                obs.append(next_obs)
                infos.append(info)
            rows = stack_observations(obs, "step()", self._obs_space)
            self.signals = self.signal_reader.read(infos, self._resetting)
        except Exception as error:
            raise RunError(f"{self.id}: {describe_failure(call, error, self.id)}") from error
        self._episode_steps = np.where(self._resetting, 0, self._episode_steps + 1)
        self._resetting = terminated | truncated
        self._set_action_mask(infos, ended=self._resetting, call="step()")
        self.success = _success_flags(infos)
        return Step(self._convert_obs(rows), reward, terminated, truncated)

    @property
    def first_env(self) -> GymEnv:
        """Return the first environment, to render or inspect it."""
        return self._envs[0]

    def _set_action_mask(self, infos: Sequence[dict[str, Any]], ended: Mask, call: str) -> None:
        """Read info["action_mask"] of each environment; an environment without one allows all actions.

        Args:
            infos: of the step or reset, one for each environment.
            ended: [N] whether the next step only resets; it takes no action, so its mask may forbid all.
            call: that returned the masks, for messages.
        """
        self.action_mask = None
        masks = {i: info["action_mask"] for i, info in enumerate(infos) if "action_mask" in info}
        if not masks:
            return
        sizes = choice_sizes(self.action_spec)
        if not sizes:
            raise RunError(
                f'{self.id}: info["action_mask"] for actions {self.action_spec}; a mask needs discrete actions'
            )
        allowed = np.ones((self.num_envs, sum(sizes)), dtype=bool)
        for i, mask in masks.items():
            if problem := mask_problem(mask, sizes):
                raise RunError(f"{self._mask_name(i, call)} {problem}")
            allowed[i] = ended[i] or read_mask(mask)
        closed = no_action_allowed(allowed, sizes)
        if closed.any():
            raise RunError(
                f"{self._mask_name(int(np.flatnonzero(closed)[0]), call)} forbids every action (of a component) and "
                "its episode has not ended; allow one, or end the episode"
            )
        self.action_mask = allowed

    def _mask_name(self, i: int, call: str) -> str:
        step = f" at step {self._episode_steps[i]} of the episode" if call == "step()" else ""
        return f'{self.id}: info["action_mask"] of environment {self._first_index + i}{step}'

    def close(self) -> None:
        while self._envs:
            self._envs.pop().close()


def _success_flags(infos: Sequence[dict[str, Any]]) -> NDArray[np.int8] | None:
    reported = [reported_success(info) for info in infos]
    if reported.count(None) == len(reported):
        return None
    # A value of another type under such a key is no report of success.
    flags = [bool(each) if isinstance(each, bool | float | np.bool | np.number) else -1 for each in reported]
    return np.array(flags, np.int8)


def _common_spaces(envs: Sequence[GymEnv]) -> tuple[_GymSpace, _GymSpace]:
    """Return the observation space and the action space.

    Raises:
        ValueError: the spaces of the environments differ.
    """
    found = [(env.observation_space, env.action_space) for env in envs]
    for other in found:
        if other != found[0]:
            raise ValueError(f"one environment has the spaces {found[0]}, another {other}")
    return found[0]
