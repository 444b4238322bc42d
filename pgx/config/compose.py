"""Composing a config with Hydra, and saying in one message what is wrong with the overrides."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.envs.make import id_problem
from pgx.errors import UserError
from pgx.paths import choices, config_dir, groups
from pgx.schema import nearest

ROOT = "train"


def register_environments() -> None:
    """Let `env=` take any registered Gymnasium id: those without a file get configs/env/default.yaml."""
    import gymnasium

    known = set(choices("env"))
    for env_id in gymnasium.registry:
        if env_id not in known:
            node = {"defaults": ["/env/default@_here_", "_self_"], "id": env_id}
            folder, _, name = env_id.rpartition("/")
            group = f"env/{folder}" if folder else "env"
            ConfigStore.instance().store(group=group, name=name, node=node, package="env")


def parse(overrides: list[str]) -> list[Override]:
    """Parsed overrides.

    Raises:
        UserError: for each that is not of the form key=value.
    """
    parser, parsed, problems = OverridesParser.create(), [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            problems.append(f"{text}: not of the form key=value ({str(error).splitlines()[0]})")
    if problems:
        raise UserError(*problems)
    return parsed


def prepare(overrides: list[str]) -> list[str]:
    """Overrides as Hydra takes them: `module:Id` environments imported, env.kwargs open to new keys."""
    prepared = []
    for override in parse(overrides):
        text = override.input_line or ""
        key = override.key_or_group
        if key == "env" and isinstance(override.value(), str) and ":" in str(override.value()):
            _, _, name = str(override.value()).rpartition(":")
            if problem := id_problem(str(override.value())):
                raise UserError(problem)
            text = f"env={name}"
        if key.startswith("env.kwargs.") and text.startswith(key):
            text = f"++{text}"
        prepared.append(text)
    register_environments()
    return prepared


def jobs(overrides: list[str]) -> list[list[str]]:
    """The overrides of each run of a sweep over lists and ranges of choices; one list where nothing sweeps."""
    axes = [
        [f"{o.input_line.split('=', 1)[0]}={value}" for value in o.sweep_string_iterator()]
        if o.is_discrete_sweep()
        else [o.input_line]
        for o in parse(overrides)
        if o.input_line is not None
    ]
    return [list(job) for job in product(*axes)]


def compose(overrides: list[str]) -> DictConfig:
    """The config that `pgx train` with these overrides would run.

    Args:
        overrides: as on the command line, e.g. ["algo=ppo", "env=CartPole-v1", "algo.clip_range=0.1"].

    Raises:
        UserError: naming every unknown group, choice and key, each with the nearest known one.
    """
    parsed = parse(prepare(overrides))
    wrong = {o.key_or_group: problem for o in parsed if (problem := _choice_problem(o))}
    # What was chosen wrongly offers no keys to compare with: its own overrides are left aside.
    sound = [o for o in parsed if o.key_or_group.split(".")[0] not in wrong]
    known = OmegaConf.to_container(_hydra([o for o in sound if _is_choice(o)]), resolve=False)
    unknown = {o.input_line: problem for o in sound if (problem := _key_problem(o, known))}
    cfg = _hydra([o for o in sound if o.input_line not in unknown])
    if wrong or unknown:
        from pgx.config.check import problems_of

        raise UserError(*wrong.values(), *unknown.values(), *problems_of(cfg))
    return cfg


def _hydra(overrides: list[Override]) -> DictConfig:
    with _initialized():
        try:
            return hydra_compose(ROOT, [o.input_line or "" for o in overrides])
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error)) from error


@contextmanager
def _initialized() -> Iterator[None]:
    """Hydra keeps one global context; a config composed within a job must leave the job's own in place."""
    outer = dict(GlobalHydra.instance().__dict__)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().__dict__.update(outer)


def explain(error: Exception) -> str:
    """Hydra's message on one line, without its hints about Hydra."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = [line.strip() for line in str(error.__cause__ or "").splitlines() if line.strip()]
    return " ".join(dict.fromkeys(line for line in lines + cause[:1] if "HYDRA_FULL_ERROR" not in line))


def _is_choice(override: Override) -> bool:
    return override.key_or_group in groups()


def _choice_problem(override: Override) -> str | None:
    """What is wrong with choosing a file of a group; None for other overrides."""
    group = override.key_or_group
    if not _is_choice(override) or override.is_sweep_override() or override.is_delete():
        return None
    value = str(override.value())
    if group == "env":
        return None if value in choices("env") else id_problem(value)
    if value in choices(group) or (group == "experiment" and value == "None"):
        return None
    offered = ", ".join(choices(group)) or "nothing yet"
    return f"{group}={value}: no such choice{nearest(value, choices(group))}; {group} offers: {offered}"


def _key_problem(override: Override, known: Any) -> str | None:
    """What is wrong with the key of a value override; None where it exists or is added on purpose."""
    path = override.key_or_group.split(".")
    if _is_choice(override) or override.is_add() or override.is_force_add() or path[0] == "hydra":
        return None
    where: list[str] = []
    for part in path:
        if not isinstance(known, dict) or part not in known:
            candidates = list(known) if isinstance(known, dict) else []
            hint = nearest(part, candidates)
            if not hint and not where:
                hint = f"; the sections are {', '.join(candidates)}"
            elif not hint and candidates:
                hint = f"; {'.'.join(where)} has: {', '.join(candidates)}"
            return f"{override.key_or_group}: unknown key{hint}"
        where.append(part)
        known = known[part]
    return None
