"""`pgx train`: train a new run, or resume one with --resume."""

import argparse
import shlex
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pgx.api.run_folder import (
    compose_valid,
    create_unique_folder,
    folder_of,
    forget_empty,
    load_resume_state,
    read_run_config,
    refuse_unusable,
    with_changes,
)
from pgx.cli.launch import RunLauncher, report_first_error, run_hydra, run_rank0, run_worker_rank
from pgx.cli.sweep_jobs import start_sweep
from pgx.config.changes import Change, apply_changes, rate_changes, resume_changes
from pgx.config.compose import compose_with_hydra
from pgx.config.overrides import expand_sweep, named_imports, parse, prepare
from pgx.config.reference import help_page
from pgx.config.run_config import RunConfig, with_values
from pgx.config.stored import CONFIG, cluster_warnings, import_warnings, refuse_untrusted, training_warnings
from pgx.config.suggestions import ALIASES, is_known_key, quoted, takes_text
from pgx.config.validate import check_ranks
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.core.paths import config_groups
from pgx.core.schema import nearest
from pgx.core.stopping import QuietInterrupt
from pgx.distributed.torchrun import join_process_group
from pgx.runs.checkpoints import LAST, Checkpoints
from pgx.runs.lock import lock_run
from pgx.sweeps.plan import key_of
from pgx.sweeps.progress import clear_run, read_progress

# Hydra's flags, except those that read a config from elsewhere, which pgx could not validate.
_HYDRA_FLAGS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--help", "-h"): {"action": "store_true"},
    ("--hydra-help",): {"action": "store_true"},
    ("--cfg", "-c"): {"choices": ("job", "hydra", "all")},
    ("--resolve",): {"action": "store_true"},
    ("--package", "-p"): {},
    ("--run", "-r"): {"action": "store_true"},
    ("--multirun", "-m"): {"action": "store_true"},
    ("--info", "-i"): {
        "nargs": "?",
        "const": "all",
        "choices": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    },
}
_HYDRA_FLAG_NAMES = [name for names in _HYDRA_FLAGS for name in names]
_PRINT_ONLY = {"hydra_help", "cfg", "info"}  # Hydra's flags that start no run


def train_command(arguments: list[str]) -> int:
    """Train or resume a run, as a single process or as one rank of several; return the exit code."""
    ranks = join_process_group()
    if ranks.rank > 0:
        return report_first_error(ranks, partial(run_worker_rank, ranks))
    return report_first_error(ranks, partial(run_rank0, ranks, partial(_train, arguments)))


def _train(arguments: list[str], launcher: RunLauncher) -> int:
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        return resume_run(arguments, launcher)
    options, overrides = _options(arguments)
    flags, prepared = [a for a in arguments if a not in overrides], prepare(overrides)
    if options.help:
        print(help_page(compose_with_hydra(overrides).config), end="")
        return 0
    if _PRINT_ONLY & {name for name, value in vars(options).items() if value}:
        run_hydra([*flags, *prepared], _nothing)
        return 0
    sweep = expand_sweep(prepared)
    if options.multirun:
        if launcher.ranks.size > 1:
            raise UserError(
                "-m: unused with torchrun, whose ranks train one run together; start torchrun once per run"
            )
        return start_sweep([flag for flag in flags if flag not in ("-m", "--multirun")], overrides)
    if len(sweep) > 1:
        raise UserError(*_several_values(overrides))
    (only,) = sweep
    config = compose_valid(only)
    check_ranks(config, launcher.ranks.size)
    if "sweep" in config.values:
        raise UserError("sweep=...: a search runs several trials; add -m")
    run_dir_given = "run_dir" in map(key_of, overrides)
    if run_dir_given:
        refuse_unusable(folder_of(config))
    else:
        run_dir = create_unique_folder(folder_of(config))
        config = with_values(config, {"run_dir": str(run_dir)})
        prepared.append(f"run_dir={quoted(str(run_dir))}")
    failures: list[Exception] = []
    try:
        # Without the mode, hydra.mode=MULTIRUN on the command line would start a sweep.
        run_hydra([*flags, *prepared, "hydra.mode=RUN"], partial(_run, launcher, failures, config))
    except UserError:
        if not run_dir_given:
            forget_empty(folder_of(config))
        raise
    if failures:
        raise failures[0]
    return 0


def _several_values(overrides: list[str]) -> list[str]:
    """Return a line for each override with several values, with the command that trains one run of each."""
    lines = []
    for override in parse(overrides):
        if override.is_sweep_override():
            line = override.input_line or ""
            key, _, value = line.partition("=")
            text = f"; to pass one text: {shlex.quote(f'{key}={quoted(value)}')}" if takes_text(key) else ""
            lines.append(
                f"{line}: has several values; to train one run of each: pgx train -m {shlex.quote(line)}{text}"
            )
    return lines


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse Hydra's flags; return them and the overrides.

    Raises:
        UserError: a flag is unknown, unused, or has a wrong value.
    """
    for argument in arguments:
        flag = argument.split("=")[0]
        if flag in _RESUME_FLAGS:
            raise UserError(f"{argument}: is unused without --resume; add --resume RUN or remove it")
        if argument.startswith("-") and flag not in _HYDRA_FLAG_NAMES:
            key = flag.lstrip("-").replace("-", "_")
            hint = nearest(argument, (*_HYDRA_FLAG_NAMES, *_RESUME_FLAGS))
            if key in ALIASES or key in config_groups() or is_known_key(key):
                hint = f"; use key=value: {ALIASES.get(key, (key,))[0]}=..."
            raise UserError(f"{argument}: unknown flag{hint} (see pgx train --help)")
    parser = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    for names, settings in _HYDRA_FLAGS.items():
        parser.add_argument(*names, **settings)
    try:
        with redirect_stderr(StringIO()):
            options, overrides = parser.parse_known_args(arguments)
    except SystemExit:
        raise UserError(
            f"{' '.join(arguments)}: a flag has no value or an invalid one; see pgx train --help"
        ) from None
    if (options.resolve or options.package) and not (options.cfg or options.help):
        raise UserError(
            f"{'--resolve' if options.resolve else '--package'}: is unused without --cfg; add --cfg job or remove it"
        )
    return options, [*options.overrides, *overrides]


def _nothing(cfg: DictConfig) -> None:
    """Do nothing: Hydra requires a job even when it only prints."""


def _run(launcher: RunLauncher, failures: list[Exception], config: RunConfig, cfg: DictConfig) -> None:
    """Train; append an exception of the run to `failures`, because Hydra would print it.

    Args:
        launcher: of the run.
        failures: list to append to.
        config: of the run.
        cfg: the same config, as Hydra passes it; unused.
    """
    try:
        summary = launcher.run(config, None)
    except Exception as error:
        forget_empty(folder_of(config))
        failures.append(error)
        return
    if summary["status"] == "interrupted":
        raise QuietInterrupt


_RESUME_FLAGS = ("--resume", "--checkpoint", "--trust")


@dataclass(frozen=True)
class _ResumeArguments:
    """Command line of a resumed run."""

    run_dir: Path
    checkpoint: str
    trust: bool
    overrides: list[str]


def resume_run(arguments: list[str], launcher: RunLauncher) -> int:
    """Resume a run from one of its checkpoints; return the exit code."""
    request = _parse_resume(arguments)
    config, applied_changes = _resumed_config(request)
    check_ranks(config, launcher.ranks.size)
    state = load_resume_state(request.run_dir, request.checkpoint)
    if state is None:
        return _restart(request.run_dir, config, launcher)
    if config.trainer.compile == "auto" and launcher.ranks.size == 1:
        # "auto" may decide differently for a longer run or on another machine.
        config = with_values(config, {"trainer.compile": state["compiled"]})
    steps: int = state["counters"]["steps"]
    if steps >= config.trainer.total_steps and read_progress(request.run_dir).state == "finished":
        print(
            f"{request.run_dir} is finished: {steps:,} of {config.trainer.total_steps:,} steps; "
            "to extend it, set a larger trainer.total_steps"
        )
        return 0
    for change in applied_changes:
        print(f"changed {change}")
    for line in rate_changes(config, applied_changes, steps):
        print(line)
    if request.checkpoint != LAST:
        with lock_run(request.run_dir):
            Checkpoints(request.run_dir).rewind(request.checkpoint)
    return _train_resumed(config, state, launcher)


def _restart(run_dir: Path, config: RunConfig, launcher: RunLauncher) -> int:
    """Restart a run that ended before its first checkpoint."""
    with lock_run(run_dir):
        clear_run(run_dir)
    print(f"{run_dir}: has no checkpoint; restarting from step 0")
    return _train_resumed(config, None, launcher)


def _train_resumed(config: RunConfig, state: State | None, launcher: RunLauncher) -> int:
    summary = launcher.run(config, state)
    if summary["status"] == "interrupted":
        raise QuietInterrupt
    return 0


def _parse_resume(arguments: list[str]) -> _ResumeArguments:
    """Parse the command line of a resumed run.

    Raises:
        UserError: a flag is unknown, or its value is missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--checkpoint", default=LAST)
    parser.add_argument("--trust", action="store_true")
    try:
        options, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flag = error.argument_name or ""
        values = {
            "--resume": "the folder of a run, e.g. pgx train --resume outputs/...",
            "--checkpoint": "last, best or step_<steps>",
        }
        raise UserError(f"{flag}: expected {values.get(flag, 'no value')}") from None
    if wrong := [text for text in rest if text.startswith("-")]:
        raise UserError(
            *(
                f"{text}: unknown flag{nearest(text, _RESUME_FLAGS)} (with --resume: {', '.join(_RESUME_FLAGS)})"
                for text in wrong
            )
        )
    return _ResumeArguments(options.resume, options.checkpoint, options.trust, rest)


def _resumed_config(request: _ResumeArguments) -> tuple[RunConfig, tuple[Change, ...]]:
    """Return the run's valid config after the requested changes, and these changes.

    Raises:
        UserError: a change is not allowed, a value is invalid, or the config would import untrusted modules.
    """
    stored, overrides = read_run_config(request.run_dir), parse(request.overrides)
    requested = resume_changes(stored, overrides)
    cfg = apply_changes(stored, requested.made)
    given = {override.key_or_group: override.value() for override in overrides}
    source = request.run_dir / CONFIG
    allowed = [*map(str, given.values()), *named_imports(request.overrides)]
    imports = import_warnings(cfg, source, allowed) + training_warnings(cfg, source, allowed)
    if "runner.address" not in given:
        imports += cluster_warnings(cfg, source)
    refuse_untrusted(imports, request.trust)
    cfg.run_dir = str(request.run_dir)
    return with_changes(cfg, requested), requested.made
