"""Verbs that look at many runs: sweep, compare, runs, tensorboard."""

import argparse
from pathlib import Path

from pgx.cli.verbs.verb import Verb, count, take_trust
from pgx.core.errors import UserError


def _take_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=["status", "resume"], help="show its jobs, or run what is left of them"
    )
    parser.add_argument("folder", metavar="DIR", help="the sweep's folder, e.g. outputs/sweeps/2026-...")
    parser.add_argument("overrides", nargs="*", help="for resume: another launcher, e.g. hydra/launcher=ray")
    take_trust(parser, "the sweep's files")


def _sweep(options: argparse.Namespace) -> int:
    from pgx.cli.commands.sweep import resume, status

    if options.action == "resume":
        return resume(Path(options.folder), options.overrides, options.trust)
    if options.trust:
        raise UserError("--trust: pgx sweep status reads the sweep's files and imports nothing")
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: pgx sweep status takes a folder alone")
    return status(Path(options.folder))


def _take_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "places",
        nargs="+",
        metavar="DIR",
        help="runs are looked for below; DIR:env=...,algo=... names those of others",
    )
    parser.add_argument(
        "--by", default="algo", metavar="KEYS", help="what makes a group, e.g. algo,algo.max_kl (algo)"
    )
    parser.add_argument("--metric", metavar="TAG", help="what is compared (rollout/episode_return_recent)")
    parser.add_argument(
        "--at", type=count, metavar="STEP", help="where scores are taken (the last step that all runs share)"
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="scores that are 0 and 1 of each environment (lowest, highest of the runs)",
    )
    parser.add_argument("--resamples", type=count, default=2000, help="of the bootstrap (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    parser.add_argument("--out", metavar="FOLDER", help="write a page, figures, CSV, JSON and Markdown there")


def _compare(options: argparse.Namespace) -> int:
    from pgx.cli.commands.compare import compare_runs

    return compare_runs(
        options.places,
        options.by,
        options.metric,
        options.at,
        options.reference,
        options.resamples,
        options.seed,
        options.out,
    )


def _take_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="outputs", metavar="DIR", help="where to look (outputs)")
    parser.add_argument("--watch", action="store_true", help="again every few seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="as JSON, a list a look")


def _runs(options: argparse.Namespace) -> int:
    from pgx.cli.commands.runs import runs

    return runs(Path(options.folder), options.watch, options.json)


def _take_tensorboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", default="outputs", help="with runs in it (outputs)"
    )
    parser.add_argument(
        "--port", type=int, help="0: any that is free (6006, or one of the next that is free)"
    )
    parser.add_argument(
        "--host", default="localhost", help="the address that it listens on; 0.0.0.0: all (localhost)"
    )


def _tensorboard(options: argparse.Namespace) -> int:
    from pgx.cli.commands.tensorboard import show

    return show(options.folder, options.port, options.host)


SWEEP = Verb(
    "sweep",
    "the runs of pgx train -m: sweep status DIR shows them, sweep resume DIR goes on with what is left",
    "See and resume a sweep (docs/sweeps.md).",
    _take_sweep,
    _sweep,
)
COMPARE = Verb(
    "compare",
    "groups of runs side by side, over seeds: scores with intervals, curves, costs, health",
    "Compare groups of runs over seeds (docs/compare.md).",
    _take_compare,
    _compare,
)
RUNS = Verb(
    "runs",
    "list runs: state, steps, return, speed; --watch goes on",
    "List the runs below a folder.",
    _take_runs,
    _runs,
)
TENSORBOARD = Verb(
    "tensorboard",
    "look at runs in the browser, under readable names",
    "Look at runs in the browser (docs/show.md).",
    _take_tensorboard,
    _tensorboard,
)
