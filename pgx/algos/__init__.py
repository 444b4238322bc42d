"""Update rules: `pgx/algos/<name>.py` holds one rule, `configs/algo/<name>.yaml` its values. Nothing lists them.

Other files of configs/algo name a rule and set what is around it: `impala` is `vtrace` with actors of its own.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from pgx.types import Algorithm


def rules() -> list[str]:
    """Names of the rules."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def rule(name: str) -> type[Any]:
    """The update rule in pgx/algos/<name>.py: the one class there that has an `update`.

    Raises:
        ModuleNotFoundError: there is no such file.
    """
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
