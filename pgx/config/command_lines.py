"""Commands of pgx as printed text. Every command that pgx prints is formed here, so that it works when pasted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pgx.config.foreign import foreign_values
from pgx.core.command_lines import shell_command

LONGEST_CONFIG = 1_000_000  # bytes of a config that is looked into


def command(*words: str | Path, of: Path | None = None) -> str:
    """Return a command of pgx as a shell takes it, for example `pgx eval outputs/run --trust`.

    Args:
        words: after `pgx`.
        of: folder with the `config.yaml` that the command reads, a run's or a post-mortem's. `--trust` is appended
            where this config would import modules that are not pgx's, or join a Ray cluster to train.
    """
    trusted = of is not None and _needs_trust(str(words[0]), _config(of))
    return shell_command(*words, *(["--trust"] if trusted else []))


def _needs_trust(verb: str, config: Mapping[str, Any]) -> bool:
    runner = config.get("runner")
    joins = isinstance(runner, Mapping) and runner.get("address") is not None
    return any(True for _ in foreign_values(config)) or (verb == "train" and joins)


def _config(folder: Path) -> Mapping[str, Any]:
    """Read a config to look up what it names; a missing or damaged one is empty, and the command itself reports it."""
    path = folder / "config.yaml"
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            return {}
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}
