"""How an environment that is registered here is made in a worker process."""

import pickle
from typing import Any

import gymnasium

from pgx.core.errors import UserError


def pickle_env(env_id: str, kwargs: dict[str, Any]) -> bytes:
    """What a worker needs to make an environment: how it was registered here, and its keywords.

    Raises:
        ValueError: it cannot be brought there.
    """
    # None for `module:Id`, which its module registers there too, perhaps with what cannot be sent.
    spec = gymnasium.registry.get(env_id)
    instead = f"register it in a module and use env.id=module:{env_id}"
    try:
        packed = pickle.dumps((spec, kwargs))
    except Exception as error:
        raise ValueError(f"{env_id} cannot be sent to worker processes ({error}); {instead}") from error
    if b"__main__" in packed:  # pickle sends functions and classes by the name of their module
        raise ValueError(
            f"{env_id} is made by code of the script itself, which workers do not run; {instead}"
        )
    return packed


def unpickle_env(env_id: str, packed: bytes) -> dict[str, Any]:
    """Register the environment in this process as it was registered where it was packed; returns its keywords.

    Raises:
        UserError: what it was registered with cannot be imported here.
    """
    try:
        spec, kwargs = pickle.loads(packed)
    except Exception as error:
        raise UserError(
            f"env.id={env_id}: a worker process cannot import what it was registered with "
            f"({type(error).__name__}: {error}); register it in a module and use env.id=module:{env_id}"
        ) from error
    if spec is not None:
        gymnasium.registry[spec.id] = spec
    return dict(kwargs)
