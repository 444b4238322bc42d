"""`pgx sweep`: show or resume a sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from pgx.cli.arguments import Command, add_trust
from pgx.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=["status", "resume"], help="status: show the jobs; resume: run the unfinished ones"
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the sweep, e.g. outputs/sweeps/2026-...")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="with resume: another launcher, e.g. hydra/launcher=ray",
    )
    add_trust(parser, "the sweep's files")


def run(options: argparse.Namespace) -> int:
    if options.action == "resume":
        from pgx.cli.sweep_jobs import resume_sweep

        return resume_sweep(Path(options.folder), options.overrides, options.trust)
    if options.trust:
        raise UserError("--trust: is unused with pgx sweep status, which imports nothing; remove it")
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: is unused with pgx sweep status; remove it")
    return status(Path(options.folder))


COMMAND = Command(
    "sweep",
    "show or resume the runs of pgx train -m: pgx sweep status DIR, pgx sweep resume DIR",
    "Show the progress of a sweep, or run its unfinished jobs (docs/sweeps.md).",
    add_arguments,
    run,
)


def status(folder: Path) -> int:
    """Print the progress of a sweep from its files; return the exit code."""
    from pgx.sweeps.plan import read_plan
    from pgx.sweeps.report import status_lines

    plan = read_plan(folder)
    print("\n".join(status_lines(folder, plan)))
    return 0
