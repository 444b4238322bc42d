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
from pgx.core.text import override, shown
from pgx.runs.lock import holder

if TYPE_CHECKING:
    from pgx.analysis.curves import RecordedCurves
    from pgx.analysis.detectors import Ending
    from pgx.analysis.doctor import Diagnosis, Found


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
    from pgx.analysis.doctor import examine
    from pgx.runs.loggers.jsonl import finite

    run = load(folder)
    diagnosis = examine(run)
    if as_json:
        print(json.dumps(finite(_record(folder, run, diagnosis)), indent=2, allow_nan=False))
    else:
        for line in _report(folder, run, diagnosis):
            print(line)
    return RunError.exit_code if diagnosis.sick else 0


def load(folder: Path) -> RecordedCurves:
    """Read a run's metrics, and its config and summary if they exist.

    Raises:
        UserError: the folder has no metrics, or its config cannot be read.
    """
    from omegaconf import OmegaConf

    from pgx.analysis.curves import RecordedCurves
    from pgx.cli.run_folder import read_run_config
    from pgx.config.stored import CONFIG
    from pgx.runs.loggers.jsonl import METRICS, read
    from pgx.runs.writer import read_summary

    summary = read_summary(folder)
    if not (folder / METRICS).is_file() and not summary:
        raise UserError(f"{folder}: not a run folder (it has no {METRICS})")
    config: Mapping[str, Any] = {}
    if (folder / CONFIG).is_file():
        config = cast(Mapping[str, Any], OmegaConf.to_container(read_run_config(folder), resolve=False))
    return RecordedCurves(read(folder / METRICS), config, summary, holder(folder) is not None)


def _report(folder: Path, run: RecordedCurves, diagnosis: Diagnosis) -> list[str]:
    from pgx.config.stored import CONFIG
    from pgx.runs.loggers.jsonl import METRICS

    lines = [f"{folder}: {_headline(run)}", *_ended(diagnosis.ending, folder, run)]
    causes = [found for found in diagnosis.found if found.follows_from is None]
    until = " before the end" if diagnosis.ending else ""
    if not causes and diagnosis.too_short:
        return [
            *lines,
            f"too short to diagnose: {_updates(run.looks())} with health metrics, and 5 are needed",
        ]
    if not causes and diagnosis.ending and diagnosis.ending.bad:
        lines.append(f"no problem found in the metrics{until}")
    elif not causes:
        lines.append(f"healthy{until}: no problem found")
    for found in causes:
        lines += _problem_lines(found, run)
        after = [f for f in diagnosis.found if f.follows_from == found.sickness.name]
        if after:
            lines += _wrapped("Consequences", "; ".join(f"{f.sickness.name} ({_evidence(f)})" for f in after))
    if diagnosis.untold:
        missing = sorted({name for names in diagnosis.untold.values() for name in names})
        lines += _wrapped(
            "Not checked", f"{', '.join(diagnosis.untold)}: {METRICS} has no {', '.join(missing)}", indent=0
        )
    if not run.config:
        lines += _wrapped(
            "Not checked", f"problems that depend on config values: {CONFIG} is missing", indent=0
        )
    if causes:
        lines += _wrapped("See", f"{_PAGE} for all problems and bounds; {_page(run)}", indent=0)
    return lines


def _ended(ending: Ending | None, folder: Path, run: RecordedCurves) -> list[str]:
    """Return lines that describe how a run ended; none for a finished run."""
    from pgx.config.stored import command
    from pgx.sweeps.progress import resumable

    if ending is None:
        return []
    lines = _wrapped(ending.state, f"at {ending.steps:,} steps: {ending.cause}", indent=0)
    if ending.of_numbers or ending.state == "pruned":
        return lines
    if ending.state == "failed" and run.value("env.id"):
        lines.append("  Check the environment: " + command("check", *_environment(run)))
    if resumable(folder):
        lines.append("  Resume: " + command("train", "--resume", folder, of=folder))
    return lines


def _environment(run: RecordedCurves) -> list[str]:
    """Return the overrides that select a run's environment and its keyword arguments."""
    kwargs = run.value("env.kwargs") or {}
    given = [override(f"env.kwargs.{name}", value) for name, value in kwargs.items()]
    return [override("env", run.value("env.id")), *given]


def _updates(count: int) -> str:
    return f"{count} logged update{'s' * (count != 1)}"


def _headline(run: RecordedCurves) -> str:
    """Return the run's label, environment, progress and returns."""
    run_name = f"{run.value('label') or 'a run'} on {run.value('env.id') or 'an unknown environment'}"
    steps, every = int(run.rows[-1]["step"]) if run.rows else 0, run.number("logger.every") or 1
    updates = _updates(run.looks()) + (f" (one in {every:g})" if every > 1 else "")
    recent = run.curve("episode_return_recent").values
    returns = f"return {shown(recent[0])} to {shown(recent[-1])}" if len(recent) else "no episode has ended"
    return f"{run_name}, {steps:,} steps, {updates}, {returns}"


def _problem_lines(found: Found, run: RecordedCurves) -> list[str]:
    """Return the lines of a problem: name, criterion, evidence, and what to try."""
    from pgx.analysis.doctor import advice

    sickness = found.sickness
    sign = sickness.sign.replace("{}", f"{sickness.bound:g}")
    return [
        f"Problem: {sickness.name}",
        *_wrapped("Criterion", sign.replace("`", "")),
        *_wrapped("Evidence", _evidence(found)),
        *_wrapped("Try", "; ".join(advice(sickness, run))),
    ]


def _evidence(found: Found) -> str:
    from pgx.runs.metrics import tag

    seen = found.evidence
    when = f"at {seen.first:,}" if seen.first == seen.last else f"from {seen.first:,} to {seen.last:,}"
    text = f"{tag(seen.key)} {seen.value:.3g} {when} steps, {100 * seen.share:.0f}% of the run"
    return ", ".join([text, *seen.said])


def _page(run: RecordedCurves) -> str:
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


def _record(folder: Path, run: RecordedCurves, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as a JSON record."""
    from pgx.analysis.doctor import advice
    from pgx.runs.metrics import tag

    return {
        "run": str(folder),
        "rule": run.value("algo.name"),
        "env": run.value("env.id"),
        "steps": int(run.rows[-1]["step"]) if run.rows else 0,
        "looks": run.looks(),
        "ended": None
        if diagnosis.ending is None
        else {
            "state": diagnosis.ending.state,
            "steps": diagnosis.ending.steps,
            "cause": diagnosis.ending.cause,
        },
        "healthy": False if diagnosis.sick else None if diagnosis.too_short else True,
        "sick": [
            {
                "name": found.sickness.name,
                "follows_from": found.follows_from,
                "metric": tag(found.evidence.key),
                "first_step": found.evidence.first,
                "last_step": found.evidence.last,
                "value": found.evidence.value,
                "share": found.evidence.share,
                "said": list(found.evidence.said),
                "sign": found.sickness.sign.replace("{}", f"{found.sickness.bound:g}"),
                "bound": found.sickness.bound,
                "source": found.sickness.source,
                "turn": advice(found.sickness, run),
            }
            for found in diagnosis.found
        ],
        "not_told": {name: list(tags) for name, tags in diagnosis.untold.items()},
    }
