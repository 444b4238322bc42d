"""Run the jobs of a sweep, for `pgx train -m` and `pgx sweep resume`.

A sweep is planned before its first run starts, and is resumed from its files.
"""

import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig

from pgx.api.console import outcome_line, print_run_settings
from pgx.api.run_folder import (
    compose_valid,
    create_unique_folder,
    folder_of,
    read_run_config,
    refuse_unusable,
    resumed_trainer,
)
from pgx.cli.launch import run_hydra
from pgx.config.compose import compose, hydra_config, job_number
from pgx.config.overrides import expand_sweep, named_imports, parse, prepare
from pgx.config.run_config import SearchConfig
from pgx.config.stored import refuse_untrusted
from pgx.config.suggestions import quoted, to_hydra_grammar
from pgx.config.validate import validate
from pgx.core.errors import RunError, UserError
from pgx.core.imports import import_problem, require
from pgx.core.schema import nearest
from pgx.core.stopping import QuietInterrupt, StopAtCheckpoint
from pgx.core.streams import guarded, report_and_continue
from pgx.runs.lock import RunLockedError, lock_run
from pgx.sweeps.plan import (
    PLAN_FILE,
    STOP_FILE,
    Job,
    Plan,
    key_of,
    read_plan,
    refuse_other_sweep,
    unfinished_jobs,
    write_plan,
)
from pgx.sweeps.progress import DONE_STATES, clear_run, read_progress, resumable, write_failure
from pgx.sweeps.report import result_lines
from pgx.sweeps.search import Trial, boundary_overrides, fail_unrecorded_trials, open_study, update_study
from pgx.sweeps.trust import resume_command, untrusted_actions, untrusted_actions_of_runs
from pgx.training.build import build
from pgx.training.callbacks import TrainingState, as_callback

_LAUNCHERS = {  # launcher: the package that it requires
    "basic": None,
    "joblib": "joblib",
    "ray": "ray",
    "submitit_slurm": "submitit",
    "submitit_local": "submitit",
}


def start_sweep(flags: list[str], overrides: list[str]) -> int:
    """Plan and run a sweep, or resume the one in hydra.sweep.dir; return the exit code."""
    overrides = list(map(to_hydra_grammar, overrides))
    hydra = [o.input_line or "" for o in parse(overrides) if o.is_hydra_override()]
    run_overrides = [o for o in overrides if o not in hydra]
    _refuse_missing(hydra, None)
    plan = (_search_plan if "sweep" in map(key_of, run_overrides) else _plan)(run_overrides, hydra)
    folder_given = "hydra.sweep.dir" in map(key_of, hydra)
    folder = Path(hydra_config(hydra).sweep.dir)
    if folder_given and (folder / PLAN_FILE).is_file():
        planned = read_plan(folder)
        refuse_other_sweep(folder, planned, plan, resume_command(folder.absolute(), planned))
        plan = replace(planned, cwd=plan.cwd, search=plan.search)
        given = plan.search.overrides if plan.search else [o for job in plan.jobs for o in job.overrides]
        refuse_untrusted(untrusted_actions_of_runs(plan, frozenset(named_imports(given))), trust=False)
    else:
        plan = _with_folders(plan)
        folder = _create_folder(folder) if folder_given else create_unique_folder(folder)
    folder = folder.absolute()
    plan = _with_trials(plan, folder)
    hydra = [o for o in hydra if key_of(o) != "hydra.sweep.dir"]
    return _run_jobs(folder, replace(plan, hydra=(*flags, *hydra)))


def resume_sweep(folder: Path, overrides: list[str], trust: bool) -> int:
    """Resume a sweep: skip finished runs, resume started ones, run the others; return the exit code.

    Args:
        folder: the sweep's folder.
        overrides: of Hydra's keys, for example another launcher.
        trust: the user allows the imports and Hydra settings that the sweep's files name.
    """
    folder = folder.absolute()
    plan = read_plan(folder)
    for override in parse(overrides):
        if not override.is_hydra_override() or override.key_or_group == "hydra.sweep.dir":
            raise UserError(
                f"{override.input_line}: cannot change in a resumed sweep; only hydra/launcher and its keys can"
            )
    changed = {key_of(o) for o in overrides}
    if "hydra/launcher" in changed:  # keys of the previous launcher do not apply
        changed |= {key_of(o) for o in plan.hydra if key_of(o).startswith("hydra.launcher")}
    hydra = [*(o for o in plan.hydra if key_of(o) not in changed), *overrides]
    _refuse_missing(hydra, plan.search)
    plan = replace(plan, hydra=tuple(hydra))
    refuse_untrusted([] if trust else untrusted_actions(folder, plan, overrides), trust)
    if plan.cwd.is_dir():
        os.chdir(plan.cwd)
    return _run_jobs(folder, plan)


def _plan(overrides: list[str], hydra: list[str]) -> Plan:
    """Plan one job per combination of values. The runs' folders are chosen but not created.

    Raises:
        UserError: a job is invalid, or two jobs would use the same folder.
    """
    planned, folders = [], dict[str, list[str]]()
    all_jobs = expand_sweep(prepare(overrides))
    shared_by_all = set.intersection(*map(set, all_jobs)) if len(all_jobs) > 1 else set(all_jobs[0])
    for number, job in enumerate(all_jobs):
        try:
            with job_number(number):
                run_dir = str(folder_of(compose_valid(job)))
        except UserError as error:
            varied = " ".join(o for o in job if o not in shared_by_all)
            raise UserError(
                *(f"{varied}: {problem}" if varied else problem for problem in error.problems)
            ) from error
        folders.setdefault(run_dir, []).append(" ".join(job))
        planned.append(Job(tuple(job), Path(run_dir)))
    shared = [folder for folder, users in folders.items() if len(users) > 1]
    if shared:
        raise UserError(
            f"run_dir={shared[0]}: {len(folders[shared[0]])} runs of the sweep would use this folder; "
            "give each run its own, e.g. 'run_dir=outputs/mine/${label}${sweep_number:}_seed${seed}'"
        )
    return Plan(tuple(planned), tuple(hydra), Path.cwd(), None)


def _search_plan(overrides: list[str], hydra: list[str]) -> Plan:
    """Plan a search, without its jobs. Values on the command line replace those of the sweep file.

    Raises:
        UserError: the search or one of its corners is invalid, or a key cannot be searched.
    """
    require("sweep=...", "optuna")
    own = [o for o in overrides if key_of(o) == "sweep" or key_of(o).startswith("sweep.")]
    rest = parse([o for o in overrides if o not in own])
    section = compose_valid(own).values["sweep"]
    assert isinstance(section, dict)
    search = SearchConfig(**{str(key): value for key, value in section.items()})
    named = {o.get_key_element() for o in rest}
    lines = {o.get_key_element(): (o.input_line or "").split("=", 1)[1] for o in rest}
    swept = {o.get_key_element() for o in rest if o.is_sweep_override()}
    if "run_dir" in named:
        raise UserError(
            "run_dir: cannot be set in a search, whose trials are in hydra.sweep.dir; set that instead"
        )
    if "seed" in swept | search.space.keys():
        raise UserError(
            "seed: cannot be searched, because the best seed is only a lucky one; remove it from the search space"
        )
    fixed = [o for o in search.overrides if key_of(o) not in named]
    space = {key: values for key, values in search.space.items() if key not in named}
    search = replace(
        search,
        overrides=[*fixed, *(f"{key}={lines[key]}" for key in lines if key not in swept)],
        space=space | {key: lines[key] for key in lines if key in swept},
    )
    for corner in boundary_overrides(search):
        compose_valid(corner)
    return Plan((), tuple(hydra), Path.cwd(), search)


def _with_trials(plan: Plan, folder: Path) -> Plan:
    """Add a job for each trial to the plan of a search; return other plans unchanged."""
    if plan.search is None:
        return plan
    return replace(plan, jobs=tuple(Job((), folder / f"trial_{n:03}") for n in range(plan.search.trials)))


def _with_folders(plan: Plan) -> Plan:
    """Create the folder of each run, and return the plan with these folders.

    A default name that another process uses, for example in the same second, gets a number.
    """
    placed = []
    for job in plan.jobs:
        if "run_dir" in map(key_of, job.overrides):
            refuse_unusable(job.run_dir)
            placed.append(replace(job, run_dir=_create_folder(job.run_dir).absolute()))
        else:
            placed.append(replace(job, run_dir=create_unique_folder(job.run_dir).absolute()))
    return replace(plan, jobs=tuple(placed))


def _create_folder(folder: Path) -> Path:
    """Create a folder if it does not exist; return it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return folder


def _run_jobs(folder: Path, plan: Plan) -> int:
    """Run the unfinished jobs and print how all jobs ended; return the exit code.

    Raises:
        QuietInterrupt: Ctrl-C stopped the sweep.
        RunError: jobs failed.
    """
    with lock_run(folder), _stop_on_interrupt(folder) as stop:
        write_plan(folder, plan)
        stop.unlink(missing_ok=True)
        if plan.search:
            open_study(folder, plan.search)
            update_study(folder, plan.search, plan.jobs)
            fail_unrecorded_trials(folder, plan.search, plan.jobs)
        print(f"sweep {folder}: {len(plan.jobs)} jobs, {len(unfinished_jobs(plan))} to run", flush=True)
        where = f"hydra.sweep.dir={quoted(str(folder))}"
        run_hydra(["-m", *plan.hydra, where], partial(run_job, folder, _process_name()))
        stopped = stop.exists()
        if plan.search:
            update_study(
                folder, plan.search, plan.jobs
            )  # for jobs that crashed before they reported to the study
    lines, failed = result_lines(folder, plan)
    print("\n".join(lines), flush=True)
    if stopped:
        raise QuietInterrupt
    if failed:
        raise RunError("\n".join(failed))
    return 0


@contextmanager
def _stop_on_interrupt(folder: Path) -> Iterator[Path]:
    """On the first Ctrl-C, stop all jobs on all machines where they can resume; on the second, exit at once.

    Yields:
        The file whose existence stops the jobs.
    """
    stop = folder / STOP_FILE

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.exists():
            raise QuietInterrupt
        stop.touch()
        print(
            "\nstopping each run after its iteration (Ctrl-C again: exit at once)",
            file=sys.stderr,
            flush=True,
        )

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _refuse_missing(hydra: Sequence[str], search: SearchConfig | None) -> None:
    """Check the launcher and the search before anything is written.

    Raises:
        UserError: the launcher is unknown, a package is missing, or another sweeper is set.
    """
    if search:
        require("sweep=...", "optuna")
    for override in hydra:
        key, _, value = override.partition("=")
        if key == "hydra/sweeper":
            raise UserError(
                f"{override}: cannot be set, because pgx plans sweeps itself; remove it, or search with sweep=NAME"
            )
        if key == "hydra.launcher.n_jobs" and not re.fullmatch(r"null|-1|[1-9][0-9]*|.*\$\{.*", value):
            raise UserError(f"{override}: expected a whole number >= 1, or null for one job per core")
        if key != "hydra/launcher":
            continue
        if value not in _LAUNCHERS:
            offered = ", ".join(_LAUNCHERS)
            raise UserError(
                f"{override}: no such launcher{nearest(value, _LAUNCHERS)}; choose one of {offered}"
            )
        if package := _LAUNCHERS[value]:
            require(override, package)


_CONSOLE_LOG = "console.log"  # output of a job that runs in another process


def _process_name() -> str:
    """Return a name for this process that is unique across machines."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(folder: Path, launcher: str, cfg: DictConfig) -> None:
    """Start or resume a job, and write its result to its folder; raise nothing.

    Launchers pickle this function, so it is at module level and takes plain values.

    Args:
        folder: the sweep's folder.
        launcher: the process that started the sweep, as named by `_process_name`.
        cfg: the job's config, as the launcher composed it.
    """
    plan, run_dir = read_plan(folder), Path(cfg.run_dir)
    number = next(i for i, job in enumerate(plan.jobs) if job.run_dir == run_dir)
    separate = launcher != _process_name()
    if (folder / STOP_FILE).exists() or read_progress(run_dir).state in ("running", *DONE_STATES):
        return
    with guarded(report_and_continue):
        _run_job(plan, folder, number, separate, cfg)


def _run_job(plan: Plan, folder: Path, number: int, separate: bool, cfg: DictConfig) -> None:
    """Run a job, print how it ended, and write it to the job's folder.

    Args:
        plan: of the sweep.
        folder: of the sweep.
        number: index of the job in the plan.
        separate: the job runs in a process other than the sweep's, so its output goes to a file.
        cfg: the job's config, as the launcher composed it.
    """
    job, run_dir, result = plan.jobs[number], plan.jobs[number].run_dir, "stopped"
    try:
        with ExitStack() as stack:
            if separate:
                console = stack.enter_context(
                    (run_dir / _CONSOLE_LOG).open("a", encoding="utf-8", errors="backslashreplace")
                )
                stack.enter_context(redirect_stdout(console))
                stack.enter_context(redirect_stderr(console))
            result = _train_job(plan, folder, number, cfg)
    except RunLockedError as error:
        result = str(error)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if os.environ.get("PGX_DEBUG") == "1":
            traceback.print_exc()
        result = f"failed: {error}"
        if read_progress(run_dir).state != "failed":
            write_failure(run_dir, f"{type(error).__name__}: {error}")
    # If this machine has no Optuna, the process that started the sweep reports the result to the study.
    if plan.search and not result.startswith("stopped") and import_problem("optuna") is None:
        update_study(folder, plan.search, [job])
    print(f"[{number + 1}/{len(plan.jobs)}] {plan.label(job)}: {result}", flush=True)


def _train_job(plan: Plan, folder: Path, number: int, launched: DictConfig) -> str:
    """Train from the last checkpoint or from scratch; return a line that says how the run ended."""
    run_dir = Path(launched.run_dir)
    trial = Trial(folder, plan.search, run_dir, number) if plan.search else None
    resumes = resumable(run_dir)
    if resumes:
        cfg = read_run_config(run_dir)
    else:
        clear_run(run_dir)
        cfg = compose(list(trial.overrides)) if trial else launched
    if trial:
        trial.describe(cfg.seed)
    # These values belong to this machine and launcher, not to the run.
    cfg.run_dir, cfg.env.num_threads = launched.run_dir, launched.env.num_threads
    config = validate(cfg)
    trainer = resumed_trainer(config) if resumes else build(config)
    trainer.callbacks.append(as_callback(SweepStop(folder / STOP_FILE)))
    if trial:
        trainer.callbacks.append(as_callback(trial.pruning()))
    print_run_settings(trainer, config)
    started = time.monotonic()
    return outcome_line(trainer.train(), time.monotonic() - started)


@dataclass(frozen=True)
class SweepStop:
    """Callback that stops a run after the current iteration when the sweep stops.

    The run stops without a new checkpoint, as if it were killed. A new checkpoint would end all episodes, unlike in an
    uninterrupted run; without it, the final parameters are the same bits however often the sweep is stopped.

    Args:
        request: file that exists when the sweep is to stop.
    """

    request: Path

    def on_start(self, state: TrainingState) -> None:
        """Raise StopAtCheckpoint if a resumed run is to stop at once."""
        if state.resumed:
            self.on_iteration(state)

    def on_iteration(self, state: TrainingState) -> None:
        """Raise StopAtCheckpoint if the sweep is to stop."""
        if self.request.exists():
            raise StopAtCheckpoint
