"""A run's config, read back from its folder as data: whoever wrote the file, nothing in it is carried out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.config.choices import NAMED
from pgx.config.explain import explain
from pgx.config.sections import FIXED
from pgx.core.errors import UserError

CONFIG = "config.yaml"
LARGEST = 1_000_000  # bytes of a config; one of pgx's has some thousand
DEEPEST = 50  # sections within sections

# Keys that configs of earlier versions lack, with the value that a run of such a config takes.
ADDED: dict[str, dict[str, Any]] = {
    "env": {"normalizer_warmup_steps": 0},
    "trainer": {"eval_max_steps": 30_000},
    "logger": {"wandb": None},
}
ADDED_TO: dict[tuple[str, str], dict[str, Any]] = {  # of one choice of a section
    ("runner", "episodes"): {"max_episode_steps": 30_000},
}

# Tags construct objects, aliases let a file of a page become more than memory holds, and pgx writes neither.
_MORE_THAN_DATA = (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken, yaml.DirectiveToken)
_OPENS = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSES = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_config(path: Path) -> DictConfig:
    """The config in a file, which is plain values: no reference, no resolver, no YAML tag.

    Raises:
        UserError: it cannot be read, or there is more than values in it.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST:,} bytes, and no config is")
        _refuse_more_than_data(path)
        cfg = OmegaConf.load(path)
        values = OmegaConf.to_container(cfg, resolve=False)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: not a config: {explain(error)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(cfg, DictConfig) or not isinstance(values, Mapping):
        raise UserError(f"{path}: not a config: expected keys and values")
    found = [
        f"{path}: {key}: expected a value, got the reference {text}" for key, text in _references(values)
    ]
    found += [
        f"{path}: {section}: missing; expected a section of keys"
        for section in (*FIXED, *NAMED, "algo")
        if not isinstance(values.get(section), Mapping)
    ]
    if found:
        raise UserError(*found)
    for section, added in ADDED.items():
        cfg[section] = added | dict(cfg[section])
    for (section, name), added in ADDED_TO.items():
        if cfg[section].get("name") == name:
            cfg[section] = added | dict(cfg[section])
    return cfg


def _refuse_more_than_data(path: Path) -> None:
    """Look at a file's marks without making anything of them."""
    depth = 0
    for token in yaml.scan(path.read_text(encoding="utf-8")):
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if isinstance(token, _MORE_THAN_DATA) or depth > DEEPEST:
            line = token.start_mark.line + 1
            raise UserError(
                f"{path}: line {line}: expected plain values, without YAML tags, aliases or endless nesting"
            )


def _references(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys and texts of what OmegaConf would resolve."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _references(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _references(inner, f"{key}.{number}")
    elif isinstance(value, str) and "${" in value:
        yield key, value
