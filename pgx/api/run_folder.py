"""Configs, checkpoints and folders of runs, as several commands need them."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from pgx.config.changes import ResumeChanges, with_evaluation_overrides
from pgx.config.compose import compose
from pgx.config.cross_checks import overridden_keys
from pgx.config.run_config import RunConfig, with_values
from pgx.config.stored import CONFIG, import_warnings, read_config, refuse_untrusted
from pgx.config.validate import check_inputs, validate
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.runs.checkpoints import LAST, Checkpoints
from pgx.runs.versions import differences
from pgx.runs.writer import print_warning, refuse_existing_run
from pgx.sweeps.progress import resumable
from pgx.training.build import build
from pgx.training.callbacks import import_callbacks
from pgx.training.logger_setup import import_sinks
from pgx.training.trainer import Trainer


def compose_valid(overrides: list[str]) -> RunConfig:
    """Compose and validate the config of a new run.

    Raises:
        UserError: the overrides, values or inputs are wrong.
    """
    config = validate(compose(overrides), overridden_keys(overrides))
    check_inputs(config)
    import_callbacks(config.callbacks)
    import_sinks(config.logger.sinks)
    return config


def folder_of(config: RunConfig) -> Path:
    """Return the folder of a run.

    Raises:
        UserError: it has none.
    """
    if config.run_dir is None:
        raise UserError("run_dir=null: a run without a folder exists in Python only: pgx.train(run_dir=None)")
    return Path(config.run_dir)


def create_unique_folder(folder: Path) -> Path:
    """Create a new folder and return it. If the name is in use, append the first free number.

    Raises:
        UserError: the folder cannot be created.
    """
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            remove_empty_parents(candidate)
            raise UserError(f"run_dir={candidate}: cannot be written: {error.strerror}") from error
        else:
            return candidate


def remove_empty_parents(folder: Path) -> None:
    """Remove the empty parents of a folder that does not exist. Only parents in a relative path are removed."""
    for parent in [] if folder.is_absolute() else list(folder.parents)[:-1]:
        with suppress(OSError):  # not empty, or missing
            parent.rmdir()


def forget_empty(run_dir: Path) -> None:
    """Remove the folder of a run that failed before it wrote a file, and parent folders that are then empty.

    On the command line, Hydra creates the folder, with `.hydra/`, before the run starts. Only parents in a relative
    run_dir are removed.
    """
    if not {path.name for path in run_dir.iterdir()} <= {".hydra"}:
        return
    shutil.rmtree(run_dir)
    remove_empty_parents(run_dir)


def refuse_unusable(run_dir: Path) -> None:
    """Check the folder of a new run.

    Raises:
        UserError: the folder contains a run or cannot be written.
    """
    try:
        refuse_existing_run(run_dir)
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot be written: {error.strerror}") from error


def load_resume_state(run_dir: Path, checkpoint: str = LAST) -> State | None:
    """Return the state to resume a run from, or None if the run ended before its first checkpoint.

    If the last checkpoint is damaged, the previous one is used with a warning. Other warnings name packages whose
    versions have changed since the checkpoint.

    Raises:
        UserError: the named checkpoint is missing, or all checkpoints are damaged.
    """
    checkpoints = Checkpoints(run_dir)
    if checkpoint != LAST:
        state = checkpoints.load(checkpoint)
    elif not resumable(run_dir):
        return None
    else:
        state, damaged = checkpoints.newest()
        for line in damaged:
            print_warning(f"{line}; the previous one is used")
    for difference in differences(state["versions"]):
        print_warning(f"{difference}: results may differ in the last bits")
    return state


def with_changes(cfg: DictConfig, requested: ResumeChanges) -> RunConfig:
    """Return the valid config of a resumed run.

    Args:
        cfg: stored config with the changes that were made.
        requested: changes, made and refused.

    Raises:
        UserError: a change is refused, or the config is invalid.
    """
    try:
        config = validate(cfg, [change.key for change in requested.made])
    except UserError as error:
        raise UserError(*requested.refused, *error.problems) from error
    if requested.refused:
        raise UserError(*requested.refused)
    return config


def resumed_trainer(config: RunConfig) -> Trainer:
    """Build the trainer of a run and restore it from the last checkpoint.

    Raises:
        UserError: the run has no checkpoint.
    """
    run_dir = folder_of(config)
    state = load_resume_state(run_dir)
    if state is None:
        raise UserError(f"{run_dir}: no checkpoint")
    if config.trainer.compile == "auto":
        # "auto" may decide differently for a longer run or on another machine.
        config = with_values(config, {"trainer.compile": state["compiled"]})
    trainer = build(config)
    trainer.load_state_dict(state)
    return trainer


def read_run_config(run_dir: Path) -> DictConfig:
    """Read the config of a run.

    Raises:
        UserError: the folder does not contain a run.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise UserError(f"{run_dir}: not a run folder (it has no {CONFIG})")
    return read_config(path)


def load_trusted_config(run_dir: Path, trust: bool, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and validate the config of a run whose agent is evaluated, recorded or exported.

    Args:
        run_dir: the run's folder.
        trust: the user allows the imports that the config names.
        overrides: of keys that may differ from the run's config (pgx/config/changes.py).

    Raises:
        UserError: the folder contains no run, its config is invalid here, it names imports that the user has not
            allowed, or an override would change the agent.
    """
    cfg = with_evaluation_overrides(read_run_config(run_dir), overrides)
    refuse_untrusted(import_warnings(cfg, run_dir / CONFIG, named=()), trust)
    return validate(cfg)
