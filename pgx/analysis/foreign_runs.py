"""What TensorBoard's event files of a folder hold: scalars and texts.

What other libraries call the metrics of pgx, and where theirs are something else.

A run of another library, from its TensorBoard events.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.util import tensor_util

from pgx.analysis.reading import RecordedRun, Series, UnreadableError, identify
from pgx.analysis.statistics import Array
from pgx.runs.metrics import tag

EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class EventSeries:
    """One tag, in the order of writing."""

    steps: Array  # [n]
    values: Array  # [n]
    clock: Array  # [n], seconds of writing: since its file was opened, and those that earlier files took


@dataclass
class _Column:
    steps: list[float]
    values: list[float]
    clock: list[float]

    def cut(self, step: float) -> None:
        """Forget what was written of this step and later."""
        keep = [i for i, known in enumerate(self.steps) if known < step]
        for column in (self.steps, self.values, self.clock):
            column[:] = [column[i] for i in keep]


def read_events(folder: Path) -> tuple[dict[str, EventSeries], dict[str, str]]:
    """Scalars and texts by tag, of all event files directly in a folder.

    A file that ends within a record is read up to there: it may be growing. Where a later file of the run begins at an
    earlier step than one before it ended, the run was resumed, and what the earlier has from there on is not of it.
    """
    columns: dict[str, _Column] = {}
    texts: dict[str, str] = {}
    before = 0.0  # seconds that earlier files took
    for path in sorted(folder.glob(EVENT_FILES)):
        opened, last, new = None, 0.0, set[str]()
        for event in LegacyEventFileLoader(str(path)).Load():
            opened = event.wall_time if opened is None else opened
            last = event.wall_time - opened
            for entry in event.summary.value:
                if entry.metadata.plugin_data.plugin_name == "text":
                    texts[entry.tag] = b"".join(entry.tensor.string_val).decode(errors="replace")
                    continue
                number = _scalar(entry)
                if number is None:
                    continue
                column = columns.setdefault(entry.tag, _Column([], [], []))
                if entry.tag not in new:
                    new.add(entry.tag)
                    column.cut(event.step)
                column.steps.append(event.step)
                column.values.append(number)
                column.clock.append(before + last)
        before += last
    return {
        tag: EventSeries(np.asarray(c.steps, dtype=np.float64), np.asarray(c.values), np.asarray(c.clock))
        for tag, c in columns.items()
    }, texts


def _scalar(entry: Any) -> float | None:
    """A finite number, in the form of either generation of writers."""
    if entry.HasField("simple_value"):
        number = float(entry.simple_value)
    elif entry.metadata.plugin_data.plugin_name == "scalars" and entry.HasField("tensor"):
        number = float(tensor_util.make_ndarray(entry.tensor))
    else:
        return None
    return number if np.isfinite(number) else None


_RECENT_EPISODES = 20  # episodes in the running mean of the recent return, as in pgx's own runs


@dataclass(frozen=True)
class TagMapping:
    """A metric under another name."""

    key: str  # of pgx/runs/metrics.py
    factor: float = 1.0  # what turns its values into pgx's


@dataclass(frozen=True)
class Library:
    """A library's tags."""

    name: str
    short: str  # what its runs' algorithms are told apart by
    told_by: frozenset[str]  # tags that no other library writes
    tags: Mapping[str, TagMapping]
    each_episode: str | None  # the tag of single episodes' returns, of which pgx's running mean can be made
    by_update: tuple[
        str, ...
    ]  # beginnings of tags that are written over updates rather than environment steps
    env_steps: frozenset[str]  # tags that say how many environment steps there were, for those above
    differs: str  # what is not quite pgx's


SB3 = Library(
    name="Stable-Baselines3",
    short="sb3",
    told_by=frozenset({"rollout/ep_rew_mean", "time/fps"}),
    tags={
        "rollout/ep_rew_mean": TagMapping("episode_return_recent"),
        "rollout/ep_len_mean": TagMapping("episode_length"),
        "eval/mean_reward": TagMapping("eval_episode_return"),
        "eval/mean_ep_length": TagMapping("eval_episode_length"),
        "time/fps": TagMapping("steps_per_second"),
        "train/approx_kl": TagMapping("kl"),
        "train/kl_divergence_loss": TagMapping("kl"),
        "train/clip_fraction": TagMapping("clip_fraction"),
        "train/explained_variance": TagMapping("explained_variance"),
        "train/entropy_loss": TagMapping("entropy", -1.0),
        "train/learning_rate": TagMapping("learning_rate"),
        "train/value_loss": TagMapping("critic_loss", 0.5),
    },
    each_episode=None,
    by_update=(),
    env_steps=frozenset(),
    differs="returns are over the last 100 episodes (pgx: 20); KL is sampled, of the last epoch's minibatches, "
    "and clip fraction the mean over minibatches while they are learned from; an update stands one rollout later",
)

CLEANRL = Library(
    name="CleanRL",
    short="cleanrl",
    told_by=frozenset({"charts/episodic_return", "charts/SPS"}),
    tags={
        "charts/episodic_return": TagMapping("episode_return"),
        "charts/episodic_length": TagMapping("episode_length"),
        "charts/SPS": TagMapping("steps_per_second"),
        "charts/learning_rate": TagMapping("learning_rate"),
        "losses/approx_kl": TagMapping("kl"),
        "losses/clipfrac": TagMapping("clip_fraction"),
        "losses/explained_variance": TagMapping("explained_variance"),
        "losses/entropy": TagMapping("entropy"),
        "losses/value_loss": TagMapping("critic_loss"),
    },
    each_episode="charts/episodic_return",
    by_update=(),
    env_steps=frozenset(),
    differs="the mean over the last 20 episodes is made here of the single episodes it writes; KL is sampled, of the "
    "last minibatch alone",
)

TIANSHOU = Library(
    name="Tianshou",
    short="tianshou",
    told_by=frozenset(
        {"training/returns_stat/mean", "test/returns_stat/mean", "training/env_step", "train/env_step"}
    ),
    tags={
        **{
            f"{training}/{tag}": TagMapping(key)
            for training in ("training", "train")  # of version 2, and before it
            for tag, key in {
                "returns_stat/mean": "episode_return_recent",
                "returns_stat/min": "episode_return_min",
                "returns_stat/max": "episode_return_max",
                "lens_stat/mean": "episode_length",
                "n_collected_episodes": "episodes",
                "reward": "episode_return_recent",  # of version 0
                "length": "episode_length",
            }.items()
        },
        "test/returns_stat/mean": TagMapping("eval_episode_return"),
        "test/returns_stat/std": TagMapping("eval_episode_return_std"),
        "test/lens_stat/mean": TagMapping("eval_episode_length"),
        "test/reward": TagMapping("eval_episode_return"),
        "test/reward_std": TagMapping("eval_episode_return_std"),
        "test/length": TagMapping("eval_episode_length"),
        "update/kl/mean": TagMapping("kl"),
        "update/ent_loss/mean": TagMapping("entropy"),
        "update/vf_loss/mean": TagMapping("critic_loss", 0.5),
    },
    each_episode=None,
    by_update=("update/", "info/"),
    env_steps=frozenset({"training/env_step", "train/env_step"}),
    differs="returns are over the episodes of one collection (pgx: the last 20); what it writes over updates is "
    "placed at the environment steps of that moment",
)

LIBRARIES = (SB3, CLEANRL, TIANSHOU)


def detect_library(tags: frozenset[str]) -> Library | None:
    """The library that writes such tags; None: none that is known."""
    return next((peer for peer in LIBRARIES if peer.told_by & tags), None)


_ROW = re.compile(r"^\|([^|]+)\|([^|]*)\|$", re.MULTILINE)
_WRITTEN = {"env_id": "env", "exp_name": "algo", "seed": "seed"}  # CleanRL's names for what tells runs apart


def read_foreign(folder: Path, said: Mapping[str, str]) -> RecordedRun:
    """The run whose event files are in a folder; tags that are not known are kept as they are.

    Args:
        folder: it.
        said: of the run by the user: env, algo, seed.

    Raises:
        UnreadableError: no scalar over environment steps.
    """
    recorded, texts = read_events(folder)
    peer = detect_library(frozenset(recorded))
    config = {name.strip(): value.strip() for text in texts.values() for name, value in _ROW.findall(text)}
    found = _translated(recorded, peer)
    known = {own for own in found if own not in recorded}
    counted = [found[own].steps[-1] for own in known or found]
    if not counted:
        raise UnreadableError(f"{folder}: its event files hold no scalars")
    short = peer.short if peer else "tensorboard"
    told = {ours: config[theirs] for theirs, ours in _WRITTEN.items() if config.get(theirs)}
    identity = identify(folder, short, said, told)
    return RecordedRun(
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


def _translated(recorded: Mapping[str, EventSeries], peer: Library | None) -> dict[str, Series]:
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
    name: str, column: EventSeries, recorded: Mapping[str, EventSeries], peer: Library | None
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
    begin = np.maximum(end - _RECENT_EPISODES, 0)
    return np.asarray((total[end] - total[begin]) / (end - begin))
