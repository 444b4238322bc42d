"""Classes and functions of users that a config names: `module:Name`, or a mapping with `name` and arguments."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgx.core.errors import UserError
from pgx.core.imports import hidden_file
from pgx.core.schema import nearest


@dataclass(frozen=True)
class NamedObject:
    """Entry of a list in a config.

    Args:
        name: module:Name of an object of the user, or the name of one of pgx.
        arguments: keywords of its class.
    """

    name: str
    arguments: Mapping[str, Any]

    @property
    def is_external(self) -> bool:
        """Return whether the object is not part of pgx."""
        return ":" in self.name


def parse_entry(key: str, entry: Any) -> NamedObject:
    """Parse an entry: a text, or a mapping with `name`.

    Raises:
        UserError: it is neither.
    """
    if isinstance(entry, str):
        return NamedObject(entry, {})
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return NamedObject(entry["name"], {str(k): value for k, value in entry.items() if k != "name"})
    raise UserError(f"{key}: expected module:Name or {{name: module:Name, argument: value}}, got {entry!r}")


def read_entries(
    key: str, entries: Sequence[Any], read: Callable[[NamedObject], Any]
) -> list[tuple[NamedObject, Any]]:
    """Return each entry of a list with the object that `read` returns for it.

    Raises:
        UserError: naming every problem of every entry.
    """
    found, problems = [], list[str]()
    for entry in entries:
        try:
            named = parse_entry(key, entry)
            found.append((named, read(named)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return found


def construct(key: str, entry: NamedObject, own: Callable[..., Any], *given: Any) -> Any:
    """Return an instance of a class, with the arguments of its entry.

    Args:
        key: of the config, for messages.
        entry: with the arguments.
        own: class.
        given: positional arguments that pgx passes.

    Raises:
        UserError: the constructor failed.
    """
    try:
        return own(*given, **entry.arguments)
    except Exception as error:  # a user's class may raise anything
        raise UserError(
            f"{key}: {entry.name} cannot be constructed: {type(error).__name__}: {error}"
        ) from error


def external_names(entries: Any) -> list[str]:
    """Return the names of objects of users in a list of a config; other values are left out."""
    listed = entries if isinstance(entries, Sequence) and not isinstance(entries, str) else []
    names = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in listed]
    return [str(name) for name in names if ":" in str(name)]


def import_object(key: str, name: str) -> Any:
    """Import the object `module:Name`.

    Raises:
        UserError: the module cannot be imported, or has no such name.
    """
    module_name, _, attribute = name.rpartition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        reason = f"{type(error).__name__}: {error}{hidden_file(module_name)}"
        raise UserError(f"{key}: {name}: module '{module_name}' cannot be imported: {reason}") from error
    if not hasattr(module, attribute):
        hint = hidden_file(module_name) or nearest(attribute, vars(module))
        raise UserError(f"{key}: {name}: module '{module_name}' was imported and has no '{attribute}'{hint}")
    return getattr(module, attribute)


def argument_problems(key: str, entry: NamedObject, target: Any, given: int) -> list[str]:
    """Return the problems of the arguments of a class or function.

    Args:
        key: of the config, for messages.
        entry: with the arguments.
        target: class or function.
        given: number of positional arguments that pgx passes.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of a class without a Python signature
        return []
    known = [
        p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    unknown = [] if takes_all else [name for name in entry.arguments if name not in known[given:]]
    if unknown:
        return [
            f"{key}: {entry.name}: has no argument '{name}'{nearest(name, known[given:])}" for name in unknown
        ]
    try:
        signature.bind(*[None] * given, **entry.arguments)
    except TypeError as error:
        return [
            f"{key}: {entry.name}: {error}; write {{name: {entry.name}, argument: value}} to pass arguments"
        ]
    return []
