"""What commands share: a run's config checked, its folder claimed, its beginning and end in words."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from pgx.config.changes import with_overrides
from pgx.config.check import check_inputs, validate
from pgx.config.compose import compose
from pgx.config.run_config import RunConfig, with_values
from pgx.config.stored import CONFIG, imports_of, read_config, refuse_untrusted
from pgx.config.unused_keys import asked_keys
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.runs.checkpoints import LAST, Checkpoints
from pgx.runs.versions import differences
from pgx.runs.writer import complain, refuse_used
from pgx.sweeps.progress import resumable
from pgx.training.build import build
from pgx.training.trainer import Trainer


def checked(overrides: list[str]) -> RunConfig:
    """Return the valid config of a run that could start now.

    Raises:
        UserError: the overrides, values or inputs are wrong.
    """
    config = validate(compose(overrides), asked_keys(overrides))
    check_inputs(config)
    return config


def claim(folder: Path) -> Path:
    """Make a new folder of this name, or of the next free one where another process was quicker.

    Raises:
        UserError: it cannot be made.
    """
    number = 1
    while True:
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            forget_empty_above(free)
            raise UserError(f"run_dir={free}: cannot write there: {error.strerror}") from error
        else:
            return free


def forget_empty_above(folder: Path) -> None:
    """Remove the folders above one that is not there, as far as a relative path names them and nothing is in them."""
    for above in [] if folder.is_absolute() else list(folder.parents)[:-1]:
        with suppress(OSError):  # not empty, and so are those above it; or never made
            above.rmdir()


def refuse_taken(run_dir: Path) -> None:
    """Refuse a folder for a new run that holds one, or that cannot be one.

    Raises:
        UserError: which of the two.
    """
    try:
        refuse_used(run_dir)
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot write there: {error.strerror}") from error


def last_state(run_dir: Path, checkpoint: str = LAST) -> State | None:
    """What a run goes on from; None: it died before its first checkpoint and begins anew.

    A damaged last checkpoint is told of, and the one before it is taken; so are versions that are not those of then.

    Raises:
        UserError: the checkpoint that was asked for is not there; or some are, and none is whole.
    """
    checkpoints = Checkpoints(run_dir)
    if checkpoint != LAST:
        state = checkpoints.load(checkpoint)
    elif not resumable(run_dir):
        return None
    else:
        state, damaged = checkpoints.newest()
        for line in damaged:
            complain(f"{line}; the one before it is used")
    for difference in differences(state["versions"]):
        complain(f"{difference}: the bits may not be the same")
    return state


def resumed(config: RunConfig) -> Trainer:
    """The trainer of a run, at its last checkpoint.

    Raises:
        UserError: there is none.
    """
    run_dir = Path(config.run_dir)
    state = last_state(run_dir)
    if state is None:
        raise UserError(f"{run_dir}: no checkpoint")
    if config.trainer.compile == "auto":
        # A longer run, or another machine, may decide otherwise.
        config = with_values(config, {"trainer.compile": state["compiled"]})
    trainer = build(config)
    trainer.load_state_dict(state)
    return trainer


def load_config(run_dir: Path) -> DictConfig:
    """The resolved config of a run, as it stands in the file.

    Raises:
        UserError: the folder is not that of a run.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise UserError(f"{run_dir}: not the folder of a run (it has no {CONFIG})")
    return read_config(path)


def load_played(run_dir: Path, trust: bool, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the valid and trusted config of a run whose agent is to play.

    Args:
        run_dir: the run's folder.
        trust: the user allows what the file would import.
        overrides: of what may change when an agent plays (pgx/config/changes.py).

    Raises:
        UserError: the folder is not that of a run, its config does not hold here, or it would import what the user
            has not allowed; or an override would change the agent.
    """
    cfg = with_overrides(load_config(run_dir), overrides)
    refuse_untrusted(imports_of(cfg, run_dir / CONFIG, named=()), trust)
    return validate(cfg)
