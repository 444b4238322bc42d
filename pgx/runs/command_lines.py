"""Commands of pgx as printed text. Every command that pgx prints is formed here, so that it works when pasted."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pgx.config.foreign import foreign_values

LARGEST = 1_000_000  # bytes of a config that is looked into
_PLAIN = re.compile(r"[A-Za-z_./][\w./:-]*")  # texts that Hydra's grammar reads as they are
_WORDS = ("true", "false", "null", "inf", "nan")  # which Hydra does not read as texts


def command(*words: str | Path, of: Path | None = None) -> str:
    """Return a command of pgx as a shell takes it, for example `pgx eval outputs/run --trust`.

    Args:
        words: after `pgx`.
        of: folder with the `config.yaml` that the command reads, a run's or a post-mortem's. `--trust` is appended
            where this config would import modules that are not pgx's, or join a Ray cluster to train.
    """
    said = ["pgx", *map(_word, words)]
    if of is not None and _needs_trust(said[1], _config(of)):
        said.append("--trust")
    return shlex.join(said)


def _word(word: str | Path) -> str:
    """Return a word, a path so that it is not taken for a flag."""
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)


def override(key: str, value: object) -> str:
    """Return `key=value` as Hydra's grammar reads it, not yet quoted for a shell."""
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


def _needs_trust(verb: str, config: Mapping[str, Any]) -> bool:
    runner = config.get("runner")
    joins = isinstance(runner, Mapping) and runner.get("address") is not None
    return any(True for _ in foreign_values(config)) or (verb == "train" and joins)


def _config(folder: Path) -> Mapping[str, Any]:
    """Read a config to look up what it names; a missing or damaged one is empty, and the command itself reports it."""
    path = folder / "config.yaml"
    try:
        if path.stat().st_size > LARGEST:
            return {}
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}
