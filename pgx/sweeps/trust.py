"""What the files of a sweep would have pgx do that their reader may not have written: --trust."""

import re
from collections.abc import Sequence
from pathlib import Path

from pgx.config.compose import compose
from pgx.config.overrides import named_imports, named_modules
from pgx.config.stored import ADAPTERS, CONFIG, command, imports_of, joins_of, module_of, read_config
from pgx.sweeps.plan import PLAN_FILE, Plan, key_of
from pgx.sweeps.search import TRIAL_FILE, boundary_overrides, read_trial

# Hydra's part of a plan can name any class to construct, file to read and command for a cluster; these are numbers.
_NUMBERS = frozenset(
    f"hydra.launcher.{key}"
    for key in ("n_jobs", "cpus_per_job", "gpus_per_job", "connect_seconds", "parameters.timeout_min")
)
_PICKLES = "submitit"  # where submitit keeps what it unpickles, in the sweep's folder


def untrusted_actions(folder: Path, plan: Plan, typed: Sequence[str]) -> list[str]:
    """A line for everything that running the plan would import, construct, join or unpickle; empty for plain runs.

    Args:
        folder: the sweep's.
        plan: as it is to be run.
        typed: what of Hydra's part of it the user has just typed.
    """
    asked = (
        [list(job.overrides) for job in plan.jobs] if plan.search is None else boundary_overrides(plan.search)
    )
    planned = frozenset(name for overrides in asked for name in named_imports(overrides))
    found: dict[str, None] = {}  # a set that keeps its order
    for overrides in asked:
        found |= dict.fromkeys(_of_run(folder / PLAN_FILE, overrides, frozenset()))
    return [*_of_hydra(folder, plan.hydra, typed), *found, *untrusted_actions_of_runs(plan, planned)]


def untrusted_actions_of_runs(plan: Plan, named: frozenset[str]) -> list[str]:
    """What going on with runs that were begun would import or join, by what stands in their folders.

    Args:
        plan: whose jobs they are.
        named: module:Name and functions of rewards that need not be told: the user has named them, or they were told
            of the plan.
    """
    found: dict[str, None] = {}
    for job in plan.jobs:
        config = job.run_dir / CONFIG
        if config.is_file():
            cfg = read_config(config)
            found |= dict.fromkeys(imports_of(cfg, config, named))
            found |= dict.fromkeys(joins_of(cfg, config))
        if plan.search and (noted := read_trial(job.run_dir)):
            source = job.run_dir / TRIAL_FILE
            found |= dict.fromkeys(_of_run(source, noted["overrides"], named))
    return list(found)


def resume_command(folder: Path, plan: Plan) -> str:
    """Return what resumes a sweep when pasted, with `--trust` where `would_do` names anything.

    Only looks at texts and stored configs: composing every job would take seconds in a large sweep.
    """
    if plan.search is None:
        asked = [list(job.overrides) for job in plan.jobs]
    else:
        asked = [[*plan.search.overrides, *(f"{key}={values}" for key, values in plan.search.space.items())]]
    trust = bool(_of_hydra(folder, plan.hydra, ()) or untrusted_actions_of_runs(plan, frozenset()))
    for overrides in asked:
        adapted = any(name in override for override in overrides for name in ADAPTERS)
        joins = any(key_of(override) == "runner.address" for override in overrides)
        trust = trust or adapted or joins or bool(named_imports(overrides))
    return command("sweep", "resume", folder, *(["--trust"] if trust else []))


def _of_run(source: Path, overrides: Sequence[str], named: frozenset[str]) -> list[str]:
    keys = named_modules(overrides)
    if theirs := [value for value in named_imports(overrides) if value not in named]:
        return [
            f"{source}: {keys.get(value, 'reward.terms')}={value} would import the module '{module_of(value)}'"
            for value in theirs
        ]
    cfg = compose(list(overrides))  # which refuses choices of files that are not pgx's
    return [*imports_of(cfg, source, named), *joins_of(cfg, source)]


def _of_hydra(folder: Path, hydra: Sequence[str], typed: Sequence[str]) -> list[str]:
    found = []
    for text in hydra:
        key, _, value = text.partition("=")
        if key == "hydra/launcher":
            if value.startswith("submitit") and (folder / _PICKLES).exists():
                found.append(f"{folder / _PICKLES}: {text} would unpickle what is there")
        elif text not in typed and not (key in _NUMBERS and re.fullmatch(r"\d+(\.\d+)?", value)):
            found.append(f"{folder / PLAN_FILE}: {text} would be handed to Hydra")
    return found
