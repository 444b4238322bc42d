"""A run of another library, from its TensorBoard events."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pgx.analysis.reading.events import Recorded, read_events
from pgx.analysis.reading.identity import identify
from pgx.analysis.reading.peers import RECENT, Peer, written_by
from pgx.analysis.reading.run import Run, Series, UnreadableError
from pgx.runs.metrics import tag

_ROW = re.compile(r"^\|([^|]+)\|([^|]*)\|$", re.MULTILINE)
_WRITTEN = {"env_id": "env", "exp_name": "algo", "seed": "seed"}  # CleanRL's names for what tells runs apart


def read_foreign(folder: Path, said: Mapping[str, str]) -> Run:
    """The run whose event files are in a folder; tags that are not known are kept as they are.

    Args:
        folder: it.
        said: of the run by the user: env, algo, seed.

    Raises:
        UnreadableError: no scalar over environment steps.
    """
    recorded, texts = read_events(folder)
    peer = written_by(frozenset(recorded))
    config = {name.strip(): value.strip() for text in texts.values() for name, value in _ROW.findall(text)}
    found = _translated(recorded, peer)
    known = {own for own in found if own not in recorded}
    counted = [found[own].steps[-1] for own in known or found]
    if not counted:
        raise UnreadableError(f"{folder}: its event files hold no scalars")
    short = peer.short if peer else "tensorboard"
    told = {ours: config[theirs] for theirs, ours in _WRITTEN.items() if config.get(theirs)}
    identity = identify(folder, short, said, told)
    return Run(
        folder=folder,
        source=peer.name if peer else "TensorBoard",
        env=identity.env,
        algo=identity.algo,
        seed=identity.seed,
        config=config,
        state="unknown",
        error=None,
        last_step=int(max(counted)),
        series=found,
    )


def _translated(recorded: Mapping[str, Recorded], peer: Peer | None) -> dict[str, Series]:
    """By pgx's tags where they have one, with the seconds and the recent return, which nobody else writes."""
    found: dict[str, Series] = {}
    clocks: list[Series] = []
    for name, column in recorded.items():
        steps = _env_steps(name, column, recorded, peer)
        alias = peer.tags.get(name) if peer else None
        if alias is None:
            found[name] = _ordered(steps, column.values)
            continue
        found[tag(alias.key)] = _ordered(steps, column.values * alias.factor)
        clocks.append(_ordered(steps, column.clock))
    if clocks:
        clock = _ordered(
            np.concatenate([c.steps for c in clocks]), np.concatenate([c.values for c in clocks])
        )
        found[tag("seconds")] = Series(clock.steps, np.maximum.accumulate(clock.values))
    if peer and peer.each_episode is not None and peer.each_episode in recorded:
        own = found[tag(peer.tags[peer.each_episode].key)]
        found[tag("episode_return_recent")] = Series(own.steps, _running_mean(own.values))
    return found


def _ordered(steps: np.ndarray, values: np.ndarray) -> Series:
    order = np.argsort(steps, kind="stable")
    return Series(steps[order], values[order])


def _env_steps(
    name: str, column: Recorded, recorded: Mapping[str, Recorded], peer: Peer | None
) -> np.ndarray:
    """The environment steps of a tag's rows; where it is written over updates, those that were told of just before."""
    told = [recorded[known] for known in peer.env_steps if known in recorded] if peer else []
    if not peer or not told or not name.startswith(peer.by_update):
        return column.steps
    index = np.searchsorted(told[0].clock, column.clock, side="right") - 1
    return told[0].steps[np.maximum(index, 0)]


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last RECENT values at each."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - RECENT, 0)
    return np.asarray((total[end] - total[begin]) / (end - begin))
