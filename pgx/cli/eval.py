"""`pgx eval`: evaluate trained runs on whole episodes, with frozen normalizers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import Command, add_checkpoint, add_max_steps, add_sampling, count, split_overrides
from pgx.core.errors import UserError
from pgx.core.text import format_number

if TYPE_CHECKING:
    from pgx.api.evaluation import Evaluation, Mode
    from pgx.config.run_config import RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="RUN",
        nargs="+",
        help="folders of runs, e.g. outputs/Walker2d-v4/trpo/2026-..., and overrides KEY=VALUE of how their "
        "environments run, e.g. env.backend=gymnasium",
    )
    parser.add_argument(
        "--episodes",
        metavar="N",
        type=count,
        help="number of episodes (default: the run's trainer.eval_episodes)",
    )
    add_max_steps(parser)
    how = parser.add_mutually_exclusive_group()
    add_sampling(how)
    how.add_argument(
        "--both",
        action="store_true",
        help="evaluate with most likely and with sampled actions, from the same seeds",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON record per run and mode, with every return"
    )
    add_checkpoint(parser, "the environments and action sampling")


def run(options: argparse.Namespace) -> int:
    modes: list[Mode] = ["stochastic"] if options.stochastic else ["deterministic"]
    if options.both:
        modes = ["deterministic", "stochastic"]
    runs, overrides = split_overrides(options.words)
    return evaluate(
        runs,
        overrides,
        options.checkpoint,
        options.episodes,
        options.max_steps,
        modes,
        options.seed,
        options.trust,
        options.json,
    )


COMMAND = Command(
    "eval",
    "evaluate trained runs on whole episodes",
    "Evaluate trained runs on whole episodes, with frozen normalizers. Overrides may follow the folders: "
    "pgx eval RUN env.backend=gymnasium.",
    add_arguments,
    run,
)


EvalRecord = dict[str, Any]  # of one run in one mode, as printed by --json


def evaluate(
    runs: Sequence[str],
    overrides: Sequence[str],
    checkpoint: str,
    episodes: int | None,
    max_steps: int | None,
    modes: Sequence[Mode],
    seed: int,
    trust: bool,
    as_json: bool,
) -> int:
    """Evaluate runs and print the results; return the exit code.

    Args:
        runs: folders of the runs.
        overrides: of keys that may differ from the runs' configs (pgx/config/changes.py).
        checkpoint: of each run.
        episodes: per run and mode; None: the run's trainer.eval_episodes.
        max_steps: per episode; None: the run's trainer.eval_max_steps.
        modes: how actions are chosen: the most likely one or sampled.
        seed: of the environments and action sampling.
        trust: the user allows the imports that the runs' configs name.
        as_json: print JSON records instead of text.
    """
    from pgx.config.run_config import with_values
    from pgx.runs.loggers.jsonl import encode_nonfinite

    records: list[EvalRecord] = []
    for run, config in zip(runs, _configs(runs, overrides, trust), strict=True):
        if max_steps is not None:
            config = with_values(config, {"trainer.eval_max_steps": max_steps})
        for record in _evaluate_run(run, config, checkpoint, episodes, modes, seed):
            records.append(record)
            if not as_json:
                _print_record(record)
    if as_json:
        print(json.dumps([encode_nonfinite(record) for record in records], indent=2, allow_nan=False))
    return 0


def _configs(runs: Sequence[str], overrides: Sequence[str], trust: bool) -> list[RunConfig]:
    """Read the configs of all runs.

    Raises:
        UserError: one or more configs are invalid; the message has the problems of all.
    """
    from pgx.api.run_folder import load_trusted_config

    configs, problems = [], list[str]()
    for run in runs:
        try:
            configs.append(load_trusted_config(Path(run), trust, overrides))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return configs


def _evaluate_run(
    run: str, config: RunConfig, checkpoint: str, episodes: int | None, modes: Sequence[Mode], seed: int
) -> list[EvalRecord]:
    """Evaluate a run in each mode, from the same seeds; return one record per mode."""
    from pgx.api.evaluation import evaluate_agent
    from pgx.runs.checkpoints import Checkpoints
    from pgx.training.build import load_agent
    from pgx.training.evaluation import show_progress

    count = episodes or config.trainer.eval_episodes
    agent, envs = load_agent(config, Checkpoints(Path(run)).load(checkpoint), max_envs=count)
    records = []
    try:
        for mode in modes:
            with show_progress(count) as on_step:
                found = evaluate_agent(config, agent, envs, count, mode, seed, on_step)
            speed = f"{found.steps_per_second:,.0f} steps/s"
            print(f"{run}: {len(found.returns)} {mode} episodes, {speed}", file=sys.stderr)
            records.append({"run": run, "checkpoint": checkpoint, **_record(found)})
    finally:
        envs.close()
    return records


def _record(found: Evaluation) -> EvalRecord:
    """Return an evaluation as plain data."""
    unshaped = found.unshaped_returns
    return {
        "env": found.env,
        "backend": found.backend,
        "mode": found.mode,
        "seed": found.seed,
        "episodes": len(found.returns),
        "mean": found.mean,
        "mean_interval": found.mean_interval,
        "iqm": found.iqm,
        "iqm_interval": found.iqm_interval,
        "std": found.std,
        "unshaped_mean": found.unshaped_mean,
        "unshaped_mean_interval": found.unshaped_mean_interval,
        "success_rate": found.success_rate,
        "mean_length": float(found.lengths.mean()),
        "returns": found.returns.tolist(),
        "unshaped_returns": None if unshaped is None else unshaped.tolist(),
        "lengths": found.lengths.tolist(),
        "successes": list(found.successes),
        "cut": list(found.cut),
    }


def _print_record(record: EvalRecord) -> None:
    """Print a record as text."""
    returns, lengths = record["returns"], record["lengths"]
    print(
        f"{record['run']}, checkpoint {record['checkpoint']}: {record['episodes']} {record['mode']} episodes "
        f"on {record['env']} ({record['backend']})"
    )
    print(
        f"  return  {format_number(record['mean'])} +- {format_number(record['std'])}   "
        f"min {format_number(min(returns))}  max {format_number(max(returns))}"
    )
    print(f"  mean    {format_number(record['mean'])}{_bounds(record['mean_interval'])}")
    print(f"  IQM     {format_number(record['iqm'])}{_bounds(record['iqm_interval'])}")
    if record["unshaped_mean"] is not None:
        own = f"{format_number(record['unshaped_mean'])}{_bounds(record['unshaped_mean_interval'])}"
        print(f"  mean in the environment's own reward  {own}")
    if record["success_rate"] is not None:
        print(f"  success {record['success_rate']:.1%}")
    print(f"  length  {record['mean_length']:,.1f}   min {min(lengths)}  max {max(lengths)}")
    if cut := sum(record["cut"]):
        print(
            f"  cut     {cut} of {len(lengths)} episodes were cut after {max(lengths):,} steps (--max-steps)"
        )


def _bounds(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"   95% interval {format_number(ends[0])} to {format_number(ends[1])}"
