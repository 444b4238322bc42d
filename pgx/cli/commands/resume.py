"""`pgx train --resume`: a run goes on from a checkpoint, with what may change of its config."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from pgx.cli.commands.one_run import last_state, load_config
from pgx.cli.commands.run import Lead
from pgx.config.changes import Change, applied, changes, rate_changes
from pgx.config.check import check_ranks, validate
from pgx.config.overrides import named_imports, parse
from pgx.config.run_config import RunConfig, with_values
from pgx.config.stored import CONFIG, imports_of, joins_of, refuse_untrusted
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.core.schema import nearest
from pgx.core.stopping import QuietInterrupt
from pgx.runs.checkpoints import LAST, Checkpoints
from pgx.runs.lock import hold
from pgx.sweeps.progress import clear, look

FLAGS = ("--resume", "--checkpoint", "--trust")


@dataclass(frozen=True)
class Asked:
    """What a command line says about a run to go on with."""

    run_dir: Path
    checkpoint: str
    trust: bool
    overrides: list[str]


def resume(arguments: list[str], lead: Lead) -> int:
    """Go on with a run from a checkpoint of its own; returns the exit code."""
    asked = read_arguments(arguments)
    config, made = _changed(asked)
    check_ranks(config, lead.ranks.size)
    state = last_state(asked.run_dir, asked.checkpoint)
    if state is None:
        return _again(asked.run_dir, config, lead)
    if config.trainer.compile == "auto" and lead.ranks.size == 1:
        # A longer run, or another machine, may decide otherwise.
        config = with_values(config, {"trainer.compile": state["compiled"]})
    steps: int = state["counters"]["steps"]
    if steps >= config.trainer.total_steps and look(asked.run_dir).state == "finished":
        print(
            f"{asked.run_dir} is finished: {steps:,} of {config.trainer.total_steps:,} steps; "
            "a larger trainer.total_steps=... extends it"
        )
        return 0
    for change in made:
        print(f"changed {change}")
    for line in rate_changes(config, made, steps):
        print(line)
    if asked.checkpoint != LAST:
        with hold(asked.run_dir):
            Checkpoints(asked.run_dir).go_back(asked.checkpoint)
    return _run(config, state, lead)


def _again(run_dir: Path, config: RunConfig, lead: Lead) -> int:
    """Begin anew a run that died before its first checkpoint."""
    with hold(run_dir):
        clear(run_dir)
    print(f"{run_dir}: it ended before its first checkpoint, and begins again")
    return _run(config, None, lead)


def _run(config: RunConfig, state: State | None, lead: Lead) -> int:
    summary = lead.run(config, state)
    if summary["status"] == "interrupted":
        raise QuietInterrupt
    return 0


def read_arguments(arguments: list[str]) -> Asked:
    """The command line of a resumed run.

    Raises:
        UserError: a flag is unknown, or its value is missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--checkpoint", default=LAST)
    parser.add_argument("--trust", action="store_true")
    try:
        said, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flag = error.argument_name or ""
        meant = {
            "--resume": "the folder of a run, e.g. pgx train --resume outputs/...",
            "--checkpoint": "its name",
        }
        raise UserError(f"{flag}: expected {meant.get(flag, 'no value')}") from None
    if wrong := [text for text in rest if text.startswith("-")]:
        raise UserError(
            *(
                f"{text}: unknown flag{nearest(text, FLAGS)} (a resumed run takes {', '.join(FLAGS)})"
                for text in wrong
            )
        )
    return Asked(said.resume, said.checkpoint, said.trust, rest)


def _changed(asked: Asked) -> tuple[RunConfig, tuple[Change, ...]]:
    """The run's config with what is changed of it, sound, and its changes.

    Raises:
        UserError: every change that may not be, every value that is wrong, and what a stranger's file would import.
    """
    stored, overrides = load_config(asked.run_dir), parse(asked.overrides)
    wanted = changes(stored, overrides)
    cfg = applied(stored, wanted.made)
    named = {override.key_or_group: override.value() for override in overrides}
    source = asked.run_dir / CONFIG
    own = [*map(str, named.values()), *named_imports(asked.overrides)]
    theirs = imports_of(cfg, source, own)
    if "runner.address" not in named:
        theirs += joins_of(cfg, source)
    refuse_untrusted(theirs, asked.trust)
    cfg.run_dir = str(asked.run_dir)
    try:
        config = validate(cfg, [change.key for change in wanted.made])
    except UserError as error:
        raise UserError(*wanted.refused, *error.problems) from error
    if wanted.refused:
        raise UserError(*wanted.refused)
    return config, wanted.made
