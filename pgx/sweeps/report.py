"""Text about a sweep for users: its progress, its result, and the commands to continue it."""

from collections import Counter
from pathlib import Path

from pgx.config.stored import pgx_command
from pgx.core.imports import import_problem
from pgx.core.text import format_number
from pgx.runs.loggers.console import format_seconds
from pgx.sweeps.plan import Job, Plan
from pgx.sweeps.progress import Progress, read_progress, seconds_left
from pgx.sweeps.search import STUDY_FILE, importances, open_study, read_trial
from pgx.sweeps.trust import resume_command


def status_lines(folder: Path, plan: Plan) -> list[str]:
    """Return the lines of `pgx sweep status`: counts, ETA, each job, the best runs and the failures."""
    seen = [(job, read_progress(job.run_dir)) for job in plan.jobs]
    counts = Counter(run.state for _, run in seen)
    lines = [
        f"{folder}: {len(seen)} jobs: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    ]
    eta = seconds_left([run for _, run in seen], max(1, counts["running"]))
    if eta:
        at_once = f"{counts['running']} at a time" if counts["running"] else "one at a time, none is running"
        lines.append(f"eta {format_seconds(eta)}, {at_once}")
    for job, run in seen:
        of = f"{run.steps:,}/{run.total_steps:,} steps" if run.total_steps else ""
        earned = "" if run.final_return is None else f"  return {format_number(run.final_return)}"
        lines.append(f"  {run.state:<12}{plan.label(job):<40} {of}{earned}")
    return [*lines, *_best(folder, plan, seen), *_failed(plan, seen)]


def result_lines(folder: Path, plan: Plan) -> tuple[list[str], list[str]]:
    """Return the lines printed at the end of a sweep, and the lines of its error, empty if no run failed."""
    seen = [(job, read_progress(job.run_dir)) for job in plan.jobs]
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
    if plan.search:
        return _found(folder, plan) if (folder / STUDY_FILE).is_file() else []
    lines = []
    for env in dict.fromkeys(run.env for _, run in seen):
        ended = [(job, run) for job, run in seen if run.env == env and run.final_return is not None]
        if ended:
            job, run = max(ended, key=lambda pair: pair[1].final_return or 0.0)
            lines.append(
                f"best on {env}: return {format_number(run.final_return or 0.0)}, {plan.label(job)}, {job.run_dir}"
            )
    return lines


def _found(folder: Path, plan: Plan) -> list[str]:
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
    (job,) = [job for job in plan.jobs if (n := read_trial(job.run_dir)) and n["number"] == best.number]
    lines = [
        f"best {plan.search.objective}: {format_number(best.value)}, {plan.label(job)}",
        f"  repeat       {_command(job)}",
    ]
    if fractions := importances(study):
        lines.append(
            "importance: " + ", ".join(f"{key} {fraction:.0%}" for key, fraction in fractions.items())
        )
    return lines


def _command(job: Job) -> str:
    """Return the command that repeats one job; for a trial, with its sampled values."""
    noted = read_trial(job.run_dir)
    return pgx_command("train", *noted["overrides"]) if noted else job.command
