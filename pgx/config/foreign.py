"""Code that is not part of pgx and that a run of a config would import."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pgx.envs.rewards.plan import functions_of

# They make an environment of another library, which is named in their keywords, module and all.
ADAPTERS = frozenset({"GymV21Environment-v0", "GymV26Environment-v0"})


class Foreign(NamedTuple):
    """A value of a config that makes pgx import a module.

    Args:
        key: of the config, e.g. env.id.
        value: e.g. my_module:MyEnv-v0.
        module: what would be imported; None: whatever env.kwargs name.
    """

    key: str
    value: str
    module: str | None


def foreign_values(config: Mapping[str, Any]) -> Iterator[Foreign]:
    """Yield the environment, rule and reward functions of a config that are not pgx's.

    Args:
        config: plain values; sections may be missing.
    """
    for section, name in (("env", "id"), ("algo", "name")):
        value = str(_section(config, section).get(name))
        if ":" in value:
            yield Foreign(f"{section}.{name}", value, module_of(value))
        elif value in ADAPTERS:
            yield Foreign(f"{section}.{name}", value, None)
    for function in functions_of(_section(config, "reward").get("terms")):
        yield Foreign("reward.terms", function, module_of(function))


def module_of(name: str) -> str:
    """Return the module of an environment or a rule, module:Name, or of a function, module.name."""
    return name.rpartition(":" if ":" in name else ".")[0]


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}
