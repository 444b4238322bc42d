"""Every value of a config against the type, range and meaning of what reads it, all problems at once."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.algos import rule
from pgx.config.explain import explain
from pgx.config.sections import FIXED, Top
from pgx.datasets.read import dataset_problem
from pgx.envs.make import id_problem
from pgx.errors import UserError
from pgx.optimizers import CRITIC_OPTIMIZERS, OPTIMIZERS
from pgx.paths import choices, config_dir
from pgx.policies import (
    CRITICS,
    POLICIES,
    WITH_ACTION_VALUES,
    WITH_MEMORY,
    WITH_VALUE_HEAD,
    WITHOUT_PARAMETERS,
)
from pgx.runners import RUNNERS
from pgx.schema import nearest, problems, signature
from pgx.sequences import stretch_conflicts
from pgx.types import Algorithm, Setting

NAMED: dict[str, tuple[dict[str, Callable[..., Any]], frozenset[str]]] = {
    # section: what its `name` chooses from, and the parameters that come from elsewhere than the config
    "policy": (POLICIES, frozenset({"obs", "action", "generator"})),
    "critic": (CRITICS, frozenset({"obs", "action", "generator"})),
    "optimizer": (OPTIMIZERS, frozenset({"parameters"})),
    "critic_optimizer": (CRITIC_OPTIMIZERS, frozenset({"parameters"})),
    "runner": (RUNNERS, frozenset({"envs", "reward_scaler", "seed", "device"})),
}


def check(cfg: DictConfig) -> None:
    """Refuse a config that cannot be run as it stands.

    Raises:
        UserError: naming every problem: what, where, what was expected, the nearest valid choice.
    """
    found = problems_of(cfg)
    if found:
        raise UserError(*found)


def check_inputs(cfg: DictConfig) -> None:
    """Refuse a run whose data is not there. Apart from `check`: who only evaluates a run needs no data of it.

    Raises:
        UserError: what is wrong with the dataset's folder.
    """
    path = cfg.runner.get("path")
    if path is not None and (problem := dataset_problem(Path(path))):
        raise UserError(problem)


def problems_of(cfg: DictConfig) -> list[str]:
    """All problems of a config, in words; empty when it can be run.

    Contradictions between values are looked for only once each value by itself is right.
    """
    return value_problems(cfg) or _contradictions(plain_values(cfg))


def plain_values(cfg: DictConfig) -> dict[str, Any]:
    """The values of a run, references resolved.

    What an algo file sets for the optimizer or the runner that it expects is left out where another one was chosen
    that has no such key; a value that was not the algo file's stays, to be refused as unknown.

    Raises:
        OmegaConfBaseException: a value is missing, or refers to nothing.
    """
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    values: dict[str, Any] = {str(key): value for key, value in plain.items() if key != "hydra"}
    preferred = _preferences(str(OmegaConf.select(cfg, "algo.name")))
    for section in NAMED:
        chosen = values.get(section)
        if not isinstance(chosen, dict) or not isinstance(preferred.get(section), Mapping):
            continue
        known = _keys_of(section, chosen.get("name"))
        leftovers = {key: value for key, value in preferred[section].items() if key not in known}
        values[section] = {k: v for k, v in chosen.items() if k not in leftovers or v != leftovers[k]}
    return values


@cache
def _preferences(name: str) -> Mapping[str, Any]:
    """What the file of a rule sets, in its own section and in others."""
    path = config_dir() / "algo" / f"{name}.yaml"
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else {}
    assert isinstance(written, Mapping)
    return {str(key): value for key, value in written.items()}


def _keys_of(section: str, name: object) -> Mapping[str, Any]:
    """The keys of a named choice with their annotations."""
    registry, supplied = NAMED[section]
    if name not in registry:
        return {"name": str}
    hints = signature(registry[str(name)])
    return {"name": str} | {key: hint for key, hint in hints.items() if key not in supplied | {"return"}}


def value_problems(cfg: DictConfig) -> list[str]:
    """What is wrong with keys and values, each looked at by itself."""
    try:
        values = plain_values(cfg)
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
    registry, _ = NAMED[section]
    if name is None and section.endswith("optimizer"):
        return problems(section, {}, rest)
    if name not in registry:
        return [
            f"{section}.name: expected one of {', '.join(registry)}, got {name!r}{nearest(str(name), registry)}"
        ]
    expected = {key: hint for key, hint in _keys_of(section, name).items() if key != "name"}
    return problems(section, expected, rest)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What no single value shows."""
    found = [problem for problem in [id_problem(values["env"]["id"])] if problem]
    if not values["run_dir"].strip():
        found.append("run_dir: expected a folder, got an empty text")
    if values["device"] == "cuda" and not torch.cuda.is_available():
        found.append("device=cuda: torch finds no CUDA device here; device=cpu runs everywhere")
    return found + _dataset_misfits(values) + _misfits(values)


def _dataset_misfits(values: Mapping[str, Any]) -> list[str]:
    """A dataset that nothing reads, or what cannot learn from one."""
    runner, path, name = values["runner"]["name"], values["dataset"], values["algo"]["name"]
    if runner != "dataset":
        return [] if path is None else [f"dataset={path}: runner={runner} does not read it; runner=dataset"]
    found = []
    if values["runner"]["path"] is None:
        found.append(
            "runner=dataset: of which dataset? dataset=PATH, a folder that `pgx collect RUN --out PATH` wrote"
        )
    if "recorded" not in rule(name)(**{k: v for k, v in values["algo"].items() if k != "name"}).uses:
        found.append(
            f"runner=dataset: {name} takes every step for one of its own policy; algo=off_policy_reinforce weighs "
            "those of another"
        )
    if values["policy"].get("continuous") == "squashed_gaussian":
        found.append(
            "policy.continuous=squashed_gaussian: actions are recorded as the environment has them, where one at a "
            "bound no longer tells what was sampled; policy.continuous=gaussian"
        )
    return found


def _misfits(values: Mapping[str, Any]) -> list[str]:
    """Where the rule and what is chosen around it do not fit each other."""
    name, policy, critic = (values[section]["name"] for section in ("algo", "policy", "critic"))
    algorithm: Algorithm = rule(name)(
        **{key: value for key, value in values["algo"].items() if key != "name"}
    )
    uses, values_states = algorithm.uses, critic not in WITHOUT_PARAMETERS
    found = algorithm.conflicts(
        Setting(
            rollout_steps=values["runner"].get("rollout_steps"),
            num_envs=values["env"]["num_envs"],
            policy=policy,
            critic=critic,
            sequence_length=values["policy"]["sequence_length"] if policy in WITH_MEMORY else None,
        )
    )
    if policy in WITH_MEMORY:
        found += stretch_conflicts(
            rollout_steps=values["runner"].get("rollout_steps"),
            sequence_length=values["policy"]["sequence_length"],
            burn_in=values["policy"]["burn_in"],
        )
    if values_states and "critic_optimizer" not in uses:
        found.append(f"critic={critic}: {name}, as configured, has no use for a critic; critic=none")
    found += _optimizer_misfits("optimizer", values, name, "optimizer" in uses)
    learner, learns = (name, "critic_optimizer" in uses) if values_states else ("critic=none", False)
    found += _optimizer_misfits("critic_optimizer", values, learner, learns)
    for use, group, having, words in (
        ("value_head", "policy", WITH_VALUE_HEAD, "a value head"),
        ("action_values", "critic", WITH_ACTION_VALUES, "values of actions"),
    ):
        chosen = values[group]["name"]
        offers = having if use in uses else set(NAMED[group][0]) - having
        if chosen not in offers:
            verb = "needs" if use in uses else "has no use for"
            found.append(
                f"{group}={chosen}: {name}, as configured, {verb} {words}; {group}={' or '.join(sorted(offers))}"
            )
    return found


def _optimizer_misfits(group: str, values: Mapping[str, Any], name: str, used: bool) -> list[str]:
    """An optimizer that does nothing, or one that is missing."""
    chosen = values[group]["name"]
    if used and chosen is None:
        return [f"{group}=none: {name} takes steps with one; choose one of {', '.join(NAMED[group][0])}"]
    if not used and chosen is not None:
        return [f"{group}={chosen}: {name} takes no step with it and it would do nothing; {group}=none"]
    return []
