"""Plan of a sweep: sweep.json, which lists its jobs before the first starts, and their launch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgx.config.overrides import prepare
from pgx.config.run_config import SearchConfig
from pgx.config.stored import current_override, pgx_command, present_key
from pgx.config.suggestions import quoted
from pgx.core.errors import UserError
from pgx.core.schema import parameter_types, problems
from pgx.runs.checkpoints import write_atomically
from pgx.runs.lock import last_holder
from pgx.sweeps.progress import DONE_STATES, ENDED_STATES, read_progress, write_failure

PLAN_FILE = "sweep.json"
STOP_FILE = "stop"  # the jobs of a sweep stop while this file exists
_FORMAT = 1


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides and its folder."""

    overrides: tuple[str, ...]
    run_dir: Path

    @property
    def command(self) -> str:
        """Return the command that repeats the run alone, in another folder."""
        kept = [o for o in self.overrides if key_of(o) != "run_dir"]
        return pgx_command("train", *kept)


@dataclass(frozen=True)
class Plan:
    """Plan of a sweep.

    Args:
        jobs: in the order in which they start.
        hydra: Hydra's flags and overrides, such as the launcher.
        cwd: folder in which the sweep was started; relative paths and modules of environments are found from there.
        search: search that chooses values when a job starts; None: the overrides contain all values.
    """

    jobs: tuple[Job, ...]
    hydra: tuple[str, ...]
    cwd: Path
    search: SearchConfig | None

    def label(self, job: Job) -> str:
        """Return the overrides of a job that not all jobs have, or the name of its folder."""
        shared = (
            set.intersection(*(set(other.overrides) for other in self.jobs)) if len(self.jobs) > 1 else set()
        )
        return " ".join(o for o in job.overrides if o not in shared) or job.run_dir.name


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a sweep to its folder."""
    content = {
        "format": _FORMAT,
        "cwd": str(plan.cwd),
        "hydra": plan.hydra,
        "search": asdict(plan.search) if plan.search else None,
        "jobs": [{"overrides": job.overrides, "run_dir": str(job.run_dir)} for job in plan.jobs],
    }
    write_atomically(folder / PLAN_FILE, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_plan(folder: Path) -> Plan:
    """Return the plan of a sweep.

    Raises:
        UserError: the folder contains no sweep, or its plan has another format.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise UserError(f"{folder}: not the folder of a sweep (it has no {PLAN_FILE})")
    try:
        content = json.loads(path.read_text())
        if content.get("format") != _FORMAT:
            raise UserError(
                f"{path}: format {content.get('format')}, written by another pgx; expected {_FORMAT}"
            )
        plan = Plan(
            jobs=tuple(_read_job(path, job) for job in content["jobs"]),
            hydra=_texts(path, "hydra", content["hydra"]),
            cwd=Path(content["cwd"]),
            search=_read_search(path, content["search"]) if content["search"] else None,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not as pgx writes it: {type(error).__name__}: {error}") from error
    return plan


def _read_job(path: Path, content: dict[str, Any]) -> Job:
    overrides = map(current_override, _texts(path, "overrides", content["overrides"]))
    return Job(tuple(overrides), Path(content["run_dir"]))


def _texts(path: Path, key: str, values: Sequence[Any]) -> tuple[str, ...]:
    """Return the entries of a list.

    Raises:
        UserError: an entry is not text.
    """
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise UserError(f"{path}: {key}: entry {number} must be text, got {value!r}; write it in quotes")
    return tuple(values)


def _read_search(path: Path, content: dict[str, Any]) -> SearchConfig:
    """Return a search with the present names of keys.

    Raises:
        UserError: a value is invalid.
    """
    search = SearchConfig(**content)
    if found := problems("search", parameter_types(SearchConfig), asdict(search)):
        raise UserError(*(f"{path}: {problem}" for problem in found))
    overrides = [current_override(override) for override in search.overrides]
    space = {present_key(key): values for key, values in search.space.items()}
    return replace(search, overrides=overrides, space=space)


def refuse_other_sweep(folder: Path, planned: Plan, asked: Plan, again: str) -> None:
    """Refuse to start another sweep in the folder of a sweep; a search may get more trials.

    Args:
        folder: of the sweep.
        planned: plan in the folder.
        asked: plan that the user asked for.
        again: command that resumes the plan in the folder.

    Raises:
        UserError: the plans differ; the message shows where.
    """
    if asked.search and planned.search:
        before, now = asdict(planned.search), asdict(asked.search)
        different = [
            f"{k}: {before[k]} there, {now[k]} asked for"
            for k in now
            if before[k] != now[k] and k != "trials"
        ]
        if asked.search.trials < planned.search.trials:
            different.append(f"trials: {planned.search.trials} there, {asked.search.trials} asked for")
    else:
        there, wanted = [job.overrides for job in planned.jobs], [job.overrides for job in asked.jobs]
        different = [f"not asked for: {' '.join(o)}" for o in there if o not in wanted]
        different += [f"not there: {' '.join(o)}" for o in wanted if o not in there]
        if not different and there != wanted:
            different = ["the same jobs in another order"]
    if (asked.search is None) != (planned.search is None):
        different = ["one is a search and the other is not"]
    if different:
        raise UserError(
            f"hydra.sweep.dir={folder}: holds another sweep; choose another folder, or resume that one with "
            f"`{again}`. {first_items(different)}"
        )


def first_items(items: Sequence[str], most: int = 4) -> str:
    """Return the first items of a list as text, and the number of the others."""
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def unfinished_jobs(plan: Plan) -> list[Job]:
    """Return the jobs that have not ended and that no process runs. Failed trials of a search have ended."""
    kept = ENDED_STATES if plan.search else DONE_STATES
    return [job for job in plan.jobs if read_progress(job.run_dir).state not in (*kept, "running")]


def launch_overrides(plan: Plan, job: Job, threads: int | None) -> list[str]:
    """Return the overrides with which a launcher starts a job.

    Args:
        plan: of the sweep.
        job: of the plan.
        threads: value of env.num_threads for jobs that do not set it; None: the config decides.
    """
    asked = [o for o in (plan.search.overrides if plan.search else job.overrides) if key_of(o) != "run_dir"]
    shares = threads is not None and "env.num_threads" not in map(key_of, asked)
    return [
        *prepare(asked),
        f"run_dir={quoted(str(job.run_dir))}",
        *([f"env.num_threads={threads}"] if shares else []),
    ]


def key_of(override: str) -> str:
    """Return the key of an override."""
    return override.lstrip("+").split("=", 1)[0]


Launch = Callable[[Sequence[Job]], None]


KILLED = "its process was killed twice, the second time when it ran alone (perhaps it needs too much memory)"


def launch_until_ended(folder: Path, jobs: Sequence[Job], launch: Launch) -> None:
    """Launch jobs until all have ended or the sweep is to stop.

    In some launchers a process that is killed (usually for lack of memory) ends other jobs too, and none of them
    records a failure. Jobs that started and have no result are therefore launched again one at a time, from their last
    checkpoints. A job whose process is killed again has failed.

    Args:
        folder: of the sweep.
        jobs: that have not ended; jobs that another process runs are left to it.
        launch: runs jobs and returns when their processes have exited. The folders of the runs show the results.
    """
    left = list(jobs)
    while left and not (folder / STOP_FILE).exists():
        before = {job: last_holder(job.run_dir) for job in left}
        launch(left)
        unfinished_jobs = [
            job for job in left if read_progress(job.run_dir).state not in (*ENDED_STATES, "running")
        ]
        suspects = [job for job in unfinished_jobs if last_holder(job.run_dir) != before[job]]
        for job in suspects:
            if (folder / STOP_FILE).exists():
                return
            launch([job])
            if not (folder / STOP_FILE).exists() and read_progress(job.run_dir).state not in (
                *ENDED_STATES,
                "running",
            ):
                write_failure(job.run_dir, KILLED)
        rest = [job for job in unfinished_jobs if job not in suspects]
        if len(rest) == len(left) and not (folder / STOP_FILE).exists():
            for job in rest:
                write_failure(job.run_dir, "the launcher returned without starting it")
            return
        left = rest
