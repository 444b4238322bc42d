"""Composing a config with Hydra, and saying in one message what is wrong with the overrides."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pgx.config.check import value_problems
from pgx.config.explain import explain
from pgx.config.keys import choice_problem, is_choice, key_problem, surely_there, takes_any_key
from pgx.config.own_rules import own_rule_problem, register_rule
from pgx.config.sections import FIXED
from pgx.envs.make import id_problem
from pgx.errors import UserError
from pgx.paths import choices, config_dir
from pgx.rewards.plan import functions_of
from pgx.schema import LONGEST

ROOT = "train"
MOST_JOBS = 10_000  # of a sweep; every one is composed and checked before the first begins

_job_number: ContextVar[int | None] = ContextVar("job_number", default=None)


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Within: the run whose folder is named is the `number`th of a sweep, all of which may begin in the same second."""
    token = _job_number.set(number)
    try:
        yield
    finally:
        _job_number.reset(token)


def _sweep_number() -> str:
    """`_3` in the fourth run of a sweep; else nothing."""
    number = _job_number.get()
    return "" if number is None else f"_{number}"


def _absolute(path: str | None) -> str | None:
    """A path as it is from any folder; null stays null."""
    return None if path is None else str(Path(path).absolute())


OmegaConf.register_new_resolver("sweep_number", _sweep_number, replace=True)
OmegaConf.register_new_resolver("absolute", _absolute, replace=True)


def register_environments(ids: Iterable[str]) -> None:
    """Let `env=` take these ids: those without a file of their own get configs/env/default.yaml."""
    for env_id in set(ids) - set(choices("env")):
        _register_environment(env_id)


@cache
def _register_environment(env_id: str) -> None:
    node = {"defaults": ["/env/default@_here_", "_self_"], "id": env_id}
    folder, _, name = env_id.rpartition("/")
    group = f"env/{folder}" if folder else "env"
    ConfigStore.instance().store(group=group, name=name, node=node, package="env")


def parse(overrides: list[str]) -> list[Override]:
    """Parsed overrides.

    Raises:
        UserError: for each that is not of the form key=value.
    """
    parser, parsed, problems = OverridesParser.create(), [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if not override.key_or_group:
                raise HydraException("there is no key")
            parsed.append(override)
        except HydraException as error:
            shown = text if text.strip() and text.isprintable() else repr(text)
            problems.append(f"{shown}: not of the form key=value ({str(error).splitlines()[0]})")
        except (
            RecursionError,
            ValueError,
            ArithmeticError,
        ) as error:  # of numbers and brackets beyond all measure
            problems.append(f"{text[:LONGEST]}: cannot be read ({type(error).__name__})")
    if problems:
        raise UserError(*problems)
    return parsed


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
        functions += functions_of(values.get("terms") if isinstance(values, dict) else None)
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
        found = list(islice(ordered.sweep_string_iterator(), MOST_JOBS + 1))
        if len(found) <= MOST_JOBS:
            found = list(override.sweep_string_iterator())
    except HydraException as error:
        raise UserError(f"{override.input_line}: {explain(error)}") from error
    except (ValueError, ArithmeticError, TypeError) as error:
        raise UserError(f"{override.input_line}: no range of numbers: {error}") from error
    if not found:
        raise UserError(f"{override.input_line}: no values")
    if len(found) > MOST_JOBS:
        raise UserError(
            f"{override.input_line}: more than {MOST_JOBS:,} values; a sweep has at most so many runs"
        )
    return found


def jobs(overrides: list[str]) -> list[list[str]]:
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
    if (count := math.prod(map(len, axes))) > MOST_JOBS:
        raise UserError(f"{' '.join(overrides)}: {count:,} runs; a sweep has at most {MOST_JOBS:,}")
    return [list(job) for job in product(*axes)]


class Composed(NamedTuple):
    """What overrides make."""

    config: DictConfig  # of the run
    hydra: DictConfig  # Hydra's own part, such as where a sweep's folder is and what launches its jobs


def compose(overrides: list[str]) -> DictConfig:
    """The config that `pgx train` with these overrides would run. Args and Raises as in `composed`."""
    return composed(overrides).config


def composed(overrides: list[str]) -> Composed:
    """The config that `pgx train` with these overrides would run, and what they tell Hydra.

    Args:
        overrides: as on the command line, e.g. ["algo=ppo", "env=CartPole-v1", "algo.clip_range=0.1"].

    Raises:
        UserError: naming every unknown group, choice and key, each with the nearest known one.
    """
    parsed = parse(prepare(overrides))
    wrong = {o.key_or_group: problem for o in parsed if (problem := choice_problem(o))}
    if not wrong and (sure := _at_once(parsed)) is not None:
        return sure
    # A section whose choice is wrong has no keys to compare with, unless its keys never vary.
    open_sections = set(wrong) - set(FIXED)
    sound = [o for o in parsed if not choice_problem(o) and o.key_or_group.split(".")[0] not in open_sections]
    known = _keys(tuple(o.input_line or "" for o in sound if is_choice(o)))
    unknown = {o.input_line: problem for o in sound if (problem := key_problem(o, known))}
    made = _hydra([o.input_line or "" for o in sound if o.input_line not in unknown])
    if wrong or unknown:
        # A rule's module that is named by a detour is not imported for the sake of a longer message.
        rule = str(OmegaConf.select(made.config, "algo.name", throw_on_resolution_failure=False))
        more = value_problems(made.config) if ":" not in rule or rule in named_modules(overrides) else []
        raise UserError(*wrong.values(), *unknown.values(), *more)
    return made


def _at_once(parsed: Sequence[Override]) -> Composed | None:
    """What they make, where it takes no second look to see that every override sets a key that is there; else None."""
    try:
        made = _hydra([o.input_line or "" for o in parsed])
    except Exception:
        return None  # of several mistakes Hydra tells of the first alone
    values = OmegaConf.to_container(made.config, resolve=False)
    given = [f"{o.key_or_group}." for o in parsed if not is_choice(o)]
    added = {o.key_or_group for o in parsed if takes_any_key(o)}
    sure = (
        o.key_or_group not in added and surely_there(o.key_or_group, values, given)
        for o in parsed
        if not takes_any_key(o)
    )
    return made if all(sure) else None


@cache
def _keys(choices_made: tuple[str, ...]) -> Any:
    """The config of these choices of groups alone, for its keys; a sweep asks for the same ones again and again."""
    return OmegaConf.to_container(_hydra(list(choices_made)).config, resolve=False)


def hydra_config(overrides: list[str]) -> DictConfig:
    """Hydra's own part of the config.

    Raises:
        UserError: what Hydra says about the overrides.
    """
    return _hydra(overrides).hydra


def _hydra(overrides: list[str]) -> Composed:
    with initialized():
        try:
            whole = hydra_compose(ROOT, overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error)) from error
        except ValueError as error:  # of a choice that is no text
            raise UserError(f"{' '.join(overrides)}: {explain(error)}") from error
    section: DictConfig = whole.hydra
    with open_dict(whole):
        del whole["hydra"]
    return Composed(whole, section)


@contextmanager
def initialized() -> Iterator[None]:
    """Hydra keeps one global context; a config composed within a job must leave the job's own in place."""
    outer = dict(GlobalHydra.instance().__dict__)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().__dict__.update(outer)
