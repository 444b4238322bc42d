"""The environment that is looked at: what it is, and what is seen of it, each looked at once."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pgx.core.errors import UserError
from pgx.envs import spaces
from pgx.envs.checks.recording import Recording, Single, Specs, play, raised
from pgx.envs.checks.verdict import Untold
from pgx.envs.gymnasium_backend import make_single, quietly
from pgx.envs.make import Backend, BackendChoice, choose_backend
from pgx.envs.recipe import unpack
from pgx.envs.rewards.plan import OWN

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
