"""One environment, played as the trainer plays it, and everything that it answered."""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.specs import ActionSpec, Continuous, Discrete, ObsSpec, choices
from pgx.distributed.stuck import frames_of, place
from pgx.envs.spaces import Convert
from pgx.envs.vector import Array

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
