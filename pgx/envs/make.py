"""From an id to a vector environment, on the backend that the config asks for."""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium

from pgx.envs import envpool_backend
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.vector import VectorEnv
from pgx.errors import UserError
from pgx.schema import nearest

Backend = Literal["auto", "envpool", "gymnasium"]


@dataclass(frozen=True)
class BackendChoice:
    """Which backend will be used, and why in a few words for the console."""

    name: Literal["envpool", "gymnasium"]
    reason: str


def id_problem(env_id: str) -> str | None:
    """What is wrong with an environment's id, with the nearest registered one; None when it can be made.

    `module:Id-v0` imports the module first, which is how Gymnasium finds environments of your own.
    """
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module of the user's raises
            return f"env.id={env_id}: module '{module}' cannot be imported: {type(error).__name__}: {error}"
    if name in gymnasium.registry:
        return None
    if colon:
        return f"env.id={env_id}: module '{module}' was imported and registers no environment '{name}'"
    return (
        f"env.id={env_id}: no environment of that id is registered with Gymnasium"
        f"{nearest(name, gymnasium.registry)} (`pgx envs` lists them)"
    )


def choose_backend(env_id: str, backend: Backend, kwargs: dict[str, Any]) -> BackendChoice:
    """Resolve `auto` to EnvPool where it is the same task, else to Gymnasium.

    Raises:
        UserError: EnvPool was asked for by name and cannot do it.
    """
    if backend == "gymnasium":
        return BackendChoice("gymnasium", "as configured")
    refusal = envpool_backend.why_not(env_id, kwargs)
    if refusal is None:
        return BackendChoice("envpool", "as configured" if backend == "envpool" else "auto")
    if backend == "envpool":
        raise UserError(f"env.backend=envpool: {refusal}; env.backend=gymnasium runs it")
    return BackendChoice("gymnasium", f"auto: {refusal}")


def make_envs(
    choice: BackendChoice, env_id: str, num_envs: int, kwargs: dict[str, Any], num_threads: int
) -> VectorEnv:
    """N environments on the chosen backend; `num_threads` matters to EnvPool alone."""
    if choice.name == "envpool":
        return envpool_backend.EnvPoolVector(env_id, num_envs, kwargs, num_threads)
    return GymnasiumVector(env_id, num_envs, kwargs, first=0)
