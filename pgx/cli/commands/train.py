"""`pgx train`: Hydra composes, pgx checks everything, then trains."""

import argparse
import shlex
import shutil
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from pgx.cli.commands.one_run import claim, forget_empty_above, ready, refuse_taken
from pgx.cli.commands.resume import FLAGS as OF_A_RESUMED_RUN
from pgx.cli.commands.resume import resume
from pgx.cli.commands.run import Lead, follow, report_first_error
from pgx.cli.commands.sweep import start as start_sweep
from pgx.cli.commands.through_hydra import hand_over, start
from pgx.config.check import check_ranks
from pgx.config.compose import composed
from pgx.config.help import help_page
from pgx.config.overrides import jobs, parse, prepare
from pgx.config.run_config import RunConfig, with_values
from pgx.config.suggestions import ALIASES, is_known, is_text, quoted
from pgx.core.errors import UserError
from pgx.core.paths import groups
from pgx.core.schema import nearest
from pgx.core.stopping import QuietInterrupt
from pgx.distributed.torchrun import join
from pgx.sweeps.plan import key_of

# Hydra's flags but for those that read another config, which pgx would not have checked, or a pickled one.
FLAGS = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"}
FLAGS |= {"--multirun", "-m", "--info", "-i", "--shell-completion", "-sc"}
_WITHOUT_A_RUN = {"hydra_help", "cfg", "info", "shell_completion"}  # Hydra's flags that only print


def train(arguments: list[str]) -> int:
    """Train from overrides, or go on with a run, alone or as one of several ranks; returns the exit code."""
    ranks = join()
    if ranks.rank > 0:
        return report_first_error(ranks, partial(follow, ranks))
    lead = Lead(ranks)
    return report_first_error(ranks, partial(lead.until_done, partial(_train, arguments, lead)))


def _train(arguments: list[str], lead: Lead) -> int:
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        return resume(arguments, lead)
    options, overrides = _options(arguments)
    flags, prepared = [a for a in arguments if a not in overrides], prepare(overrides)
    if options.help:
        print(help_page(composed(overrides).config), end="")
        return 0
    if _WITHOUT_A_RUN & {name for name, value in vars(options).items() if value}:
        hand_over([*flags, *prepared], _nothing)
        return 0
    sweep = jobs(prepared)
    if options.multirun:
        if lead.ranks.size > 1:
            raise UserError(
                "-m: torchrun's ranks train one run together; start torchrun once for each run of a sweep"
            )
        return start_sweep([flag for flag in flags if flag not in ("-m", "--multirun")], overrides)
    if len(sweep) > 1:
        raise UserError(*_several(overrides))
    (only,) = sweep
    made, config = ready(only)
    check_ranks(config, lead.ranks.size)
    if "sweep" in config.values:
        raise UserError("sweep=...: a search runs many trials: add -m")
    named = "run_dir" in map(key_of, overrides)
    if named:
        refuse_taken(Path(config.run_dir))
    else:
        run_dir = claim(Path(config.run_dir))
        config = with_values(config, {"run_dir": str(run_dir)})
        made.config.run_dir = str(run_dir)
        made.hydra.overrides.task.append(f"run_dir={quoted(str(run_dir))}")
    failures: list[Exception] = []
    try:
        start(made, partial(_run, lead, failures, config))
    except UserError:
        if not named:
            _forget_empty(Path(config.run_dir))
        raise
    if failures:
        raise failures[0]
    return 0


def _several(overrides: list[str]) -> list[str]:
    """A line for each override with several values, with what to type."""
    lines = []
    for override in parse(overrides):
        if override.is_sweep_override():
            line = override.input_line or ""
            key, _, value = line.partition("=")
            text = f"; for one text: {shlex.quote(f'{key}={quoted(value)}')}" if is_text(key) else ""
            lines.append(
                f"{line}: several values; to train one run of each: pgx train -m {shlex.quote(line)}{text}"
            )
    return lines


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's flags, and the overrides between them."""
    parser = get_args_parser()
    for argument in arguments:
        flag = argument.split("=")[0]
        if flag in OF_A_RESUMED_RUN:
            raise UserError(f"{argument}: goes with --resume RUN")
        if argument.startswith("-") and flag not in FLAGS:
            key = flag.lstrip("-").replace("-", "_")
            hint = nearest(argument, (*FLAGS, *OF_A_RESUMED_RUN))
            if key in ALIASES or key in groups() or is_known(key):
                hint = f"; pgx takes key=value: {ALIASES.get(key, (key,))[0]}=..."
            raise UserError(f"{argument}: unknown flag{hint} (pgx train --help)")
    try:
        with redirect_stderr(StringIO()):  # argparse's usage, which is Hydra's
            options, overrides = parser.parse_known_args(arguments)
    except SystemExit:
        raise UserError(
            f"{' '.join(arguments)}: a flag's value is missing or not one of its choices"
        ) from None
    if (options.resolve or options.package) and not (options.cfg or options.help):
        raise UserError(f"{'--resolve' if options.resolve else '--package'}: goes with --cfg")
    return options, [*options.overrides, *overrides]


def _nothing(cfg: DictConfig) -> None:
    """What Hydra has to run where it only prints."""


def _run(lead: Lead, failures: list[Exception], config: RunConfig, cfg: DictConfig) -> None:
    """Train; append what the run raises to `failures`. `cfg` is the form in which Hydra passes the config."""
    try:
        summary = lead.run(config, None)
    except Exception as error:
        _forget_empty(Path(config.run_dir))
        failures.append(error)
        return
    if summary["status"] == "interrupted":
        raise QuietInterrupt


def _forget_empty(run_dir: Path) -> None:
    """Remove the folder of a run that could not begin, which Hydra made to note what was asked for.

    With it go the folders above it that a relative run_dir names, as far as nothing else is in them.
    """
    if not {path.name for path in run_dir.iterdir()} <= {".hydra"}:
        return
    shutil.rmtree(run_dir)
    forget_empty_above(run_dir)
