"""Types with ranges, and checks of plain values against them.

A hyperparameter states its range in its type (`max_kl: Positive`). The same type checks values of configs and values
passed in Python, and all violations are reported.
"""

import difflib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pgx.core.defaults import fill_defaults


@dataclass(frozen=True)
class Range:
    """Interval of numbers; `low` and `high` belong to it unless `open_low` or `open_high` is set."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{'<' if self.open_high else '<='} {self.high:g}"
        if math.isinf(self.high):
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        return (
            f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"
        )


MAX_VALUE_LENGTH = 200  # characters of a value in a message
_MIN_SIMILARITY = 0.7  # fraction of common characters from which on a word is suggested

Positive = Annotated[float, Range(0.0, open_low=True)]
NonNegative = Annotated[float, Range(0.0)]
Fraction = Annotated[float, Range(0.0, 1.0)]
OpenFraction = Annotated[float, Range(0.0, 1.0, open_low=True, open_high=True)]
Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
INT_LIMIT = 2**63  # no whole number reaches this: what counts rows, steps and seeds has 64 bits


def most_similar(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that `word` is probably a slip of, whatever the case; None: no choice is similar enough.

    Similar enough: at least 70 % of the characters are common and in order, or a word of three characters or more
    differs by one slip of the keyboard.
    """
    folded = {choice.casefold(): choice for choice in reversed(list(choices))}
    wanted = word.casefold()
    if wanted in folded:
        return folded[wanted]
    for candidate in difflib.get_close_matches(wanted, folded, n=5, cutoff=0.3):
        matcher = difflib.SequenceMatcher(None, candidate, wanted)
        if matcher.ratio() >= _MIN_SIMILARITY or (len(wanted) >= 3 and _one_slip(wanted, candidate)):
            return folded[candidate]
    return None


def _one_slip(one: str, other: str) -> bool:
    """Return whether two words differ by one added, removed or replaced character, or by two swapped neighbors."""
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return max(len(one), len(other)) == 1 or (len(one) == 2 and one == other[::-1])


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the choice that `word` is probably a slip of, or an empty text."""
    similar = most_similar(word, choices)
    return "" if similar is None else f"; did you mean '{similar}'?"


def parameter_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Parameter names of a function or dataclass with their annotations, `Annotated` ranges kept."""
    hints = get_type_hints(target, include_extras=True)
    if is_dataclass(target):
        return {f.name: hints[f.name] for f in fields(target) if f.init}
    return {name: hints[name] for name in inspect.signature(target).parameters}


def describe_type(expected: Any) -> str:
    """Return an annotation in words: `a number > 0`, `one of adam, sgd`, `a list, each a whole number >= 1 or null`."""
    origin, args = get_origin(expected), get_args(expected)
    if origin is Annotated:
        ranges = " ".join(str(a) for a in args[1:] if isinstance(a, Range))
        return f"{describe_type(args[0])} {ranges}".strip()
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(a if isinstance(a, str) else format_value(a) for a in args)
    if origin is list:
        return f"a list, each {describe_type(args[0])}"
    if origin is dict:
        return "a mapping"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        type(None): "null",
    }
    return words.get(expected, str(expected))


def matches_type(value: Any, expected: Any) -> bool:
    """Return whether a plain value (number, text, list, mapping, None) fits an annotation and its ranges."""
    origin, args = get_origin(expected), get_args(expected)
    if expected is Any:
        return True
    if origin is Annotated:
        return matches_type(value, args[0]) and all(value in r for r in args[1:] if isinstance(r, Range))
    if origin in (Union, types.UnionType):
        return any(matches_type(value, a) for a in args)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in args)
    if origin is list:
        return isinstance(value, list | tuple) and all(matches_type(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, Mapping)
    if expected is float:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        )
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < INT_LIMIT
    if expected is type(None):
        return value is None
    return isinstance(value, expected)


def problems(where: str, expected: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return all disagreements of `values` with `expected`: unknown keys, missing keys, types, ranges."""
    prefix = f"{where}." if where else ""
    found = [f"{prefix}{key}: unknown key{nearest(key, expected)}" for key in values if key not in expected]
    found += [
        f"{prefix}{key}: missing; expected {describe_type(annotation)}"
        for key, annotation in expected.items()
        if key not in values
    ]
    found += [
        f"{prefix}{key}: expected {describe_type(annotation)}, got {format_value(values[key])}"
        for key, annotation in expected.items()
        if key in values and not matches_type(values[key], annotation)
    ]
    return found


def format_value(value: Any) -> str:
    """Return a value as YAML writes it; a very long one is cut."""
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= INT_LIMIT:
        return "one of more than 63 bits"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}... ({len(text)} characters)"


def check_fields(instance: Any) -> None:
    """Set the fields of a dataclass instance that are DEFAULT, and check all fields; for its `__post_init__`.

    Raises:
        ValueError: naming every field whose value has the wrong type or lies outside its range.
    """
    fill_defaults(instance)
    expected = parameter_types(type(instance))
    found = problems(type(instance).__name__, expected, {name: getattr(instance, name) for name in expected})
    if found:
        raise ValueError("\n".join(found))


class Validated:
    """Base of dataclasses that validate their fields on construction."""

    def __post_init__(self) -> None:
        check_fields(self)
