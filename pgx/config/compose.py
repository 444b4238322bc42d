"""Composition of a config from overrides, with one message for all invalid overrides."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pgx.config.overrides import (
    choice_problem,
    is_choice,
    key_problem,
    may_add_key,
    named_modules,
    parse,
    prepare,
    sections_existed,
)
from pgx.config.run_config import FIXED_SECTIONS
from pgx.config.suggestions import one_line_message
from pgx.config.validate import value_problems
from pgx.core.errors import UserError
from pgx.core.paths import ROOT_CONFIG, config_dir

_hydra = RLock()  # of Hydra's global state: Python programs start runs in several threads
_job_number: ContextVar[int | None] = ContextVar("job_number", default=None)


@contextmanager
def job_number(number: int) -> Iterator[None]:
    """Within the context, name run folders after the number of a job: jobs of a sweep may start in the same second."""
    token = _job_number.set(number)
    try:
        yield
    finally:
        _job_number.reset(token)


def _sweep_number() -> str:
    """Return `_3` for the fourth run of a sweep; an empty text for other runs."""
    number = _job_number.get()
    return "" if number is None else f"_{number}"


def _absolute(path: str | None) -> str | None:
    """Return the absolute path; None for None."""
    return None if path is None else str(Path(path).absolute())


def _by_choice(name: str, values: Mapping[str, float], otherwise: float) -> float:
    """Return the value for a choice of another group, such as policy.name, or the value for all other choices."""
    return values.get(name, otherwise)


OmegaConf.register_new_resolver("by_choice", _by_choice, replace=True)
OmegaConf.register_new_resolver("sweep_number", _sweep_number, replace=True)
OmegaConf.register_new_resolver("absolute", _absolute, replace=True)


class Composed(NamedTuple):
    """Result of composing overrides."""

    config: DictConfig  # of the run
    hydra: DictConfig  # Hydra's own config, such as the folder and the launcher of a sweep


def compose(overrides: list[str]) -> DictConfig:
    """Return the config of `pgx train` with these overrides. Args and Raises as in `compose_with_hydra`."""
    return compose_with_hydra(overrides).config


def compose_with_hydra(overrides: list[str]) -> Composed:
    """Return the config of `pgx train` with these overrides, and Hydra's own config.

    Args:
        overrides: as on the command line, e.g. ["algo=ppo", "env=CartPole-v1", "algo.clip_range=0.1"].

    Raises:
        UserError: naming every unknown group, choice and key, each with the nearest known one.
    """
    parsed = parse(prepare(overrides))
    wrong = {o.key_or_group: problem for o in parsed if (problem := choice_problem(o))}
    if not wrong and (sure := _compose_if_valid(parsed)) is not None:
        return sure
    # The keys of a section with an invalid choice are unknown, unless all choices have the same keys.
    open_sections = set(wrong) - set(FIXED_SECTIONS)
    sound = [o for o in parsed if not choice_problem(o) and o.key_or_group.split(".")[0] not in open_sections]
    known = _config_of_choices(tuple(o.input_line or "" for o in sound if is_choice(o)))
    unknown = {o.input_line: problem for o in sound if (problem := key_problem(o, known))}
    made = _call_hydra([o.input_line or "" for o in sound if o.input_line not in unknown])
    if wrong or unknown:
        # Do not import a rule's module only to report more problems.
        rule = str(OmegaConf.select(made.config, "algo.name", throw_on_resolution_failure=False))
        more = value_problems(made.config) if ":" not in rule or rule in named_modules(overrides) else []
        raise UserError(*wrong.values(), *unknown.values(), *more)
    return made


def _compose_if_valid(parsed: Sequence[Override]) -> Composed | None:
    """Return the composed config if a quick check shows that every override sets an existing key; else None."""
    try:
        made = _call_hydra([o.input_line or "" for o in parsed])
    except Exception:
        return None  # Hydra reports the first of several mistakes only
    values = OmegaConf.to_container(made.config, resolve=False)
    given = [f"{o.key_or_group}." for o in parsed if not is_choice(o)]
    added = {o.key_or_group for o in parsed if may_add_key(o)}
    sure = (
        o.key_or_group not in added and sections_existed(o.key_or_group, values, given)
        for o in parsed
        if not may_add_key(o)
    )
    return made if all(sure) else None


@cache
def _config_of_choices(choices_made: tuple[str, ...]) -> Any:
    """Return the config of some choices of groups, for its keys. Cached, because jobs of a sweep repeat choices."""
    return OmegaConf.to_container(_call_hydra(list(choices_made)).config, resolve=False)


def hydra_config(overrides: list[str]) -> DictConfig:
    """Return Hydra's own config.

    Raises:
        UserError: Hydra rejects the overrides.
    """
    return _call_hydra(overrides).hydra


def _call_hydra(overrides: list[str]) -> Composed:
    with hydra_initialized():
        try:
            whole = hydra_compose(ROOT_CONFIG, overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line_message(error)) from error
        except ValueError as error:  # a choice is not text
            raise UserError(f"{' '.join(overrides)}: {one_line_message(error)}") from error
    section: DictConfig = whole.hydra
    with open_dict(whole):
        del whole["hydra"]
    return Composed(whole, section)


@contextmanager
def hydra_initialized() -> Iterator[None]:
    """Initialize Hydra within the context; restore its global state afterwards, which a job of Hydra needs."""
    with _hydra:
        outer = dict(GlobalHydra.instance().__dict__)
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().__dict__.update(outer)
