"""Update rules of somebody's own: `algo=module:Class` takes its values from the YAML file beside the module."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pgx.config.explain import explain
from pgx.config.rule_names import rule_problem


def own_rule_problem(name: str) -> str | None:
    """What is wrong with a rule `module:Class` or with its file of values; None: both are there. Imports the module."""
    if problem := rule_problem(name):
        return f"algo={name}: {problem}"
    path = _file(name)
    try:
        written = own_values(name)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        wanted = "its values stand in a YAML file beside its module, like one of configs/algo"
        return f"algo={name}: {path}: {wanted}: {explain(error)}"
    section = written.get("algo")
    if not isinstance(section, Mapping) or section.get("name") != name:
        return f"algo={name}: {path}: expected a section 'algo' with 'name: {name}' in it"
    return None


def own_values(name: str) -> Mapping[str, Any]:
    """What the file of a rule `module:Class` sets; nothing where the module was not imported."""
    if name.rpartition(":")[0] not in sys.modules:
        return {}
    written = OmegaConf.to_container(OmegaConf.load(_file(name)), resolve=False)
    if not isinstance(written, Mapping):
        raise ValueError("expected keys and values")
    return {str(key): value for key, value in written.items()}


def register_rule(name: str) -> None:
    """Let `algo=` take a rule `module:Class` whose module was imported."""
    # As in the files of configs/algo, what the file sets may be anywhere in the config.
    ConfigStore.instance().store(group="algo", name=name, node=dict(own_values(name)), package="_global_")


def _file(name: str) -> Path:
    """my_rule.yaml beside my_rule.py; in a package, beside the module."""
    return Path(sys.modules[name.rpartition(":")[0]].__file__ or "").with_suffix(".yaml")
