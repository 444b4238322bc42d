"""Default values of rules, policies, critics and optimizers: those of their files in configs/."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pgx.core.paths import config_dir


class _Default:
    def __repr__(self) -> str:
        return "<value in configs/>"


# Default of a field: its value in the config file of its class, which is the only place that has it.
DEFAULT: Any = _Default()


def fill_defaults(instance: Any) -> None:
    """Replace the fields of a dataclass instance that are DEFAULT; for its `__post_init__`.

    A class that extends another one without a file of its own takes the values of that class.

    Raises:
        ValueError: no config file of the class or its bases sets a field.
    """
    names = [field.name for field in fields(instance) if field.init]
    open_fields = [name for name in names if getattr(instance, name) is DEFAULT]
    object.__setattr__(instance, "_given", frozenset(names).difference(open_fields))
    if not open_fields:
        return
    bases = [each for each in reversed(type(instance).__mro__) if is_dataclass(each)]
    values = {key: value for each in bases for key, value in _values(*_source(each)).items()}
    for name in open_fields:
        if name not in values:
            raise ValueError(f"{type(instance).__name__}.{name}: no value; pass it")
        object.__setattr__(instance, name, values[name])


def given_fields(instance: Any) -> frozenset[str]:
    """Return the fields whose values were passed to the constructor; the others came from configs/."""
    given: frozenset[str] = instance._given
    return given


@cache
def _values(section: str, path: Path) -> Mapping[str, Any]:
    """Return the values of a section in a config file, references to other sections resolved.

    A rule refers to `env.discount`: that of configs/env/default.yaml, or of its own file.
    """
    from omegaconf import DictConfig, OmegaConf

    if not path.is_file():
        return {}
    written = OmegaConf.load(path)
    env = OmegaConf.create({"env": OmegaConf.load(config_dir() / "env" / "default.yaml")})
    whole = OmegaConf.merge(env, written if section == "algo" else {section: written})
    assert isinstance(whole, DictConfig)
    if section not in whole:
        return {}
    values = OmegaConf.to_container(whole[section], resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _source(cls: type) -> tuple[str, Path]:
    """Return the config section of a class and its file: in configs/, or next to the module of a user's rule."""
    named = getattr(cls, "config_file", None)
    module = cls.__module__
    if named is None and not module.startswith("pgx."):
        return "algo", Path(getattr(sys.modules[module], "__file__", None) or "").with_suffix(".yaml")
    group, _, name = (named or f"algo/{module.rpartition('.')[2]}").partition("/")
    return group, config_dir() / group / f"{name}.yaml"
