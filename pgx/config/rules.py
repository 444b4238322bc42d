"""Names of update rules, and rules of users.

`algo=module:Class` names a user's rule; its values are in the YAML file next to its module.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pgx.algos import rule, rules
from pgx.config.suggestions import one_line_message
from pgx.core.imports import hidden_file
from pgx.core.paths import config_choices
from pgx.core.schema import nearest

_RULE_MEMBERS = ("discount", "uses", "metrics", "conflicts", "estimate", "update")

# Names that other libraries use: what to choose in pgx.
OTHER_RULE_NAMES = {
    "vpg": "algo=reinforce",
    "pg": "algo=reinforce",
    "policy_gradient": "algo=reinforce",
    "natural_policy_gradient": "algo=npg",
    "ppo2": "algo=ppo",
    "ppo_clip": "algo=ppo",
    "maskable_ppo": "algo=ppo",
    "ppo_lstm": "algo=ppo policy=lstm",
    "recurrent_ppo": "algo=ppo policy=lstm",
    "ac": "algo=actor_critic",
}
VALUE_BASED_RULES = (
    *("sac", "dqn", "ddqn", "td3", "ddpg", "rainbow", "c51", "qrdqn", "iqn", "tqc", "redq", "droq", "crossq"),
    *("q_learning", "sarsa", "her", "cql", "iql", "muzero"),
)


def rule_hint(name: str) -> str:
    """Return a clause for a message about an unknown rule: what to choose, or why pgx does not have it."""
    plain = name.casefold().replace("-", "_")
    if plain in VALUE_BASED_RULES:
        return f"; {plain} is not one of the policy-gradient rules of pgx, which `pgx algos` lists"
    if plain in OTHER_RULE_NAMES:
        return f"; did you mean '{OTHER_RULE_NAMES[plain]}'?"
    return nearest(name, config_choices("algo"))


def rule_problem(name: str) -> str | None:
    """Return the problem with the name of a rule; None if it is valid. Import the module that it names."""
    module_name, colon, class_name = name.rpartition(":")
    if not colon:
        return None if name in rules() else f"no rule '{name}'{rule_hint(name)}"
    try:
        own = rule(name)
    except AttributeError:
        if module_name == "__main__":
            return (
                f"{class_name} is defined in a script or notebook; continue there, after its definition: "
                "pgx.load(RUN)"
            )
        offered = vars(importlib.import_module(module_name))
        hint = hidden_file(module_name) or nearest(class_name, offered)
        return f"module '{module_name}' was imported and has no class '{class_name}'{hint}"
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        said = f"{type(error).__name__}: {error}{hidden_file(module_name)}"
        return f"module '{module_name}' cannot be imported: {said}"
    return rule_members_problem(own)


def rule_members_problem(own: type[Any]) -> str | None:
    """Return what a class lacks of an update rule; None if it is one."""
    fields = getattr(own, "__dataclass_fields__", {})
    if lacking := [part for part in _RULE_MEMBERS if part not in fields and not hasattr(own, part)]:
        return f"{own.__name__} is no update rule: it has no {', '.join(lacking)} (see pgx.core.algorithm.Algorithm)"
    return None if is_dataclass(own) else f"{own.__name__} is no update rule: expected a dataclass"


_values: dict[str, Mapping[str, Any]] = {}  # of rules without a file, which Python code passed as objects


def register_values(name: str, values: Mapping[str, Any]) -> None:
    """Register the values of a rule `module:Class` that has no YAML file."""
    _values[name] = {"algo": {"name": name, **values}}


def own_rule_problem(name: str) -> str | None:
    """Return the problem with a rule `module:Class` or its YAML file; None if both are valid. Import the module."""
    if problem := rule_problem(name):
        return f"algo={name}: {problem}"
    path = _values_file(name)
    try:
        if name not in _values:
            path.stat()  # fails where there is no file
        written = own_values(name)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        wanted = "its values must be in a YAML file next to its module, like those in configs/algo"
        return f"algo={name}: {path}: {wanted}: {one_line_message(error)}"
    section = written.get("algo")
    if not isinstance(section, Mapping) or section.get("name") != name:
        return f"algo={name}: {path}: expected a section 'algo' with 'name: {name}' in it"
    return None


def own_values(name: str) -> Mapping[str, Any]:
    """Return the values in the YAML file of a rule `module:Class`, or those that Python code registered.

    The result is empty if the module was not imported, or has no file: a run of such a rule has stored all values.
    """
    if name in _values:
        return _values[name]
    if name.rpartition(":")[0] not in sys.modules or not _values_file(name).is_file():
        return {}
    written = OmegaConf.to_container(OmegaConf.load(_values_file(name)), resolve=False)
    if not isinstance(written, Mapping):
        raise ValueError("expected keys and values")
    return {str(key): value for key, value in written.items()}


def register_rule(name: str) -> None:
    """Register a rule `module:Class` whose module was imported, for `algo=`."""
    # As in configs/algo, the file may set values of all sections.
    ConfigStore.instance().store(group="algo", name=name, node=dict(own_values(name)), package="_global_")


def _values_file(name: str) -> Path:
    """Return the YAML file next to the module of a rule: my_rule.yaml for my_rule.py."""
    module = sys.modules[name.rpartition(":")[0]]
    return Path(getattr(module, "__file__", None) or f"{module.__name__}.py").with_suffix(
        ".yaml"
    )  # no file: a notebook
