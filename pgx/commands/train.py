"""`pgx train`: Hydra composes, pgx checks everything, then trains."""

import argparse
import shutil
from functools import partial
from pathlib import Path

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from pgx.checkpoint import LAST, Checkpoints
from pgx.commands.one_run import checked, claim, hand_over, load_config
from pgx.commands.run import Lead, follow, with_one_voice
from pgx.commands.sweep import start
from pgx.config import check
from pgx.config.compose import jobs, parse, prepare
from pgx.config.ranks import check_ranks
from pgx.errors import UserError
from pgx.ranks import join
from pgx.schema import nearest
from pgx.sweeps.plan import key_of, quoted
from pgx.trainer import refuse_used

# What a resumed run may change; the rest would make it another run.
CHANGEABLE_ON_RESUME = (
    "trainer.",
    "logger.",
    "torch_threads",
    "env.num_threads",
    "env.worker_timeout",
    "device",
)

_WITHOUT_A_RUN = {"help", "hydra_help", "cfg", "info", "shell_completion"}  # Hydra's flags that only print


def train(arguments: list[str]) -> int:
    """Train from overrides, or go on with a run, alone or as one of several ranks; returns the exit code."""
    ranks = join()
    if ranks.rank > 0:
        return with_one_voice(ranks, partial(follow, ranks))
    lead = Lead(ranks)
    return with_one_voice(ranks, partial(lead.until_done, partial(_train, arguments, lead)))


def _train(arguments: list[str], lead: Lead) -> int:
    if "--resume" in arguments:
        return _resume(arguments, lead)
    options, overrides = _options(arguments)
    rest = [*(a for a in arguments if a not in overrides), *prepare(overrides)]
    if _WITHOUT_A_RUN & {name for name, value in vars(options).items() if value}:
        _hydra(rest, lead, [])
        return 0
    sweep = jobs(prepare(overrides))
    if options.multirun:
        if lead.ranks.size > 1:
            raise UserError(
                "-m: torchrun's ranks train one run together; start torchrun once for each run of a sweep"
            )
        flags = [a for a in arguments if a not in overrides and a not in ("-m", "--multirun")]
        return start(flags, overrides)
    if len(sweep) > 1:
        raise UserError("several values for one key: add -m to run every combination of them")
    (only,) = sweep
    cfg = checked(only)
    check_ranks(cfg, lead.ranks.size)
    if "sweep" in cfg:
        raise UserError("sweep=...: a search runs many trials: add -m")
    if "run_dir" in map(key_of, overrides):
        refuse_used(Path(cfg.run_dir))
    else:
        rest.append(f"run_dir={quoted(claim(Path(cfg.run_dir)))}")
    failures: list[Exception] = []
    _hydra(rest, lead, failures)
    if failures:
        raise failures[0]
    return 0


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's flags, and the overrides between them."""
    parser = get_args_parser()
    known = {option for action in parser._actions for option in action.option_strings} | {"--resume"}
    for argument in arguments:
        if argument.startswith("-") and argument.split("=")[0] not in known:
            raise UserError(f"{argument}: unknown flag{nearest(argument, known)} (pgx train --help)")
    try:
        options, overrides = parser.parse_known_args(arguments)
    except SystemExit:
        raise UserError(
            f"{' '.join(arguments)}: a flag's value is missing or not one of its choices"
        ) from None
    return options, [*options.overrides, *overrides]


def _hydra(arguments: list[str], lead: Lead, failures: list[Exception]) -> None:
    """Hand over to Hydra, which calls back for the run; what that raises is kept as it is."""

    def job(cfg: DictConfig) -> None:
        try:
            summary = lead.run(cfg, None)
        except Exception as error:
            _forget_empty(Path(cfg.run_dir))
            failures.append(error)
            return
        if summary["status"] == "interrupted":
            raise KeyboardInterrupt

    hand_over(arguments, job)


def _forget_empty(run_dir: Path) -> None:
    """Remove the folder of a run that could not begin, which Hydra made to note what was asked for.

    With it go the folders above it that a relative run_dir names, as far as nothing else is in them.
    """
    if not {path.name for path in run_dir.iterdir()} <= {".hydra"}:
        return
    shutil.rmtree(run_dir)
    above = [] if run_dir.is_absolute() else list(run_dir.parents)[:-1]
    for folder in above:
        if any(folder.iterdir()):
            break
        folder.rmdir()


def _resume(arguments: list[str], lead: Lead) -> int:
    """Go on with a run from its last checkpoint."""
    at = arguments.index("--resume")
    if at + 1 == len(arguments):
        raise UserError("--resume: expected the folder of a run, e.g. pgx train --resume outputs/...")
    run_dir, overrides = Path(arguments[at + 1]), arguments[:at] + arguments[at + 2 :]
    cfg = load_config(run_dir)
    for override in parse(overrides):
        key = override.key_or_group
        if not key.startswith(CHANGEABLE_ON_RESUME):
            raise UserError(
                f"{key}: a resumed run keeps its config; only {', '.join(CHANGEABLE_ON_RESUME)} may change"
            )
        if OmegaConf.select(cfg, key, default=OmegaConf) is OmegaConf:
            raise UserError(f"{key}: unknown key")
        OmegaConf.update(cfg, key, override.value())
    cfg.run_dir = str(run_dir)
    state = Checkpoints(run_dir).load(LAST)
    if cfg.trainer.compile == "auto" and lead.ranks.size == 1:
        cfg.trainer.compile = state["compiled"]  # a longer run, or another machine, may decide otherwise
    check(cfg)
    check_ranks(cfg, lead.ranks.size)
    steps: int = state["counters"]["steps"]
    if steps >= cfg.trainer.total_steps:
        print(
            f"{run_dir} is finished: {steps:,} of {cfg.trainer.total_steps:,} steps; "
            "a larger trainer.total_steps=... extends it"
        )
        return 0
    summary = lead.run(cfg, state)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt
    return 0
