"""`pgx sweep`: show or resume a sweep."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pgx.cli.arguments import (
    Command,
    add_trust,
)
from pgx.core.errors import UserError
from pgx.core.extras import import_problem
from pgx.core.formatting import shown

if TYPE_CHECKING:
    from pgx.sweeps.plan import Job, Plan
    from pgx.sweeps.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=["status", "resume"], help="show the jobs, or run the unfinished ones"
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the sweep, e.g. outputs/sweeps/2026-...")
    parser.add_argument("overrides", nargs="*", help="with resume: another launcher, e.g. hydra/launcher=ray")
    add_trust(parser, "the sweep's files")


def run(options: argparse.Namespace) -> int:
    if options.action == "resume":
        from pgx.cli.sweep_jobs import resume

        return resume(Path(options.folder), options.overrides, options.trust)
    if options.trust:
        raise UserError("--trust: is unused with pgx sweep status, which imports nothing; remove it")
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: is unused with pgx sweep status; remove it")
    return status(Path(options.folder))


COMMAND = Command(
    "sweep",
    "manage the runs of pgx train -m: sweep status DIR shows them, sweep resume DIR runs the unfinished ones",
    "Show or resume a sweep (docs/sweeps.md).",
    add_arguments,
    run,
)


def status(folder: Path) -> int:
    """Print the progress of a sweep, read from its files; return the exit code."""
    from pgx.sweeps.plan import read_plan

    plan = read_plan(folder)
    print("\n".join(overview(folder, plan)))
    return 0


def overview(folder: Path, plan: Plan) -> list[str]:
    """Return the lines of `pgx sweep status`: counts, ETA, each job, the best runs and the failures."""
    from pgx.runs.loggers.console import clock_face
    from pgx.sweeps.progress import look, seconds_left

    seen = [(job, look(job.run_dir)) for job in plan.jobs]
    counts = Counter(run.state for _, run in seen)
    lines = [
        f"{folder}: {len(seen)} jobs: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    ]
    eta = seconds_left([run for _, run in seen], max(1, counts["running"]))
    if eta:
        at_once = f"{counts['running']} at a time" if counts["running"] else "one at a time, none is running"
        lines.append(f"eta {clock_face(eta)}, {at_once}")
    for job, run in seen:
        of = f"{run.steps:,}/{run.total_steps:,} steps" if run.total_steps else ""
        earned = "" if run.final_return is None else f"  return {shown(run.final_return)}"
        lines.append(f"  {run.state:<12}{plan.label(job):<40} {of}{earned}")
    return [*lines, *_best(folder, plan, seen), *_failed(plan, seen)]


def closing(folder: Path, plan: Plan) -> tuple[list[str], list[str]]:
    """Return the lines printed at the end of a sweep, and the lines of its error, empty if no run failed."""
    from pgx.sweeps.progress import look
    from pgx.sweeps.vetting import resume_command

    seen = [(job, look(job.run_dir)) for job in plan.jobs]
    counts = Counter(run.state for _, run in seen)
    lines = [f"sweep {folder}: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))]
    lines += _best(folder, plan, seen)
    if set(counts) & {"waiting", "running", "interrupted"}:
        lines.append(f"  resume       {resume_command(folder, plan)}")
    return lines, _failed(plan, seen)


def _failed(plan: Plan, seen: list[tuple[Job, Progress]]) -> list[str]:
    failed = [(job, run) for job, run in seen if run.state == "failed"]
    if not failed:
        return []
    lines = [f"{len(failed)} of {len(seen)} runs failed"]
    for job, run in failed:
        lines.append(f"{plan.label(job)}: {'; '.join((run.error or 'no error message').splitlines())}")
        lines.append(f"  repeat: {_command(job)}")
    return lines


def _best(folder: Path, plan: Plan, seen: list[tuple[Job, Progress]]) -> list[str]:
    """Return lines on the run with the highest final return per environment, or on the best trial of a search."""
    from pgx.sweeps.search import STUDY

    if plan.search:
        return _found(folder, plan) if (folder / STUDY).is_file() else []
    lines = []
    for env in dict.fromkeys(run.env for _, run in seen):
        ended = [(job, run) for job, run in seen if run.env == env and run.final_return is not None]
        if ended:
            job, run = max(ended, key=lambda pair: pair[1].final_return or 0.0)
            lines.append(
                f"best on {env}: return {shown(run.final_return or 0.0)}, {plan.label(job)}, {job.run_dir}"
            )
    return lines


def _found(folder: Path, plan: Plan) -> list[str]:
    from pgx.sweeps.search import importances, open_study, trial_noted

    assert plan.search is not None
    if problem := import_problem("optuna"):
        return [f"best trial: unknown: {problem}"]
    study = open_study(folder, plan.search)
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.value is not None and trial.state.name == "COMPLETE"
    ]
    if not complete:
        return ["no trial has finished"]
    best = study.best_trial
    assert best.value is not None
    (job,) = [job for job in plan.jobs if (n := trial_noted(job.run_dir)) and n["number"] == best.number]
    lines = [
        f"best {plan.search.objective}: {shown(best.value)}, {plan.label(job)}",
        f"  repeat       {_command(job)}",
    ]
    if shares := importances(study):
        lines.append("importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    return lines


def _command(job: Job) -> str:
    """Return the command that repeats one job; for a trial, with its sampled values."""
    from pgx.config.stored import command
    from pgx.sweeps.search import trial_noted

    noted = trial_noted(job.run_dir)
    return command("train", *noted["overrides"]) if noted else job.command
