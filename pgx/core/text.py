"""Numbers and commands as text for users: commands can be pasted into a shell."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path


def format_number(value: float) -> str:
    """Return a return or length as text: one decimal, or three significant digits below 10."""
    return f"{value:,.1f}" if abs(value) >= 10 or value == 0 else f"{value:.3g}"


_PLAIN = re.compile(r"[A-Za-z_./][\w./:-]*")  # texts that Hydra's grammar reads unquoted
_WORDS = ("true", "false", "null", "inf", "nan")  # words that Hydra does not read as texts


def shell_command(*words: str | Path) -> str:
    """Return `pgx` with these arguments, quoted for a shell; a path is never read as a flag."""
    return shlex.join(["pgx", *map(_word, words)])


def _word(word: str | Path) -> str:
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)


def override(key: str, value: object) -> str:
    """Return `key=value` in Hydra's grammar, not quoted for a shell."""
    return f"{key}={_in_grammar(value)}"


def _in_grammar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_in_grammar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_in_grammar, value)) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'
