"""`pgx doctor`: diagnose a run from its health metrics."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pgx.cli.arguments import Command, add_run
from pgx.core.errors import RunError, UserError
from pgx.core.text import format_number, override
from pgx.runs.lock import holder

if TYPE_CHECKING:
    from pgx.analysis.curves import DiagnosedRun
    from pgx.analysis.detectors import RunEnd
    from pgx.analysis.doctor import Diagnosis, Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    return doctor(Path(options.run), options.json)


COMMAND = Command(
    "doctor",
    "diagnose a run: what went wrong, when, and which config key to change",
    "Diagnose a run from its health metrics: problems, their evidence, and what to try (docs/doctor.md).",
    add_arguments,
    run,
)


_PAGE = "docs/doctor.md"
_MAX_COLUMNS = 110


def doctor(folder: Path, as_json: bool) -> int:
    """Print a diagnosis; return 0, or 1 if a problem was found or the run failed.

    Raises:
        UserError: the folder has no metrics, or its config cannot be read.
    """
    from pgx.analysis.doctor import diagnose
    from pgx.runs.loggers.jsonl import encode_nonfinite

    run = read_diagnosed(folder)
    diagnosis = diagnose(run)
    if as_json:
        print(json.dumps(encode_nonfinite(_record(folder, run, diagnosis)), indent=2, allow_nan=False))
    else:
        for line in _report(folder, run, diagnosis):
            print(line)
    return RunError.exit_code if diagnosis.has_problem else 0


def read_diagnosed(folder: Path) -> DiagnosedRun:
    """Read a run's metrics, and its config and summary if they exist.

    Raises:
        UserError: the folder has no metrics, or its config cannot be read.
    """
    from omegaconf import OmegaConf

    from pgx.analysis.curves import DiagnosedRun
    from pgx.api.run_folder import read_run_config
    from pgx.config.stored import CONFIG
    from pgx.runs.loggers.jsonl import METRICS, read_rows
    from pgx.runs.writer import read_summary

    summary = read_summary(folder)
    if not (folder / METRICS).is_file() and not summary:
        raise UserError(f"{folder}: not a run folder (it has no {METRICS})")
    config: Mapping[str, Any] = {}
    if (folder / CONFIG).is_file():
        config = cast(Mapping[str, Any], OmegaConf.to_container(read_run_config(folder), resolve=False))
    return DiagnosedRun(read_rows(folder / METRICS), config, summary, holder(folder) is not None)


def _report(folder: Path, run: DiagnosedRun, diagnosis: Diagnosis) -> list[str]:
    from pgx.config.stored import CONFIG
    from pgx.runs.loggers.jsonl import METRICS

    lines = [f"{folder}: {_headline(run)}", *_ended(diagnosis.end, folder, run)]
    causes = [found for found in diagnosis.found if found.caused_by is None]
    until = " before the end" if diagnosis.end else ""
    if not causes and diagnosis.too_short:
        return [
            *lines,
            f"too short to diagnose: {_updates(run.logged_updates())} with health metrics, and 5 are needed",
        ]
    if not causes and diagnosis.end and diagnosis.end.is_failure:
        lines.append(f"no problem found in the metrics{until}")
    elif not causes:
        lines.append(f"healthy{until}: no problem found")
    for found in causes:
        lines += _problem_lines(found, run)
        after = [f for f in diagnosis.found if f.caused_by == found.problem.name]
        if after:
            lines += _wrapped("Consequences", "; ".join(f"{f.problem.name} ({_evidence(f)})" for f in after))
    if diagnosis.missing_metrics:
        missing = sorted({name for names in diagnosis.missing_metrics.values() for name in names})
        lines += _wrapped(
            "Not checked",
            f"{', '.join(diagnosis.missing_metrics)}: {METRICS} has no {', '.join(missing)}",
            indent=0,
        )
    if not run.config:
        lines += _wrapped(
            "Not checked", f"problems that depend on config values: {CONFIG} is missing", indent=0
        )
    if causes:
        lines += _wrapped("See", f"{_PAGE} for all problems and bounds; {_page(run)}", indent=0)
    return lines


def _ended(end: RunEnd | None, folder: Path, run: DiagnosedRun) -> list[str]:
    """Return lines that describe how a run ended; none for a finished run."""
    from pgx.config.stored import pgx_command
    from pgx.sweeps.progress import resumable

    if end is None:
        return []
    lines = _wrapped(end.state, f"at {end.steps:,} steps: {end.cause}", indent=0)
    if end.from_update or end.state == "pruned":
        return lines
    if end.state == "failed" and run.value("env.id"):
        lines.append("  Check the environment: " + pgx_command("check", *_environment(run)))
    if resumable(folder):
        lines.append("  Resume: " + pgx_command("train", "--resume", folder, of=folder))
    return lines


def _environment(run: DiagnosedRun) -> list[str]:
    """Return the overrides that select a run's environment and its keyword arguments."""
    kwargs = run.value("env.kwargs") or {}
    given = [override(f"env.kwargs.{name}", value) for name, value in kwargs.items()]
    return [override("env", run.value("env.id")), *given]


def _updates(count: int) -> str:
    return f"{count} logged update{'s' * (count != 1)}"


def _headline(run: DiagnosedRun) -> str:
    """Return the run's label, environment, progress and returns."""
    run_name = f"{run.value('label') or 'a run'} on {run.value('env.id') or 'an unknown environment'}"
    steps, every = int(run.rows[-1]["step"]) if run.rows else 0, run.number("logger.every") or 1
    updates = _updates(run.logged_updates()) + (f" (one in {every:g})" if every > 1 else "")
    recent = run.curve("episode_return_recent").values
    returns = (
        f"return {format_number(recent[0])} to {format_number(recent[-1])}"
        if len(recent)
        else "no episode has ended"
    )
    return f"{run_name}, {steps:,} steps, {updates}, {returns}"


def _problem_lines(found: Finding, run: DiagnosedRun) -> list[str]:
    """Return the lines of a problem: name, criterion, evidence, and what to try."""
    from pgx.analysis.doctor import advice

    problem = found.problem
    criterion = problem.criterion.replace("{}", f"{problem.bound:g}")
    return [
        f"Problem: {problem.name}",
        *_wrapped("Criterion", criterion.replace("`", "")),
        *_wrapped("Evidence", _evidence(found)),
        *_wrapped("Try", "; ".join(advice(problem, run))),
    ]


def _evidence(found: Finding) -> str:
    from pgx.runs.metrics import tag

    seen = found.evidence
    when = f"from {seen.first_step:,} to {seen.last_step:,}"
    if seen.first_step == seen.last_step:
        when = f"at {seen.first_step:,}"
    text = f"{tag(seen.key)} {seen.value:.3g} {when} steps, {100 * seen.fraction:.0f}% of the run"
    return ", ".join([text, *seen.details])


def _page(run: DiagnosedRun) -> str:
    name = run.value("algo.name")
    return f"docs/algorithms/{name}.md, Health" if name else "docs/algorithms"


def _wrapped(heading: str, text: str, indent: int = 2) -> list[str]:
    first = " " * indent + f"{heading}: "
    width = min(_MAX_COLUMNS, _columns())
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns() -> int:
    """Return the columns of the terminal, or WIDTH if output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _MAX_COLUMNS


def _record(folder: Path, run: DiagnosedRun, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as a JSON record."""
    from pgx.analysis.doctor import advice
    from pgx.runs.metrics import tag

    return {
        "run": str(folder),
        "rule": run.value("algo.name"),
        "env": run.value("env.id"),
        "steps": int(run.rows[-1]["step"]) if run.rows else 0,
        "logged_updates": run.logged_updates(),
        "ended": None
        if diagnosis.end is None
        else {
            "state": diagnosis.end.state,
            "steps": diagnosis.end.steps,
            "cause": diagnosis.end.cause,
        },
        "healthy": False if diagnosis.has_problem else None if diagnosis.too_short else True,
        "problems": [
            {
                "name": found.problem.name,
                "caused_by": found.caused_by,
                "metric": tag(found.evidence.key),
                "first_step": found.evidence.first_step,
                "last_step": found.evidence.last_step,
                "value": found.evidence.value,
                "fraction": found.evidence.fraction,
                "details": list(found.evidence.details),
                "criterion": found.problem.criterion.replace("{}", f"{found.problem.bound:g}"),
                "bound": found.problem.bound,
                "source": found.problem.source,
                "advice": advice(found.problem, run),
            }
            for found in diagnosis.found
        ],
        "not_checked": {name: list(tags) for name, tags in diagnosis.missing_metrics.items()},
    }
