"""`pgx train`: Hydra composes, pgx checks everything, then trains."""

import argparse
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgx.checkpoint import LAST, Checkpoints
from pgx.commands.run import Lead, follow, with_one_voice
from pgx.config import check, check_inputs, compose
from pgx.config.compose import ROOT, jobs, parse, prepare
from pgx.config.explain import explain
from pgx.config.ranks import check_ranks
from pgx.errors import RunError, UserError
from pgx.paths import config_dir
from pgx.ranks import join
from pgx.schema import nearest
from pgx.trainer import refuse_used

# What a resumed run may change; the rest would make it another run.
CHANGEABLE_ON_RESUME = ("trainer.", "logger.", "torch_threads", "env.num_threads", "device")

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
        return _hydra(rest, lead, [])
    sweep = jobs(prepare(overrides))
    if options.multirun and lead.ranks.size > 1:
        raise UserError(
            "-m: torchrun's ranks train one run together; start torchrun once for each run of a sweep"
        )
    if not options.multirun and len(sweep) > 1:
        raise UserError("several values for one key: add -m to run every combination of them")
    _check(sweep, lead.ranks.size)
    failures: list[tuple[list[str], Exception]] = []
    code = _hydra(rest, lead, failures)
    if len(failures) == 1 and len(sweep) == 1:
        raise failures[0][1]
    if failures:
        lines = [f"{' '.join(job)}: {error}" for job, error in failures]
        raise RunError("\n".join([f"{len(failures)} of {len(sweep)} runs failed", *lines]))
    return code


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


def _check(sweep: list[list[str]], ranks: int) -> None:
    """Every run of a sweep before the first one starts: its values, and a folder of its own."""
    folders: dict[str, list[str]] = {}
    for job in sweep:
        cfg = compose(job)
        check(cfg)
        check_inputs(cfg)
        check_ranks(cfg, ranks)
        if any(o.key_or_group == "run_dir" for o in parse(job)):
            folders.setdefault(cfg.run_dir, []).append(" ".join(job))
    shared = [folder for folder, users in folders.items() if len(users) > 1]
    if shared:
        raise UserError(
            f"run_dir={shared[0]}: {len(folders[shared[0]])} runs of the sweep would write there; "
            "give each its own, e.g. 'run_dir=outputs/mine/${label}_${seed}'"
        )
    for folder in folders:
        refuse_used(Path(folder))


def _hydra(arguments: list[str], lead: Lead, failures: list[tuple[list[str], Exception]]) -> int:
    """Hand over to Hydra, which calls back for each run; what a run raises is kept, so that a sweep goes on."""

    def job(cfg: DictConfig) -> float | None:
        try:
            return _job(cfg, lead)
        except Exception as error:
            _forget_empty(Path(cfg.run_dir))
            failures.append((list(HydraConfig.get().overrides.task), error))
            return None

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and pgx.cli words the message
    run = hydra.main(config_path=str(config_dir()), config_name=ROOT, version_base="1.3")(job)
    sys.argv = ["pgx train", *arguments]
    try:
        run()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"run_dir: cannot write {error.filename}: {error.strerror}") from error
    return 0


def _job(cfg: DictConfig, lead: Lead) -> float | None:
    """One run; its final return, which sweepers maximise."""
    summary = lead.run(cfg, None)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt  # ends a sweep too
    final: float | None = summary["final_return"]
    return final


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


def load_config(run_dir: Path) -> DictConfig:
    """The resolved config of a run.

    Raises:
        UserError: the folder is not that of a run.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run_dir}: not the folder of a run (it has no config.yaml)")
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return cfg
