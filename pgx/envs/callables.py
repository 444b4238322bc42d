"""Environments that a program makes with a function, or describes with Gymnasium's EnvSpec.

Such an environment has an id in Gymnasium's registry while a run uses it, so that it takes the same path as all others:
`python/make_env` for the function `make_env`.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from pgx.core.errors import UserError

NAMESPACE = "python"  # of the ids of these environments

EnvFactory = Callable[..., gymnasium.Env[Any, Any]]


@dataclass(frozen=True)
class FactoryEntryPoint:
    """Entry point of a function: it gets the keyword render_mode only if it takes it."""

    factory: EnvFactory

    def __call__(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        """Create an environment.

        Raises:
            ValueError: a video needs another render mode, and the function does not take one.
        """
        asked = kwargs.get("render_mode")
        if asked is None or _takes(self.factory, "render_mode"):
            return self.factory(**kwargs)
        env = self.factory(**{key: value for key, value in kwargs.items() if key != "render_mode"})
        if getattr(env, "render_mode", None) != asked:
            raise ValueError(
                f"{_name_of(self.factory)} made an environment with render_mode={getattr(env, 'render_mode', None)!r}; "
                f"to record it, let the function take the keyword render_mode, here {asked!r}"
            )
        return env


@dataclass(frozen=True)
class SpecFactory:
    """Function that makes the environment of a Gymnasium spec, with its wrappers."""

    spec: GymnasiumSpec

    def __call__(self, **kwargs: Any) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(self.spec, disable_env_checker=True, **kwargs)


@dataclass
class _Registration:
    entry_point: FactoryEntryPoint
    users: int


_registrations: dict[str, _Registration] = {}
_lock = Lock()


@contextmanager
def registered(factory: EnvFactory, env_id: str | None = None) -> Iterator[str]:
    """Register a function within the context; yield its id.

    A function of the same name that another run uses meanwhile keeps its id; this one then gets a number.

    Args:
        factory: makes an environment.
        env_id: id that an earlier run gave it; None: a new one.

    Raises:
        UserError: another run uses this id for another function.
    """
    entry_point = FactoryEntryPoint(factory)
    with _lock:
        chosen = env_id or _free_id(entry_point)
        used = _registrations.get(chosen)
        if used is not None and used.entry_point != entry_point:
            raise UserError(
                f"env.id={chosen}: another run of this process uses another function of this name now"
            )
        registration = used or _Registration(entry_point, 0)
        registration.users += 1
        _registrations[chosen] = registration
        gymnasium.registry[chosen] = GymnasiumSpec(id=chosen, entry_point=entry_point)
    try:
        yield chosen
    finally:
        with _lock:
            registration.users -= 1
            if registration.users == 0:
                del _registrations[chosen]
                del gymnasium.registry[chosen]


def _free_id(entry_point: FactoryEntryPoint) -> str:
    """Return an id that no other function uses now."""
    name = f"{NAMESPACE}/{_name_of(entry_point.factory)}"
    candidate, number = name, 1
    while candidate in _registrations and _registrations[candidate].entry_point != entry_point:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _name_of(factory: EnvFactory) -> str:
    """Return a function's or class's own name; that of its spec or wrapped function, where it has none."""
    if isinstance(factory, SpecFactory):
        return str(factory.spec.id).rpartition("/")[2]
    if isinstance(factory, partial):
        return _name_of(factory.func)
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return re.sub(r"\W+", "", name.rpartition(".")[2]) or "environment"


def _takes(factory: EnvFactory, keyword: str) -> bool:
    """Return whether a function takes a keyword; True if its signature is unknown."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return True
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


_UNSET = object()


def registered_kwargs(spec: GymnasiumSpec) -> Mapping[str, Any] | None:
    """Return the keywords that make a spec's registered id the same environment; None: there are none."""
    own = gymnasium.registry.get(spec.id)
    if own is None or any(
        getattr(own, name) != getattr(spec, name)
        for name in ("entry_point", "max_episode_steps", "order_enforce", "additional_wrappers")
    ):
        return None
    missing = own.kwargs.keys() - spec.kwargs.keys()
    changed = {key: value for key, value in spec.kwargs.items() if own.kwargs.get(key, _UNSET) != value}
    return None if missing else {key: value for key, value in changed.items() if key != "render_mode"}
