"""Stored configs: reading them as plain data, the imports that they need, and commands for them.

A config file may come from somebody else. Reading it runs nothing; imports need --trust.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.config.named_objects import external_names
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS
from pgx.config.suggestions import one_line_message
from pgx.core.errors import UserError
from pgx.core.text import shell_command
from pgx.envs.rewards.spec import user_functions

CONFIG = "config.yaml"
MAX_CONFIG_BYTES = 1_000_000  # configs of pgx have a few thousand
_MAX_DEPTH = 50  # sections within sections

# Keys that configs of earlier versions lack, with the value for their runs.
ADDED_TOP_LEVEL_KEYS: dict[str, Any] = {"callbacks": []}
ADDED_KEYS: dict[str, dict[str, Any]] = {
    "env": {"normalizer_warmup_steps": 0},
    "trainer": {"eval_max_steps": 30_000},
    "logger": {"project": "pgx"},
}
ADDED_KEYS_OF_CHOICES: dict[tuple[str, str], dict[str, Any]] = {  # of one choice of a section
    ("runner", "episodes"): {"max_episode_steps": 30_000},
}

# Keys of earlier versions by their present names, dotted.
RENAMED_KEYS = {"trainer.write_patience": "trainer.disk_retry_seconds"}

# Keys of earlier versions that one key for all of them replaces: what to write instead.
REPLACED_KEYS = {
    "logger.tensorboard": "a list: logger.sinks=[tensorboard], or logger.sinks=[] without event files",
    "logger.wandb": "a list and a name: logger.sinks=[tensorboard,wandb] logger.project=NAME",
}

# Tags construct objects, and aliases can expand a small file beyond all memory; pgx writes neither.
_FORBIDDEN_TOKENS = (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken, yaml.DirectiveToken)
_OPENS = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSES = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_config(path: Path) -> DictConfig:
    """Return the config of a file, which contains plain values only: no references, resolvers or YAML tags.

    Raises:
        UserError: the file cannot be read, or contains more than plain values.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes, and no config is")
        _refuse_non_data(path)
        cfg = OmegaConf.load(path)
        values = OmegaConf.to_container(cfg, resolve=False)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: not a config: {one_line_message(error)}") from error
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
        for section in (*FIXED_SECTIONS, *NAMED_SECTIONS, "algo")
        if not isinstance(values.get(section), Mapping)
    ]
    if found:
        raise UserError(*found)
    for old, new in RENAMED_KEYS.items():
        _rename(cfg, old, new)
    _list_sinks(cfg)
    for key, value in ADDED_TOP_LEVEL_KEYS.items():
        if key not in cfg:
            cfg[key] = value
    for section, added in ADDED_KEYS.items():
        cfg[section] = added | dict(cfg[section])
    for (section, name), added in ADDED_KEYS_OF_CHOICES.items():
        if cfg[section].get("name") == name:
            cfg[section] = added | dict(cfg[section])
    return cfg


def _rename(cfg: DictConfig, old: str, new: str) -> None:
    """Rename a key within its section, keeping its position."""
    section, _, old_name = old.rpartition(".")
    new_name = new.rpartition(".")[2]
    if old_name in cfg[section]:
        cfg[section] = {new_name if key == old_name else key: cfg[section][key] for key in cfg[section]}


def _list_sinks(cfg: DictConfig) -> None:
    """Replace the keys of earlier versions, one for each sink, by the list of sinks."""
    logger = dict(cfg.logger)
    if "sinks" in logger:
        return
    tensorboard, project = logger.pop("tensorboard", False), logger.pop("wandb", None)
    sinks = [*(["tensorboard"] if tensorboard else []), *(["wandb"] if project is not None else [])]
    added = {"sinks": sinks, **({} if project is None else {"project": project})}
    cfg.logger = {**logger, **added}


def present_key(key: str) -> str:
    """Return the present name of a dotted key of any version."""
    return RENAMED_KEYS.get(key, key)


def renamed_problem(key: str) -> str | None:
    """Return the problem with a key that earlier versions had under this name; None for other keys."""
    if key in REPLACED_KEYS:
        return f"{key}: replaced by {REPLACED_KEYS[key]}"
    return f"{key}: renamed to {RENAMED_KEYS[key]}" if key in RENAMED_KEYS else None


def current_override(override: str) -> str:
    """Return an override of an earlier version, `key=value`, with the present name of its key."""
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if plain == "logger.tensorboard":
        return "logger.sinks=[tensorboard]" if value.lower() == "true" else "logger.sinks=[]"
    if plain == "logger.wandb":
        return f"logger.sinks=[tensorboard,{{name:wandb,project:{value}}}]"
    return key.removesuffix(plain) + present_key(plain) + equals + value


def _refuse_non_data(path: Path) -> None:
    """Refuse YAML tags and aliases, without constructing anything."""
    depth = 0
    for token in yaml.scan(path.read_text(encoding="utf-8")):
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if isinstance(token, _FORBIDDEN_TOKENS) or depth > _MAX_DEPTH:
            line = token.start_mark.line + 1
            raise UserError(
                f"{path}: line {line}: expected plain values, without YAML tags, aliases or endless nesting"
            )


def _references(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys and texts that OmegaConf would resolve."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _references(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _references(inner, f"{key}.{number}")
    elif isinstance(value, str) and "${" in value:
        yield key, value


# Adapters to other libraries, whose keywords name the module of the environment.
ADAPTERS = frozenset({"GymV21Environment-v0", "GymV26Environment-v0"})


class ExternalImport(NamedTuple):
    """Value of a config that makes pgx import a module.

    Args:
        key: of the config, e.g. env.id.
        value: e.g. my_module:MyEnv-v0.
        module: to import; None: named in env.kwargs.
    """

    key: str
    value: str
    module: str | None


def external_imports(config: Mapping[str, Any]) -> Iterator[ExternalImport]:
    """Yield the environment, rule and reward functions of a config that are not part of pgx.

    Args:
        config: plain values; sections may be missing.
    """
    for section, name in (("env", "id"), ("algo", "name")):
        value = str(_section(config, section).get(name))
        if section == "algo" and module_of(value) == "__main__":
            continue  # a rule of the running script or notebook: nothing is imported
        if ":" in value:
            yield ExternalImport(f"{section}.{name}", value, module_of(value))
        elif value in ADAPTERS:
            yield ExternalImport(f"{section}.{name}", value, None)
    for function in user_functions(_section(config, "reward").get("terms")):
        yield ExternalImport("reward.terms", function, module_of(function))


def training_imports(config: Mapping[str, Any]) -> Iterator[ExternalImport]:
    """Yield the callbacks and sinks of a config, which training imports and the evaluation of an agent does not."""
    for key, entries in (
        ("callbacks", config.get("callbacks")),
        ("logger.sinks", _section(config, "logger").get("sinks")),
    ):
        for name in external_names(entries):
            yield ExternalImport(key, name, module_of(name))


def module_of(name: str) -> str:
    """Return the module of an environment or a rule, module:Name, or of a function, module.name."""
    return name.rpartition(":" if ":" in name else ".")[0]


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def import_warnings(cfg: DictConfig, source: Path, named: Collection[str]) -> list[str]:
    """Return a line for each module that a run with a config would import and that is not part of pgx.

    Args:
        cfg: of the run.
        source: file of the config.
        named: environments, rules (module:Name) and reward functions that the user named; these are left out.
    """
    values = {
        "env": {"id": OmegaConf.select(cfg, "env.id")},
        "algo": {"name": OmegaConf.select(cfg, "algo.name")},
        "reward": {"terms": OmegaConf.select(cfg, "reward.terms")},
    }
    return _import_lines(external_imports(values), source, named)


def training_warnings(cfg: DictConfig, source: Path, named: Collection[str]) -> list[str]:
    """Return a line for each module that only training with a config would import. Args as in `import_warnings`."""
    plain: Any = OmegaConf.to_container(cfg)
    return _import_lines(training_imports(plain), source, named)


def _import_lines(imports: Iterable[ExternalImport], source: Path, named: Collection[str]) -> list[str]:
    found = []
    for foreign in imports:
        what = f"the module '{foreign.module}'" if foreign.module else "whatever env.kwargs name"
        relation = (
            "=" if foreign.key in ("env.id", "algo.name") else " with "
        )  # an element of a list or mapping
        if foreign.value not in named:
            found.append(f"{source}: {foreign.key}{relation}{foreign.value} would import {what}")
    return found


def cluster_warnings(cfg: DictConfig, source: Path) -> list[str]:
    """Return a line for the Ray cluster that training with a config would join: its answers are unpickled."""
    address = OmegaConf.select(cfg, "runner.address")
    return [] if address is None else [f"{source}: runner.address={address} would join that Ray cluster"]


def refuse_untrusted(lines: Sequence[str], trust: bool) -> None:
    """Refuse actions that files of somebody else ask for, unless the user allowed them.

    Args:
        lines: from the functions above.
        trust: --trust was given.

    Raises:
        UserError: the lines, each with the option that allows it.
    """
    if lines and not trust:
        raise UserError(
            *(
                f"{line}, which you have not named yourself; --trust allows it (trust=True in Python)"
                for line in lines
            )
        )


def pgx_command(*words: str | Path, of: Path | None = None) -> str:
    """Return a command of pgx for a shell, for example `pgx eval outputs/run --trust`.

    Args:
        words: after `pgx`.
        of: folder whose `config.yaml` the command reads, of a run or a post-mortem. `--trust` is appended if this
        config
            imports modules that are not part of pgx, or joins a Ray cluster to train.
    """
    trusted = of is not None and _needs_trust(str(words[0]), _config(of))
    return shell_command(*words, *(["--trust"] if trusted else []))


def _needs_trust(command_name: str, config: Mapping[str, Any]) -> bool:
    runner = config.get("runner")
    joins = isinstance(runner, Mapping) and runner.get("address") is not None
    trains = command_name == "train" and (joins or any(True for _ in training_imports(config)))
    return any(True for _ in external_imports(config)) or trains


def _config(folder: Path) -> Mapping[str, Any]:
    """Read a config to find what it names; empty if it is missing or damaged, which the command itself reports."""
    path = folder / "config.yaml"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}
