"""Every value of a config against the type, range and meaning of what reads it, all problems at once."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.algos import rule
from pgx.config.explain import explain
from pgx.config.sections import FIXED, Top
from pgx.envs.make import id_problem
from pgx.errors import UserError
from pgx.optimizers import OPTIMIZERS
from pgx.paths import choices
from pgx.policies import CRITICS, POLICIES
from pgx.schema import nearest, problems, signature

NAMED: dict[str, tuple[dict[str, Callable[..., Any]], frozenset[str]]] = {
    # section: what its `name` chooses from, and the parameters that come from elsewhere than the config
    "policy": (POLICIES, frozenset({"obs", "action", "generator"})),
    "critic": (CRITICS, frozenset({"obs", "generator"})),
    "optimizer": (OPTIMIZERS, frozenset({"parameters"})),
    "critic_optimizer": (OPTIMIZERS, frozenset({"parameters"})),
}


def check(cfg: DictConfig) -> None:
    """Refuse a config that cannot be run as it stands.

    Raises:
        UserError: naming every problem: what, where, what was expected, the nearest valid choice.
    """
    found = problems_of(cfg)
    if found:
        raise UserError(*found)


def problems_of(cfg: DictConfig) -> list[str]:
    """All problems of a config, in words; empty when it can be run.

    Contradictions between values are looked for only once each value by itself is right.
    """
    return value_problems(cfg) or _contradictions(_plain(cfg))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def value_problems(cfg: DictConfig) -> list[str]:
    """What is wrong with keys and values, each looked at by itself."""
    try:
        values = _plain(cfg)
    except OmegaConfBaseException as error:
        return [explain(error)]
    sections = {*FIXED, *NAMED, "algo"}
    found = problems("", signature(Top), {k: v for k, v in values.items() if k not in sections})
    for section in sorted(sections):
        if not isinstance(values.get(section), dict):
            found.append(f"{section}: missing; expected a section of keys")
            continue
        found += _section_problems(section, values[section])
    return found


def _section_problems(section: str, values: Mapping[str, Any]) -> list[str]:
    if section in FIXED:
        return problems(section, signature(FIXED[section]), values)
    name = values.get("name")
    rest = {key: value for key, value in values.items() if key != "name"}
    if section == "algo":
        if name not in choices("algo"):
            return [f"algo.name: no rule '{name}'{nearest(str(name), choices('algo'))}"]
        return problems(section, signature(rule(str(name))), rest)
    registry, supplied = NAMED[section]
    if name is None and section.endswith("optimizer"):
        return []  # what an algo file sets for the optimizer it expects is then left unread: see _contradictions
    if name not in registry:
        return [
            f"{section}.name: expected one of {', '.join(registry)}, got {name!r}{nearest(str(name), registry)}"
        ]
    expected = {
        key: hint for key, hint in signature(registry[str(name)]).items() if key not in supplied | {"return"}
    }
    return problems(section, expected, rest)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What no single value shows."""
    found = [problem for problem in [id_problem(values["env"]["id"])] if problem]
    if not values["run_dir"].strip():
        found.append("run_dir: expected a folder, got an empty text")
    if values["device"] == "cuda" and not torch.cuda.is_available():
        found.append("device=cuda: torch finds no CUDA device here; device=cpu runs everywhere")
    name = values["algo"]["name"]
    algorithm = rule(name)(**{key: value for key, value in values["algo"].items() if key != "name"})
    found += algorithm.conflicts(values["runner"]["rollout_steps"], values["env"]["num_envs"])
    for group in ("optimizer", "critic_optimizer"):
        chosen = values[group]["name"]
        if group in algorithm.uses and chosen is None:
            found.append(f"{group}=none: {name} takes steps with one; choose one of {', '.join(OPTIMIZERS)}")
        if group not in algorithm.uses and chosen is not None:
            found.append(
                f"{group}={chosen}: {name} takes no step with it and it would do nothing; {group}=none"
            )
    return found
