"""Which choices and keys an override may name, and what is wrong with one that names another.

Overrides of a config, as they are typed: read, made ready for Hydra, multiplied out.
"""

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
        return None if value in config_choices("env") else id_problem(value)
    if group == "algo" and ":" in value:
        return own_rule_problem(value)
    if value in config_choices(group) or (group in ("experiment", "sweep") and value == "None"):
        return None
    offered = ", ".join(config_choices(group)) or "nothing yet"
    hint = rule_hint(value) if group == "algo" else nearest(value, config_choices(group))
    return f"{group}={value}: no such choice{hint}; {group} offers: {offered}"


def key_problem(override: Override, known: Any) -> str | None:
    """What is wrong with the key of a value override; None where it exists or is added on purpose."""
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
    """A section as the user chose it, e.g. algo=ppo; or its dotted name."""
    dotted, name = ".".join(path), section.get("name")
    return f"{dotted}={name}" if len(path) == 1 and isinstance(name, str) else dotted


def sections_existed(key: str, values: Any, given: Sequence[str]) -> bool:
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


MAX_JOBS = 10_000  # of a sweep; every one is composed and checked before the first begins


def register_environments(ids: Iterable[str]) -> None:
    """Let `env=` take these ids: those without a file of their own get configs/env/default.yaml."""
    for env_id in set(ids) - set(config_choices("env")):
        _register_environment(env_id)


@cache
def _register_environment(env_id: str) -> None:
    node = {"defaults": ["/env/default@_here_", "_self_"], "id": env_id}
    folder, _, name = env_id.rpartition("/")
    group = f"env/{folder}" if folder else "env"
    ConfigStore.instance().store(group=group, name=name, node=node, package="env")


def parse(overrides: list[str]) -> list[Override]:
    """Parse overrides, each as `to_hydra_grammar` rewrites it.

    Raises:
        UserError: for each that is not of the form key=value.
    """
    read = [_parse_one(text) for text in map(to_hydra_grammar, overrides)]
    problems = [each for each in read if isinstance(each, str)]
    if problems:
        raise UserError(*problems)
    return [copy(each) for each in read if not isinstance(each, str)]


# Cached: a run's overrides are asked for several times, and those of a sweep's jobs differ little.
@lru_cache(maxsize=4096)
def _parse_one(text: str) -> Override | str:
    """Parse one override; returns it, or what is wrong with it."""
    try:
        override = OverridesParser.create().parse_override(text)
        if not override.key_or_group:
            raise HydraException("there is no key")
    except HydraException:
        return parse_problem(text)
    except (RecursionError, ValueError, ArithmeticError) as error:
        # Of numbers and brackets beyond all measure.
        return f"{text[:MAX_VALUE_LENGTH]}: cannot be read ({type(error).__name__})"
    return override


def prepare(overrides: list[str]) -> list[str]:
    """Overrides as Hydra takes them: some sections open to new keys, environments known, `module:Name` imported."""
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
    """What overrides choose of the form module:Name, each with what it is of, env or algo; nothing is imported.

    Raises:
        UserError: a text is no override.
    """
    found: dict[str, str] = {}
    for override in parse(list(overrides)):
        key = {"env.id": "env", "algo.name": "algo"}.get(override.key_or_group, override.key_or_group)
        if key in ("env", "algo") and not isinstance(override.value(), dict | list):
            unescaped = (value.replace("\\", "") for value in _values(override))  # a sweep's are escaped
            found |= {value: key for value in unescaped if ":" in value}
    return found


def named_imports(overrides: Sequence[str]) -> list[str]:
    """Ids module:Id and functions of rewards that overrides name; nothing is imported. Raises as `named_modules`."""
    functions = []
    for override in parse(list(overrides)):
        key = override.key_or_group.split(".")
        if key[0] != "reward" or override.is_delete():
            continue
        if override.is_sweep_override():
            functions += _values(override) if key[-1] == "function" else []
            continue
        values: Any = override.value()
        for name in reversed(key[1:]):  # as it would stand in the config
            values = {name: values}
        functions += user_functions(values.get("terms") if isinstance(values, dict) else None)
    return [*named_modules(overrides), *functions]


def _values(override: Override) -> list[str]:
    """The texts that an override stands for: one, or each element of a sweep over choices."""
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
        if isinstance(value, RangeSweep):  # a shuffled one is made whole before its first value is given
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
    """The overrides of each run of a sweep over lists and ranges of choices; one list where nothing sweeps.

    Raises:
        UserError: they are no overrides, or too many runs.
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
