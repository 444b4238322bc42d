"""Which choices and keys an override may name, and what is wrong with one that names another."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from pgx.config.aliases import meant
from pgx.config.own_rules import own_rule_problem
from pgx.config.rule_names import rule_hint
from pgx.config.spelling import whole_list
from pgx.core.paths import choices, groups
from pgx.core.schema import nearest
from pgx.envs.make import id_problem


def is_choice(override: Override) -> bool:
    return override.key_or_group in groups()


def takes_any_key(override: Override) -> bool:
    """A choice, a key that is added on purpose, or one of Hydra's own, which Hydra knows."""
    added = override.is_add() or override.is_force_add()
    return is_choice(override) or added or override.key_or_group.split(".")[0] == "hydra"


def choice_problem(override: Override) -> str | None:
    """What is wrong with choosing a file of a group; None for other overrides."""
    group = override.key_or_group
    if not is_choice(override) or override.is_sweep_override():
        return None
    if override.is_delete():
        deleted = override.value()
        return (
            None
            if deleted in (None, "") or isinstance(deleted, str)
            else f"{override.input_line}: not a choice"
        )
    if isinstance(override.value(), dict | list):
        return f"{override.input_line}: expected the name of one choice"
    value = str(override.value())
    if group == "env":
        return None if value in choices("env") else id_problem(value)
    if group == "algo" and ":" in value:
        return own_rule_problem(value)
    if value in choices(group) or (group in ("experiment", "sweep") and value == "None"):
        return None
    offered = ", ".join(choices(group)) or "nothing yet"
    hint = rule_hint(value) if group == "algo" else nearest(value, choices(group))
    return f"{group}={value}: no such choice{hint}; {group} offers: {offered}"


def key_problem(override: Override, known: Any) -> str | None:
    """What is wrong with the key of a value override; None where it exists or is added on purpose."""
    if takes_any_key(override):
        return None
    key, here = override.key_or_group, known
    where: list[str] = []
    for part in key.split("."):
        if isinstance(here, list):
            return (
                f"{key}: one element of a list cannot be set; {whole_list('.'.join(where), override.value())}"
            )
        if not isinstance(here, dict) or part not in here:
            candidates = list(here) if isinstance(here, dict) else []
            hint = (nearest(part, candidates) if part != key.split(".")[-1] else "") or meant(key, known)
            if not hint and not where:
                hint = f"; the sections are {', '.join(candidates)}"
            elif not hint and candidates:
                hint = f"; {_section(where, here)} has: {', '.join(candidates)}"
            return f"{key}: unknown key{hint}"
        where.append(part)
        here = here[part]
    return None


def _section(path: Sequence[str], section: dict[str, Any]) -> str:
    """A section as the user chose it, e.g. algo=ppo; or its dotted name."""
    dotted, name = ".".join(path), section.get("name")
    return f"{dotted}={name}" if len(path) == 1 and isinstance(name, str) else dotted


def surely_there(key: str, values: Any, given: Sequence[str]) -> bool:
    """Whether the sections that a key is in were there before the overrides, which make one of a plain value too.

    Args:
        key: with dots.
        values: the config with all overrides.
        given: the keys of all overrides, a dot after each.
    """
    path = key.split(".")[:-1]
    for depth, name in enumerate(path):
        values = values.get(name) if isinstance(values, dict) else None
        section = ".".join(path[: depth + 1])
        if not isinstance(values, dict) or all(
            any(other.startswith(f"{section}.{inner}.") for other in given) for inner in values
        ):
            return False
    return True
