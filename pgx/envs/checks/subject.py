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
from pgx.distributed.stuck import frames_of, place
from pgx.envs import spaces
from pgx.envs.gymnasium_backend import make_single, quietly
from pgx.envs.make import Backend, BackendChoice, choose_backend
from pgx.envs.recipe import unpack
from pgx.envs.rewards.plan import OWN
from pgx.envs.spaces import Convert
from pgx.envs.vector import Array

Outcome = Literal["holds", "fails", "cannot be told"]


@dataclass(frozen=True)
class Verdict:
    """Whether an assumption holds, and one line of what was seen."""

    outcome: Outcome
    evidence: str


class Untold(Exception):
    """What an assumption would be judged by is not there; says why."""


def holds(evidence: str) -> Verdict:
    return Verdict("holds", evidence)


def fails(evidence: str) -> Verdict:
    return Verdict("fails", evidence)


def untold(evidence: str) -> Verdict:
    return Verdict("cannot be told", evidence)


ROOM = 64 * 2**20  # bytes of observations that a recording keeps

Single = gymnasium.Env[Any, Any]


@dataclass(frozen=True)
class Specs:
    """What an environment shows and takes."""

    obs: ObsSpec
    action: ActionSpec
    write: Convert  # from a policy's samples [N, ...] to actions


@dataclass(frozen=True)
class Answer:
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
class Recording:
    """Answers in order, the first of a reset."""

    answers: list[Answer] = field(default_factory=list)
    trouble: str = ""  # what broke it off; empty: nothing did
    step_seconds: list[float] = field(default_factory=list)
    reset_seconds: list[float] = field(default_factory=list)

    @property
    def ends(self) -> list[int]:
        """Where episodes ended."""
        return [i for i, answer in enumerate(self.answers) if answer.ended]


class Malformed(Exception):
    """What reset or step returned is not what Gymnasium's return."""


def play(env: Single, specs: Specs, seed: int, steps: int, seconds: float) -> Recording:
    """reset(seed), then random actions that depend on the seed, and a reset without a seed after each end.

    Args:
        env: one environment.
        specs: of its spaces.
        seed: of environment and actions.
        steps: at most, resets among them.
        seconds: after which no further step is taken.
    """
    recording, rng, end = Recording(), np.random.default_rng(seed), time.perf_counter() + seconds
    room, call = ROOM, "reset"
    try:
        while len(recording.answers) <= steps and time.perf_counter() < end and room > 0:
            last = recording.answers[-1] if recording.answers else None
            started = time.perf_counter()
            if last is None or last.ended:
                call = "reset()"
                answer = reset(env, seed if last is None else None)
                recording.reset_seconds.append(time.perf_counter() - started)
            else:
                action = specs.write(draw(rng, specs.action, 1, allowed(last.info, specs.action)))[0]
                started, call = time.perf_counter(), f"step() number {len(recording.step_seconds) + 1}"
                answer = step(env, action)
                recording.step_seconds.append(time.perf_counter() - started)
            recording.answers.append(answer)
            room -= np.asarray(answer.kept).nbytes
    except Exception as error:  # whatever an environment raises
        recording.trouble = f"{call} {raised(error)}"
    return recording


def reset(env: Single, seed: int | None) -> Answer:
    """An answer of its own.

    Raises:
        Malformed: it is not what Gymnasium's reset returns.
    """
    said: Any = env.reset(seed=seed)
    if not (isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], dict)):
        raise Malformed(f"returned {_form(said)}, expected (observation, info), info a dict")
    return Answer(True, said[0], copy.deepcopy(said[0]), 0.0, False, False, said[1])


def step(env: Single, action: Any) -> Answer:
    """An answer of its own.

    Raises:
        Malformed: it is not what Gymnasium's step returns.
    """
    said: Any = env.step(action)
    if not (isinstance(said, tuple) and len(said) == 5 and isinstance(said[4], dict)):
        raise Malformed(
            f"returned {_form(said)}, expected (observation, reward, terminated, truncated, info), info a dict"
        )
    return Answer(False, said[0], copy.deepcopy(said[0]), *said[1:])


def _form(said: Any) -> str:
    if isinstance(said, tuple):
        return f"({', '.join(type(part).__name__ for part in said)})"
    return type(said).__name__


def raised(error: Exception) -> str:
    """What an environment raised, and at which line; or what it returned."""
    if isinstance(error, Malformed):
        return str(error)
    where = place(frames_of(error))
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


def same(one: Answer, other: Answer) -> str:
    """What differs between two answers; empty: not a bit."""
    for what in ("kept", "reward", "terminated", "truncated"):
        if not same_bits(getattr(one, what), getattr(other, what)):
            return "observation" if what == "kept" else what
    masks = [np.concatenate(mask) if isinstance(mask, tuple) else mask for mask in _masks(one, other)]
    return "" if same_bits(*masks) else "action mask"


def _masks(*answers: Answer) -> list[Any]:
    return [answer.info.get("action_mask") for answer in answers]


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
class Asked:
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
    recipe: bytes | None
    normalize_obs: bool = True


class Subject:
    """One environment of those that were asked for. What cannot be looked at raises `Untold`."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._looks: dict[Any, Any] = {}

    def once(self, look: "Callable[[Subject], T]") -> T:
        """What a look brings, or raises: of the first time that it is asked for."""
        if look not in self._looks:
            try:
                self._looks[look] = look(self)
            except Exception as error:
                self._looks[look] = error
        found = self._looks[look]
        if isinstance(found, Exception):
            raise found
        seen: T = found
        return seen

    @cached_property
    def made(self) -> Single | str:
        """The environment, or why it cannot be made."""
        try:
            if self.asked.recipe is not None:
                unpack(self.asked.id, self.asked.recipe)
            return make_single(self.asked.id, self.asked.kwargs)
        except UserError as error:
            return str(error)
        except Exception as error:  # whatever a constructor raises
            return f"with env.kwargs={self.asked.kwargs} it {raised(error)}"

    @property
    def env(self) -> Single:
        if isinstance(self.made, str):
            raise Untold("it cannot be made")
        return self.made

    @contextmanager
    def another(self) -> Iterator[Single]:
        """A new one of the same kind."""
        assert not isinstance(self.made, str)
        env = make_single(self.asked.id, self.asked.kwargs)
        try:
            yield env
        finally:
            env.close()

    @cached_property
    def taken(self) -> Specs | str:
        """What it shows and takes, or why no policy can do that."""
        try:
            with quietly():
                obs, _ = spaces.observation(self.asked.id, self.env.observation_space)
                action, write = spaces.action(self.asked.id, self.env.action_space)
        except UserError as error:
            return str(error).removeprefix(f"env.id={self.asked.id}: ")
        return Specs(obs, action, write)

    @property
    def specs(self) -> Specs:
        if isinstance(self.taken, str):
            raise Untold("no policy takes its spaces")
        return self.taken

    @cached_property
    def recording(self) -> Recording:
        """What it answered to random actions."""
        return play(self.env, self.specs, 0, STEPS, SECONDS)

    @property
    def step_seconds(self) -> float:
        """Median time of a step of one environment; 0 where none was taken."""
        seconds = self.recording.step_seconds
        return statistics.median(seconds) if seconds else 0.0

    @property
    def raises(self) -> bool:
        """Whether it was played and something broke that off."""
        return "recording" in self.__dict__ and bool(self.recording.trouble)

    @property
    def played(self) -> Recording:
        """The recording, in which there is something."""
        if not self.recording.answers:
            raise Untold("there was no observation")
        return self.recording

    @cached_property
    def choice(self) -> BackendChoice:
        """The backend that a run would have."""
        asked = self.asked
        return choose_backend(asked.id, asked.backend, asked.kwargs, asked.num_envs, asked.num_threads, OWN)

    def close(self) -> None:
        if "made" in self.__dict__ and not isinstance(self.made, str):
            self.made.close()
