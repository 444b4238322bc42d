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
from pgx.core.specs import choices
from pgx.envs import spaces
from pgx.envs.registry import later_version
from pgx.envs.results import describe_failure, number, stack_observations, unpack_reset, unpack_step
from pgx.envs.spaces import Mask, mask_problem, no_action_allowed, read_mask
from pgx.envs.vector import Array, Step, reported_success

Single = gymnasium.Env[Any, Any]
Signals = Mapping[str, NDArray[np.float64]]  # [N, ...] each


def flight(env: Any) -> float:
    """Seconds of the step, if nothing of the robot touches the world when it ends; else 0."""
    contacts = env.data.contact.geom[: env.data.ncon]
    return 0.0 if (env.model.geom_bodyid[contacts] == 0).any() else float(env.dt)


SIMULATOR: dict[str, Callable[[Any], Any]] = {
    "flight": flight,
    "qpos": lambda env: env.data.qpos,
    "qvel": lambda env: env.data.qvel,
}


def read_signal(env: Single, info: Mapping[str, Any], name: str) -> Any:
    """One reading of one environment.

    Raises:
        KeyError, AttributeError: it has none of that name.
    """
    source, _, key = name.partition(".")
    return info[key] if source == "info" else SIMULATOR[key](env.unwrapped)


def signal_problem(env: Single, name: str) -> str | None:
    """Why an environment has no such reading; None: it has.

    Args:
        env: which is reset, and takes a step where its info has to be seen.
        name: of the reading.
    """
    source, _, key = name.partition(".")
    if source == "simulator":
        return None if {"data", "model"} <= vars(env.unwrapped).keys() else "it is no environment of MuJoCo's"
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    info = env.step(env.action_space.sample())[4]
    if key not in info:
        return f"the info of its steps has no '{key}'{nearest(key, info)}; it has: {', '.join(info) or 'nothing'}"
    if np.shape(info[key]) != ():
        return f"'{key}' in the info of its steps is no number"
    return None


class SignalReader:
    """Reads so many environments of one kind, one after another.

    Args:
        names: of the readings.
        envs: of MuJoCo's where the simulator is to be read.
    """

    def __init__(self, names: Sequence[str], envs: Sequence[Single]) -> None:
        self.shapes = {name: _shape(envs[0], name) for name in names}
        self._envs = envs

    def read(self, infos: Sequence[Mapping[str, Any]], resetting: NDArray[np.bool_]) -> Signals:
        """Of the last step; 0 where an environment only reset.

        Raises:
            KeyError: an info has no such key.
        """
        found = {name: np.zeros((len(self._envs), *shape)) for name, shape in self.shapes.items()}
        for name, values in found.items():
            for i, (env, info) in enumerate(zip(self._envs, infos, strict=True)):
                if not resetting[i]:
                    values[i] = read_signal(env, info, name)
        return found


def _shape(env: Single, name: str) -> tuple[int, ...]:
    """Of a reading; known before the first step."""
    return np.shape(read_signal(env, {}, name)) if name.startswith("simulator.") else ()


Space = gymnasium.Space[Any]


@contextmanager
def suppressed_warnings() -> Iterator[None]:
    """Without the advice that libraries print where environments are made: to use another version of the one
    that the user named, or that bounds of a space were rounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*precision lowered by casting.*", UserWarning)
        yield


def make_single(env_id: str, kwargs: dict[str, Any]) -> "gymnasium.Env[Any, Any]":
    """One environment."""
    with suppressed_warnings():
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


_REALS = frozenset({float, int, np.float64, np.float32})
_FLAGS = frozenset({bool, np.bool_})


class GymnasiumVector:
    """N environments, each reset on the step after its episode's end (Gymnasium's NEXT_STEP).

    Gymnasium's SyncVectorEnv does the same, and gathers every number of every info besides, which nothing here reads:
    10 us a step of a walker, of 130.

    Args:
        env_id: as Gymnasium takes it.
        num_envs: N.
        kwargs: of the constructor.
        first: number of the first of them, in messages; 0 unless others are elsewhere.
        readings: what is read of each beside its steps, see pgx/envs/results.py.
    """

    backend = "gymnasium"

    def __init__(
        self, env_id: str, num_envs: int, kwargs: dict[str, Any], first: int, signals: Sequence[str] = ()
    ) -> None:
        self.id = env_id
        self.num_envs = num_envs
        self.action_mask: Mask | None = None
        self.success: NDArray[np.int8] | None = None
        self.signals: Signals = {}
        self._number = first
        self._resetting = np.zeros(num_envs, dtype=bool)
        self._steps = np.zeros(num_envs, dtype=np.int64)  # of the episodes under way
        self._action: Array | None = None
        try:
            self._envs = [make_single(env_id, kwargs) for _ in range(num_envs)]
            self._obs_space, self._action_space = _common_spaces(self._envs)
            self.signal_reader = SignalReader(signals, self._envs)
        except Exception as error:  # whatever a constructor raises, it is about this id and these kwargs
            later = None if kwargs else later_version(env_id)
            raise UserError(
                f"env.id={env_id}: cannot be made with env.kwargs={kwargs}: {type(error).__name__}: {error}"
                + (f"; choose a later version: env={later}" if later else "")
            ) from error
        self.obs_spec, self._read = spaces.observation(env_id, self._obs_space)
        self.action_spec, self._write = spaces.action(env_id, self._action_space)

    def reset(self, seed: int) -> Array:
        assert self._action is None, "reset between send and receive"
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._steps[:] = 0
        try:
            answers = [unpack_reset(env.reset(seed=seed + i)) for i, env in enumerate(self._envs)]
            obs, infos = zip(*answers, strict=True)
            rows = stack_observations(obs, "reset()", self._obs_space)
        except Exception as error:
            raise RunError(f"{self.id}: {describe_failure('reset()', error, self.id)}") from error
        self._note_masks(infos, ended=self._resetting, call="reset()")
        return self._read(rows)

    def send(self, action: Array) -> None:
        assert self._action is None, "two actions sent, none received"
        self._action = self._write(action)

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
                    seen, info = unpack_reset(env.reset())
                else:
                    call = "step()"
                    seen, pay, ended, cut, info = unpack_step(env.step(action[i]))
                    if type(pay) in _REALS and type(ended) in _FLAGS and type(cut) in _FLAGS:
                        reward[i], terminated[i], truncated[i] = pay, ended, cut
                    else:  # NumPy would take None for NaN and any text for true
                        reward[i] = number(pay, "reward")
                        terminated[i] = number(ended, "terminated")
                        truncated[i] = number(cut, "truncated")
                obs.append(seen)
                infos.append(info)
            rows = stack_observations(obs, "step()", self._obs_space)
            self.signals = self.signal_reader.read(infos, self._resetting)
        except Exception as error:
            raise RunError(f"{self.id}: {describe_failure(call, error, self.id)}") from error
        self._steps = np.where(self._resetting, 0, self._steps + 1)
        self._resetting = terminated | truncated
        self._note_masks(infos, ended=self._resetting, call="step()")
        self.success = _success_flags(infos)
        return Step(self._read(rows), reward, terminated, truncated)

    @property
    def first(self) -> "gymnasium.Env[Any, Any]":
        """The first of them, to be looked at."""
        return self._envs[0]

    def _note_masks(self, infos: Sequence[dict[str, Any]], ended: Mask, call: str) -> None:
        """Keep info["action_mask"] of each environment; all actions where one gives none.

        Args:
            infos: of the step or reset, one for each environment.
            ended: [N] where the step to come only resets: a mask there is of no action, and may forbid all.
            call: that showed them, for messages.
        """
        self.action_mask = None
        shown = {i: info["action_mask"] for i, info in enumerate(infos) if "action_mask" in info}
        if not shown:
            return
        sizes = choices(self.action_spec)
        if not sizes:
            raise RunError(
                f'{self.id}: info["action_mask"] for actions {self.action_spec}; masks are of discrete ones'
            )
        allowed = np.ones((self.num_envs, sum(sizes)), dtype=bool)
        for i, mask in shown.items():
            if problem := mask_problem(mask, sizes):
                raise RunError(f"{self._whose_mask(i, call)} {problem}")
            allowed[i] = ended[i] or read_mask(mask)
        closed = no_action_allowed(allowed, sizes)
        if closed.any():
            raise RunError(
                f"{self._whose_mask(int(np.flatnonzero(closed)[0]), call)} forbids every action (of a component) and "
                "its episode has not ended; allow one, or end the episode"
            )
        self.action_mask = allowed

    def _whose_mask(self, i: int, call: str) -> str:
        step = f" at step {self._steps[i]} of the episode" if call == "step()" else ""
        return f'{self.id}: info["action_mask"] of environment {self._number + i}{step}'

    def close(self) -> None:
        while self._envs:
            self._envs.pop().close()


def _success_flags(infos: Sequence[dict[str, Any]]) -> NDArray[np.int8] | None:
    said = [reported_success(info) for info in infos]
    if said.count(None) == len(said):
        return None
    # Whatever else stands under such a name says nothing here.
    verdicts = [bool(each) if isinstance(each, bool | float | np.bool | np.number) else -1 for each in said]
    return np.array(verdicts, np.int8)


def _common_spaces(envs: Sequence["gymnasium.Env[Any, Any]"]) -> tuple[Space, Space]:
    """Of observations and of actions.

    Raises:
        ValueError: they are not the same in all environments.
    """
    found = [(env.observation_space, env.action_space) for env in envs]
    for other in found:
        if other != found[0]:
            raise ValueError(f"one environment has the spaces {found[0]}, another {other}")
    return found[0]
