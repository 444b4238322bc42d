"""Arguments of Python calls as overrides, so that a run in Python takes the path of the command line."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from pgx.algos import register_class
from pgx.config.overrides import parse
from pgx.config.rules import register_values, rule_members_problem
from pgx.config.run_config import NAMED_SECTIONS
from pgx.core.defaults import given_fields
from pgx.core.errors import ConfigError, UserError
from pgx.core.text import override
from pgx.envs.callables import EnvFactory, SpecFactory, registered, registered_kwargs
from pgx.ops.optim import NoOptimizer

EnvArgument = str | EnvFactory | GymnasiumSpec
Overrides = Sequence[str] | Mapping[str, object]


@contextmanager
def config_errors() -> Iterator[None]:
    """Raise the problems of a config as ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(*error.problems) from None


def choice_overrides(section: str, given: Any) -> list[str]:
    """Return the overrides of a section: its choice, and the values that were passed to the object's constructor.

    Args:
        section: algo, policy, critic, optimizer or critic_optimizer.
        given: name of a choice, or an object or class of a choice.

    Raises:
        UserError: it is none of them.
    """
    if isinstance(given, str):
        return [override(section, given)]
    own = given if isinstance(given, type) else type(given)
    name = _rule_name(own) if section == "algo" else _choice_name(section, own)
    if isinstance(given, type):
        return [override(section, name)]
    if section == "algo" and ":" in name and not _has_file(own):
        register_values(
            name, {each.name: plain(getattr(given, each.name)) for each in fields(given) if each.init}
        )
        return [override(section, name)]
    passed = [each.name for each in fields(given) if each.init and each.name in _passed(given)]
    return [
        override(section, name),
        *(override(f"{section}.{key}", plain(getattr(given, key))) for key in passed),
    ]


def _passed(given: Any) -> frozenset[str]:
    """Return the fields that were passed to a constructor; all, if the class does not note them."""
    if not hasattr(given, "_given"):
        return frozenset(each.name for each in fields(given))
    return given_fields(given)


def _rule_name(own: type) -> str:
    """Return the name of a rule's class in a config; register a class of the user.

    Raises:
        UserError: it is no update rule.
    """
    if own.__module__.startswith("pgx.algos."):
        return own.__module__.rpartition(".")[2]
    if problem := rule_members_problem(own):
        raise UserError(
            f"algo: {problem}; expected a name (pgx.list_algos()), or an update rule such as pgx.TRPO()"
        )
    name = f"{own.__module__}:{own.__name__}"
    register_class(name, own)
    return name


def _has_file(own: type) -> bool:
    """Return whether the values of a user's rule are in a file next to its module."""
    source = getattr(sys.modules.get(own.__module__), "__file__", None)
    return source is not None and Path(source).with_suffix(".yaml").is_file()


def _choice_name(section: str, own: type) -> str:
    """Return the name of a choice by its class.

    Raises:
        UserError: the section has no such choice.
    """
    if own is NoOptimizer:
        return "none"
    registry = NAMED_SECTIONS[section]
    for name, choice in registry.items():
        if choice is own:
            return name
    classes = ", ".join(f"pgx.{choice.__name__}" for choice in registry.values())
    raise UserError(
        f"{section}: got {own.__name__}; expected a name ({', '.join(registry)}) or one of {classes}"
    )


def plain(value: Any) -> Any:
    """Return a value as a config has it: numbers, texts, lists and mappings."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def listed_overrides(overrides: Overrides) -> list[str]:
    """Return overrides as texts, without those that only the command line understands.

    Args:
        overrides: texts as on the command line, or values by key.

    Raises:
        UserError: an override has several values, or belongs to the command line.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides: expected a list, got one text; write overrides=[{overrides!r}]")
    if isinstance(overrides, Mapping):
        return [override(str(key), plain(value)) for key, value in overrides.items()]
    texts = list(map(str, overrides))
    problems = []
    for each in parse(texts):
        line = each.input_line or ""
        if each.is_sweep_override():
            problems.append(f"{line}: has several values; call this once for each of them")
        elif re.split("[./]", each.key_or_group)[0] in ("hydra", "sweep"):
            problems.append(f"{line}: belongs to the command line (pgx train -m); remove it")
    if problems:
        raise UserError(*problems)
    return texts


def named_environment(env: EnvArgument) -> tuple[AbstractContextManager[str], list[str]]:
    """Return a context that yields the id of an environment, and overrides of its keywords.

    Args:
        env: id, function that makes an environment, or Gymnasium's EnvSpec.

    Raises:
        UserError: it is none of them.
    """
    if isinstance(env, str):
        return nullcontext(env), []
    if isinstance(env, GymnasiumSpec):
        keywords = registered_kwargs(env)
        if keywords is None:
            return registered(SpecFactory(env)), []
        return nullcontext(env.id), [
            override(f"env.kwargs.{key}", plain(value)) for key, value in keywords.items()
        ]
    if isinstance(env, gymnasium.Env):
        raise UserError(
            f"env: got an environment, {env}; pgx makes several: pass its id, or a function that makes one, "
            "for example env=lambda: gymnasium.make(...)"
        )
    if not callable(env):
        raise UserError(
            f"env: got {env!r}; expected an id such as 'Walker2d-v4', a function that makes an environment, or a "
            "gymnasium EnvSpec"
        )
    return registered(env), []


def stored_environment(env_id: str, env: EnvFactory | None) -> AbstractContextManager[str]:
    """Return a context in which the environment of an earlier run exists.

    Args:
        env_id: of the run's config.
        env: function that made the environment; None: it is registered otherwise.
    """
    return nullcontext(env_id) if env is None else registered(env, env_id)


def factory_of(env: EnvArgument) -> EnvFactory | None:
    """Return the function that makes an environment; None: Gymnasium's registry has it."""
    if isinstance(env, str):
        return None
    if isinstance(env, GymnasiumSpec):
        return None if registered_kwargs(env) is not None else SpecFactory(env)
    return env
