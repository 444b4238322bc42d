"""Sections of a config whose `name` chooses from a registry."""

from collections.abc import Callable, Mapping
from typing import Any

from pgx.config.sections import RUNNERS
from pgx.core.schema import signature
from pgx.networks import CRITICS, POLICIES
from pgx.ops.optim import CRITIC_OPTIMIZERS, OPTIMIZERS

NAMED: dict[str, tuple[dict[str, Callable[..., Any]], frozenset[str]]] = {
    # section: what its `name` chooses from, and the parameters that come from elsewhere than the config
    "policy": (POLICIES, frozenset({"obs", "action", "generator"})),
    "critic": (CRITICS, frozenset({"obs", "action", "generator"})),
    "optimizer": (OPTIMIZERS, frozenset({"network", "engine", "ranks"})),
    "critic_optimizer": (CRITIC_OPTIMIZERS, frozenset({"network", "engine", "ranks"})),
    "runner": (RUNNERS, frozenset()),
}


def keys_of(section: str, name: object) -> Mapping[str, Any]:
    """The keys of a named choice with their annotations."""
    registry, supplied = NAMED[section]
    if name not in registry:
        return {"name": str}
    hints = signature(registry[str(name)])
    return {"name": str} | {key: hint for key, hint in hints.items() if key not in supplied | {"return"}}
