"""Validation of a composed or stored config, with one message for all problems."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.algos import rule, rules
from pgx.config.cross_checks import conflict_problems, rank_problems, unused_problems
from pgx.config.rules import own_values, rule_problem
from pgx.config.run_config import (
    FIXED_SECTIONS,
    NAMED_SECTIONS,
    DatasetConfig,
    RunConfig,
    SearchConfig,
    TopLevelConfig,
    flatten_config,
    keys_of_choice,
    to_run_config,
)
from pgx.config.stored import renamed_problem
from pgx.config.suggestions import one_line_message
from pgx.core.errors import UserError
from pgx.core.paths import config_choices, config_dir
from pgx.core.schema import nearest, parameter_types, problems
from pgx.rollouts.dataset_files import dataset_problem


def validate(cfg: DictConfig, asked: Sequence[str] = ()) -> RunConfig:
    """Check a config and return its typed form.

    Args:
        cfg: composed, or read from the folder of a run.
        asked: dotted keys that the user set, which the run must use; values of pgx's own files may be unused.

    Raises:
        UserError: naming every problem: what, where, what was expected, the nearest valid choice.
    """
    if found := value_problems(cfg):
        raise UserError(*found)
    values = plain_values(cfg)
    config = to_run_config(values)
    if found := [*conflict_problems(config), *unused_problems(flatten_config(values), cfg, asked)]:
        raise UserError(*found)
    return config


def problems_of(cfg: DictConfig, asked: Sequence[str] = ()) -> list[str]:
    """Return all problems of a config; Args as in `validate`."""
    try:
        validate(cfg, asked)
    except UserError as error:
        return list(error.problems)
    return []


def check_inputs(config: RunConfig) -> None:
    """Refuse a run whose dataset is missing. Evaluation does not need it.

    Raises:
        UserError: the problem with the dataset.
    """
    if not isinstance(config.runner, DatasetConfig) or config.runner.path is None:
        return
    path = Path(config.runner.path)
    try:
        problem = dataset_problem(path)
    except OSError as error:
        problem = f"dataset={path}: cannot be read: {error.strerror}"
    if problem:
        raise UserError(problem)


def check_ranks(config: RunConfig, size: int) -> None:
    """Refuse a valid config that this number of ranks cannot train.

    Raises:
        UserError: naming every reason.
    """
    if size > 1 and (found := rank_problems(config, size)):
        raise UserError(*found)


def plain_values(cfg: DictConfig) -> dict[str, Any]:
    """Return the values of a run with references resolved.

    The file of a rule sets values of the optimizer and runner that it prefers. If another one is chosen that lacks such
    a key, the value is dropped; a value from elsewhere is kept, so that it is refused as unknown.

    Raises:
        OmegaConfBaseException: a value is missing, or refers to nothing.
    """
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    values: dict[str, Any] = {str(key): value for key, value in plain.items() if key != "hydra"}
    # Files that use the rule of another file, such as algo=impala, set the label.
    preferred: dict[str, dict[str, Any]] = {}
    for name in (OmegaConf.select(cfg, "algo.name"), values.get("label")):
        wanted = own_values(str(name)) if ":" in str(name) else _preferences(str(name))
        for section, wishes in wanted.items():
            if isinstance(wishes, Mapping):
                preferred[section] = preferred.get(section, {}) | dict(wishes)
    for section in NAMED_SECTIONS:
        chosen = values.get(section)
        if not isinstance(chosen, dict) or section not in preferred:
            continue
        known = keys_of_choice(section, chosen.get("name"))
        leftovers = {key: value for key, value in preferred[section].items() if key not in known}
        values[section] = {k: v for k, v in chosen.items() if k not in leftovers or v != leftovers[k]}
    return values


@cache
def _preferences(name: str) -> Mapping[str, Any]:
    """Return the values in the file of a rule, of its own section and of others."""
    if name not in config_choices("algo"):
        return {}
    written = OmegaConf.to_container(OmegaConf.load(config_dir() / "algo" / f"{name}.yaml"), resolve=False)
    assert isinstance(written, Mapping)
    return {str(key): value for key, value in written.items()}


def value_problems(cfg: DictConfig) -> list[str]:
    """Return the problems of single keys and values."""
    try:
        values = plain_values(cfg)
    except OmegaConfBaseException as error:
        return [one_line_message(error)]
    sections = {*FIXED_SECTIONS, *NAMED_SECTIONS, "algo"}
    found = problems(
        "",
        parameter_types(TopLevelConfig),
        {k: v for k, v in values.items() if k not in sections | {"sweep"}},
    )
    if "sweep" in values:
        found += problems("sweep", parameter_types(SearchConfig), values["sweep"])
    for section in sorted(sections):
        if not isinstance(values.get(section), dict):
            found.append(f"{section}: missing; expected a section of keys")
            continue
        found += _section_problems(section, values[section])
    return found


def _section_problems(section: str, values: Mapping[str, Any]) -> list[str]:
    if section in FIXED_SECTIONS:
        renamed = {key: problem for key in values if (problem := renamed_problem(f"{section}.{key}"))}
        others = {key: value for key, value in values.items() if key not in renamed}
        return [*renamed.values(), *problems(section, parameter_types(FIXED_SECTIONS[section]), others)]
    if "name" not in values:
        offered = rules() if section == "algo" else NAMED_SECTIONS[section]
        return [f"{section}.name: missing; expected one of {', '.join(offered)}"]
    name = values["name"]
    rest = {key: value for key, value in values.items() if key != "name"}
    if section == "algo":
        if problem := rule_problem(str(name)):
            return [f"algo.name: {problem}"]
        return problems(section, parameter_types(rule(str(name))), rest)
    registry = NAMED_SECTIONS[section]
    if name is None and section.endswith("optimizer"):
        return problems(section, {}, rest)
    if name not in registry:
        return [
            f"{section}.name: expected one of {', '.join(registry)}, got {name!r}{nearest(str(name), registry)}"
        ]
    expected = {key: hint for key, hint in keys_of_choice(section, name).items() if key != "name"}
    return problems(section, expected, rest)
