"""Post-mortem of NaN and infinity: detection, rollback, and the data that reproduces the failure.

A failed run writes `post_mortem/iteration_<n>/` to its folder.
"""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pgx.config.stored import pgx_command
from pgx.core.agent import Agent, State
from pgx.core.algorithm import Learner
from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.nonfinite import FailedUpdate, NotFiniteError
from pgx.ops.params import flatten
from pgx.runs.checkpoints import LAST, Checkpoints, read_state, serialize, write_atomically
from pgx.runs.loggers.jsonl import encode_nonfinite
from pgx.runs.versions import versions
from pgx.runs.writer import Writer


def nonfinite_network(agent: Agent) -> str | None:
    """Return the name of the network with NaN or infinite parameters; None if all are finite."""
    for name in ("policy", "critic"):
        weights = list(getattr(agent, name).parameters())
        if weights and not bool(flatten(weights).isfinite().all()):
            return name
    return None


def learned_state(agent: Agent, learner: Learner) -> State:
    """Return the state that an update reads and changes."""
    return {"agent": agent.state_dict(), "learner": learner.state_dict()}


def rollback(agent: Agent, learner: Learner, before: State) -> None:
    """Restore the state before an update."""
    agent.load_state_dict(before["agent"])
    learner.load_state_dict(before["learner"])


def raise_if_nonfinite(agent: Agent, iteration: int) -> None:
    """Check the parameters after the update of an iteration.

    Raises:
        NotFiniteError: a parameter is NaN or infinite.
    """
    if (name := nonfinite_network(agent)) is not None:
        raise NotFiniteError(nonfinite_update(name, iteration))


def nonfinite_update(network: str, iteration: int) -> str:
    """Return the message for a network with NaN or infinite parameters."""
    return f"iteration {iteration}: the update made parameters of the {network} NaN or infinite"


POST_MORTEM = "post_mortem"
FAILURE_FILE = "failure.json"
FailureKind = Literal["update", "run"]


def report_failure(
    error: NotFiniteError,
    iteration: int,
    writer: Writer | None,
    diagnose: Callable[[FailedUpdate], str | None],
) -> str:
    """Diagnose a failure, write its post-mortem, and return the message for the user.

    Args:
        error: the failure.
        iteration: iteration that failed, from 1.
        writer: writer of the run; None on ranks that do not write.
        diagnose: returns where in a failed update a number first becomes NaN or infinite; None: nowhere on replay.
    """
    said = str(error) if str(error).startswith("iteration") else f"iteration {iteration}: {error}"
    if writer is None:
        return said
    if error.record.attempt is not None:
        found = diagnose(error.record.attempt)
        said += f"; {found or 'the same update without a compiler stays finite'}"
    if writer.run_dir is None:
        return said
    try:
        folder = write_bundle(writer.run_dir, writer.config, Checkpoints(writer.run_dir), iteration, error)
    except OSError as problem:
        return f"{said}; its post-mortem cannot be written: {problem.strerror}"
    return f"{said}; reproduce it with: {pgx_command('replay', folder, of=folder)}"


def write_bundle(
    run_dir: Path, config: str, checkpoints: Checkpoints, iteration: int, error: NotFiniteError
) -> Path:
    """Write the data that reproduces a failure; return its folder.

    Args:
        run_dir: folder of the run.
        config: config of the run, as YAML.
        checkpoints: checkpoints of the run; the last one is copied, if it exists.
        iteration: iteration that failed, from 1.
        error: the failure.

    Raises:
        OSError: it cannot be written.
    """
    folder = run_dir / POST_MORTEM / f"iteration_{iteration:09d}"
    folder.mkdir(parents=True, exist_ok=True)
    attempt, recorded = error.record.attempt, error.record.recorded
    last = checkpoints.folder / f"{LAST}.pt"
    if last.is_file():
        write_atomically(folder / "checkpoint.pt", last.read_bytes())
    if attempt is not None:
        columns = {c.name: getattr(attempt.rollout, c.name) for c in fields(Rollout) if c.name != "shard"}
        write_atomically(folder / "batch.pt", serialize(columns))
        before = {"before": attempt.before, "progress": attempt.progress}
        write_atomically(folder / "before.pt", serialize(before))
    elif recorded:
        write_atomically(folder / "batch.pt", serialize(dict(recorded)))
    write_atomically(folder / "config.yaml", config.encode())
    kind: FailureKind = "run" if attempt is None else "update"
    failure = {"kind": kind, "iteration": iteration, "error": str(error), "versions": versions()}
    write_atomically(
        folder / FAILURE_FILE,
        (json.dumps(encode_nonfinite(failure), indent=2, allow_nan=False) + "\n").encode(),
    )
    return folder


def read_failure(folder: Path) -> dict[str, Any]:
    """Read the kind, iteration, error and versions of a post-mortem.

    Raises:
        UserError: the folder is not a post-mortem.
    """
    try:
        failure = json.loads((folder / FAILURE_FILE).read_text())
        return {
            "kind": str(failure["kind"]),
            "iteration": int(failure["iteration"]),
            "error": str(failure["error"]),
            "versions": dict(failure["versions"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder}: not a post-mortem; they are in RUN/{POST_MORTEM}/iteration_..., each with its "
            f"{FAILURE_FILE}"
        ) from None


def read_attempt(folder: Path) -> FailedUpdate:
    """Read the failed update of a post-mortem.

    Raises:
        UserError: a file is missing, damaged, or not written by pgx.
    """
    for name in ("before.pt", "batch.pt"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing")
    before = read_state(folder / "before.pt")
    columns: State = read_state(folder / "batch.pt")
    return FailedUpdate(before["progress"], before["before"], Rollout.from_columns(columns))
