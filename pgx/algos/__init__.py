"""Update rules: `pgx/algos/<name>.py` has one rule, and `configs/algo/<name>.yaml` its values.

Rules are found by the names of these files; there is no list. Other files of configs/algo choose a rule and set the
runner: `impala` is `vtrace` with actors. A rule outside pgx is named `module:Class`, with its values in the YAML file
next to the module.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from pgx.core.algorithm import Algorithm


def rules() -> list[str]:
    """Return the names of the rules in pgx."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


_classes: dict[str, type[Any]] = {}  # of users, which Python code passed as objects, by module:Class


def register_class(name: str, own: type[Any]) -> None:
    """Register a class that `rule` returns for `module:Class`, also if no module has it, as in a notebook's cell."""
    _classes[name] = own


def rule(name: str) -> type[Any]:
    """Return the class of a rule.

    Args:
        name: of a module in pgx/algos, where the rule is the only class with a method `update`; or `module:Class`.

    Raises:
        ImportError: if the module does not exist.
        AttributeError: if the module has no such class.
        TypeError: if the module in pgx/algos has no rule, or several.
    """
    module_name, colon, class_name = name.rpartition(":")
    if name in _classes:
        return _classes[name]
    if colon:
        own: type[Any] = getattr(importlib.import_module(module_name), class_name)
        return own
    module = importlib.import_module(f"pgx.algos.{name}")
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and hasattr(member, "update")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__}: expected one class with an update method, found {len(found)}")
    return found[0]


__all__ = ["Algorithm", "register_class", "rule", "rules"]
