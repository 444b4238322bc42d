"""Overrides as the user types them: parsing, unknown choices and keys, and expansion of sweeps."""

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, lru_cache
from itertools import islice, product
from typing import Any

import gymnasium
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep
from hydra.errors import HydraException

from pgx.config.named_objects import external_names
from pgx.config.rules import own_rule_problem, register_rule, rule_hint
from pgx.config.stored import renamed_problem
from pgx.config.suggestions import (
    key_hint,
    one_line_message,
    parse_problem,
    to_hydra_grammar,
    whole_list_hint,
)
from pgx.core.errors import UserError
from pgx.core.paths import config_choices, config_groups
from pgx.core.schema import MAX_VALUE_LENGTH, nearest
from pgx.envs.registry import id_problem
from pgx.envs.rewards.spec import user_functions


def is_choice(override: Override) -> bool:
    return override.key_or_group in config_groups()


def may_add_key(override: Override) -> bool:
    """Return whether an override may name a key that does not exist: a choice, `+key`, or a key of Hydra."""
    added = override.is_add() or override.is_force_add()
    return is_choice(override) or added or override.key_or_group.split(".")[0] == "hydra"


def choice_problem(override: Override) -> str | None:
    """Return the problem with a choice of a group; None for valid choices and other overrides."""
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
        return None if value in config_choices("env") else id_problem(value)
    if group == "algo" and ":" in value:
        return own_rule_problem(value)
    if value in config_choices(group) or (group in ("experiment", "sweep") and value == "None"):
        return None
    offered = ", ".join(config_choices(group)) or "nothing yet"
    hint = rule_hint(value) if group == "algo" else nearest(value, config_choices(group))
    return f"{group}={value}: no such choice{hint}; {group} offers: {offered}"


def key_problem(override: Override, known: Any) -> str | None:
    """Return the problem with the key of a value override; None if the key exists or is added with +."""
    if problem := renamed_problem(override.key_or_group):
        return problem
    if may_add_key(override):
        return None
    key, here = override.key_or_group, known
    where: list[str] = []
    for part in key.split("."):
        if isinstance(here, list):
            return f"{key}: one element of a list cannot be set; {whole_list_hint('.'.join(where), override.value())}"
        if not isinstance(here, dict) or part not in here:
            candidates = list(here) if isinstance(here, dict) else []
            hint = (nearest(part, candidates) if part != key.split(".")[-1] else "") or key_hint(key, known)
            if not hint and not where:
                hint = f"; the sections are {', '.join(candidates)}"
            elif not hint and candidates:
                hint = f"; {_section(where, here)} has: {', '.join(candidates)}"
            return f"{key}: unknown key{hint}"
        where.append(part)
        here = here[part]
    return None


def _section(path: Sequence[str], section: dict[str, Any]) -> str:
    """Return a section as the user chose it, e.g. algo=ppo, or its dotted name."""
    dotted, name = ".".join(path), section.get("name")
    return f"{dotted}={name}" if len(path) == 1 and isinstance(name, str) else dotted


def sections_existed(key: str, values: Any, given: Sequence[str]) -> bool:
    """Return whether the sections of a key existed before the overrides, which may turn a value into a section.

    Args:
        key: dotted.
        values: the config with all overrides.
        given: the keys of all overrides, each with a final dot.
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


MAX_JOBS = 10_000  # of a sweep; all are composed and checked before the first starts


def register_environments(ids: Iterable[str]) -> None:
    """Register these ids for `env=`: ids without a file use configs/env/default.yaml."""
    for env_id in set(ids) - set(config_choices("env")):
        _register_environment(env_id)


@cache
def _register_environment(env_id: str) -> None:
    node = {"defaults": ["/env/default@_here_", "_self_"], "id": env_id}
    folder, _, name = env_id.rpartition("/")
    group = f"env/{folder}" if folder else "env"
    ConfigStore.instance().store(group=group, name=name, node=node, package="env")


def parse(overrides: list[str]) -> list[Override]:
    """Parse overrides after `to_hydra_grammar`.

    Raises:
        UserError: an override is not key=value.
    """
    read = [_parse_one(text) for text in map(to_hydra_grammar, overrides)]
    problems = [each for each in read if isinstance(each, str)]
    if problems:
        raise UserError(*problems)
    return [copy(each) for each in read if not isinstance(each, str)]


# Cached, because overrides are parsed several times and jobs of a sweep share most of them.
@lru_cache(maxsize=4096)
def _parse_one(text: str) -> Override | str:
    """Parse one override; return it or its problem."""
    try:
        override = OverridesParser.create().parse_override(text)
        if not override.key_or_group:
            raise HydraException("there is no key")
    except HydraException:
        return parse_problem(text)
    except (RecursionError, ValueError, ArithmeticError) as error:
        # Huge numbers, or deeply nested brackets.
        return f"{text[:MAX_VALUE_LENGTH]}: cannot be read ({type(error).__name__})"
    return override


def prepare(overrides: list[str]) -> list[str]:
    """Return overrides for Hydra: open sections get `+`, environments are registered, `module:Name` is imported."""
    prepared = []
    for override in parse(overrides):
        text, key = override.input_line or "", override.key_or_group
        adds = f"{key}.".startswith(("env.kwargs.", "reward.terms."))
        prepared.append(f"++{text}" if adds and text.startswith(key) else text)
    modules = named_modules(overrides)
    looked_at = [(own_rule_problem if key == "algo" else id_problem)(value) for value, key in modules.items()]
    if found := [problem for problem in looked_at if problem]:
        raise UserError(*found)
    register_environments(value for value, key in modules.items() if key == "env")
    for value in (value for value, key in modules.items() if key == "algo"):
        register_rule(value)
    register_environments(gymnasium.registry)
    return prepared


def named_modules(overrides: Sequence[str]) -> dict[str, str]:
    """Return the choices of the form module:Name with their group, env or algo; import nothing.

    Raises:
        UserError: a text is not an override.
    """
    found: dict[str, str] = {}
    for override in parse(list(overrides)):
        key = {"env.id": "env", "algo.name": "algo"}.get(override.key_or_group, override.key_or_group)
        if key in ("env", "algo") and not isinstance(override.value(), dict | list):
            unescaped = (
                value.replace("\\", "") for value in _values(override)
            )  # values of a sweep are escaped
            found |= {value: key for value in unescaped if ":" in value}
    return found


def named_imports(overrides: Sequence[str]) -> list[str]:
    """Return the ids module:Id, reward functions and callbacks that overrides name; import nothing.

    Raises as `named_modules`.
    """
    functions = []
    for override in parse(list(overrides)):
        key = override.key_or_group.split(".")
        if override.key_or_group in ("callbacks", "logger.sinks") and not override.is_sweep_override():
            functions += external_names(override.value())
        if key[0] != "reward" or override.is_delete():
            continue
        if override.is_sweep_override():
            functions += _values(override) if key[-1] == "function" else []
            continue
        values: Any = override.value()
        for name in reversed(key[1:]):  # as in the config
            values = {name: values}
        functions += user_functions(values.get("terms") if isinstance(values, dict) else None)
    return [*named_modules(overrides), *functions]


def _values(override: Override) -> list[str]:
    """Return the values of an override as text: one, or each element of a sweep over choices."""
    if override.is_delete():
        return []
    value = override.value()
    if isinstance(value, ChoiceSweep) and any(isinstance(each, Glob) for each in value.list):
        raise UserError(
            f"{override.input_line}: pgx takes no glob; name the values: {override.key_or_group}=a,b"
        )
    if not override.is_discrete_sweep():
        return [str(value)]
    try:
        ordered = override
        if isinstance(value, RangeSweep):  # shuffling needs the whole list
            ordered = replace(override, _value=replace(value, shuffle=False))
        found = list(islice(ordered.sweep_string_iterator(), MAX_JOBS + 1))
        if len(found) <= MAX_JOBS:
            found = list(override.sweep_string_iterator())
    except HydraException as error:
        raise UserError(f"{override.input_line}: {one_line_message(error)}") from error
    except (ValueError, ArithmeticError, TypeError) as error:
        raise UserError(f"{override.input_line}: no range of numbers: {error}") from error
    if not found:
        raise UserError(f"{override.input_line}: no values")
    if len(found) > MAX_JOBS:
        raise UserError(
            f"{override.input_line}: more than {MAX_JOBS:,} values; a sweep has at most so many runs"
        )
    return found


def expand_sweep(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of each run of a sweep over lists and ranges; one list if nothing is swept.

    Raises:
        UserError: an override is invalid, or there are too many runs.
    """
    axes = [
        [f"{(o.input_line or '').split('=', 1)[0]}={value}" for value in _values(o)]
        if o.is_discrete_sweep() and not o.is_delete()
        else [o.input_line or ""]
        for o in parse(overrides)
    ]
    if (count := math.prod(map(len, axes))) > MAX_JOBS:
        raise UserError(f"{' '.join(overrides)}: {count:,} runs; a sweep has at most {MAX_JOBS:,}")
    return [list(job) for job in product(*axes)]
