"""Update rules: `pgx/algos/<name>.py` holds one rule, `configs/algo/<name>.yaml` its values. Nothing lists them.

Other files of configs/algo name a rule and set what is around it: `impala` is `vtrace` with actors of its own.
A rule of somebody's own is `module:Class`, with its values in the YAML file beside the module.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from pgx.core.algorithm import Algorithm


def rules() -> list[str]:
    """Names of the rules that come with pgx."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def rule(name: str) -> type[Any]:
    """The update rule in pgx/algos/<name>.py: the one class there that has an `update`; or that of `module:Class`.

    Raises:
        ImportError: there is no such file.
        AttributeError: the module has no such class.
    """
    module_name, colon, class_name = name.rpartition(":")
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


__all__ = ["Algorithm", "rule", "rules"]
