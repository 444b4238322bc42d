"""Actions in the files of a sweep that need --trust: imports, unpickling and options for Hydra."""

import re
from collections.abc import Sequence
from pathlib import Path

from pgx.config.compose import compose
from pgx.config.overrides import named_imports, named_modules
from pgx.config.stored import (
    ADAPTERS,
    CONFIG,
    cluster_warnings,
    import_warnings,
    module_of,
    pgx_command,
    read_config,
    training_warnings,
)
from pgx.sweeps.plan import PLAN_FILE, Plan, key_of
from pgx.sweeps.search import TRIAL_FILE, boundary_overrides, read_trial

# Hydra's options can construct any class, read any file and run any command; these keys are numbers.
_NUMBERS = frozenset(
    f"hydra.launcher.{key}"
    for key in ("n_jobs", "cpus_per_job", "gpus_per_job", "connect_seconds", "parameters.timeout_min")
)
_PICKLES = "submitit"  # folder of submitit's pickles, in the folder of the sweep


def untrusted_actions(folder: Path, plan: Plan, typed: Sequence[str]) -> list[str]:
    """Return a line for everything that running the plan would import, construct, join or unpickle.

    Args:
        folder: of the sweep.
        plan: to run.
        typed: Hydra's options that the user typed now; these are trusted.
    """
    asked = (
        [list(job.overrides) for job in plan.jobs] if plan.search is None else boundary_overrides(plan.search)
    )
    planned = frozenset(name for overrides in asked for name in named_imports(overrides))
    found: dict[str, None] = {}  # an ordered set
    for overrides in asked:
        found |= dict.fromkeys(_of_run(folder / PLAN_FILE, overrides, frozenset()))
    return [*_of_hydra(folder, plan.hydra, typed), *found, *untrusted_actions_of_runs(plan, planned)]


def untrusted_actions_of_runs(plan: Plan, named: frozenset[str]) -> list[str]:
    """Return a line for everything that resuming started runs would import or join, as their folders show.

    Args:
        plan: of the sweep.
        named: module:Name, and functions of rewards, that are left out: the user named them, or the plan's lines do.
    """
    found: dict[str, None] = {}
    for job in plan.jobs:
        config = job.run_dir / CONFIG
        if config.is_file():
            cfg = read_config(config)
            found |= dict.fromkeys(import_warnings(cfg, config, named))
            found |= dict.fromkeys(training_warnings(cfg, config, named))
            found |= dict.fromkeys(cluster_warnings(cfg, config))
        if plan.search and (noted := read_trial(job.run_dir)):
            source = job.run_dir / TRIAL_FILE
            found |= dict.fromkeys(_of_run(source, noted["overrides"], named))
    return list(found)


def resume_command(folder: Path, plan: Plan) -> str:
    """Return the command that resumes a sweep, with `--trust` if `untrusted_actions` would return anything.

    Reads texts and stored configs only, because composing every job of a large sweep takes seconds.
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
    return pgx_command("sweep", "resume", folder, *(["--trust"] if trust else []))


def _of_run(source: Path, overrides: Sequence[str], named: frozenset[str]) -> list[str]:
    keys = named_modules(overrides)
    if theirs := [value for value in named_imports(overrides) if value not in named]:
        return [
            f"{source}: {keys.get(value, 'reward.terms')}={value} would import the module '{module_of(value)}'"
            for value in theirs
        ]
    cfg = compose(list(overrides))  # refuses config files that are not part of pgx
    return [
        *import_warnings(cfg, source, named),
        *training_warnings(cfg, source, named),
        *cluster_warnings(cfg, source),
    ]


def _of_hydra(folder: Path, hydra: Sequence[str], typed: Sequence[str]) -> list[str]:
    found = []
    for text in hydra:
        key, _, value = text.partition("=")
        if key == "hydra/launcher":
            if value.startswith("submitit") and (folder / _PICKLES).exists():
                found.append(f"{folder / _PICKLES}: {text} would unpickle its files")
        elif text not in typed and not (key in _NUMBERS and re.fullmatch(r"\d+(\.\d+)?", value)):
            found.append(f"{folder / PLAN_FILE}: {text} would be passed to Hydra")
    return found
