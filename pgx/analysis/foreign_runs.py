"""Runs of other libraries, read from TensorBoard event files, with their metrics under pgx's names."""

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
    """Scalars of one tag, in the order in which they were written.

    Args:
        steps: [n].
        values: [n].
        clock: seconds since the file was opened, plus the seconds of earlier files [n].
    """

    steps: Array
    values: Array
    clock: Array


@dataclass
class _Column:
    steps: list[float]
    values: list[float]
    clock: list[float]

    def cut(self, step: float) -> None:
        """Remove the values at a step and later."""
        keep = [i for i, known in enumerate(self.steps) if known < step]
        for column in (self.steps, self.values, self.clock):
            column[:] = [column[i] for i in keep]


def read_events(folder: Path) -> tuple[dict[str, EventSeries], dict[str, str]]:
    """Return scalars and texts by tag, from all event files directly in a folder.

    A file that ends within a record is read up to that record, because it may be growing. If a file begins at an
    earlier step than the previous one ended, the run was resumed, and the later part of the previous file is dropped.
    """
    columns: dict[str, _Column] = {}
    texts: dict[str, str] = {}
    before = 0.0  # seconds of earlier files
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
    """Return a finite number, as written by either generation of writers, or None."""
    if entry.HasField("simple_value"):
        number = float(entry.simple_value)
    elif entry.metadata.plugin_data.plugin_name == "scalars" and entry.HasField("tensor"):
        number = float(tensor_util.make_ndarray(entry.tensor))
    else:
        return None
    return number if np.isfinite(number) else None


_RECENT_EPISODES = 20  # in the running mean of the recent return, as in pgx


@dataclass(frozen=True)
class TagMapping:
    """Metric of pgx that a tag stands for.

    Args:
        key: in pgx/runs/metrics.py.
        factor: converts the values.
    """

    key: str
    factor: float = 1.0


@dataclass(frozen=True)
class Library:
    """Library whose tags are known.

    Args:
        name: of the library.
        short: prefix of its algorithms' names.
        unique_tags: tags that no other library writes.
        tags: by the library's tag.
        each_episode: tag of the returns of single episodes, from which pgx's running mean is made; None: no such tag.
        by_update: prefixes of tags that are written over updates rather than environment steps.
        env_steps: tags with the number of environment steps, for the tags above.
        differs: how its metrics differ from pgx's.
    """

    name: str
    short: str
    unique_tags: frozenset[str]
    tags: Mapping[str, TagMapping]
    each_episode: str | None
    by_update: tuple[str, ...]
    env_steps: frozenset[str]
    differs: str


SB3 = Library(
    name="Stable-Baselines3",
    short="sb3",
    unique_tags=frozenset({"rollout/ep_rew_mean", "time/fps"}),
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
    differs="returns are means over the last 100 episodes (pgx: 20); KL is estimated from samples of the last epoch's "
    "minibatches; clip fraction is the mean over minibatches during the update; updates are logged one rollout later",
)

CLEANRL = Library(
    name="CleanRL",
    short="cleanrl",
    unique_tags=frozenset({"charts/episodic_return", "charts/SPS"}),
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
    differs="the mean over the last 20 episodes is computed here from single episodes; KL is estimated from samples of "
    "the last minibatch",
)

TIANSHOU = Library(
    name="Tianshou",
    short="tianshou",
    unique_tags=frozenset(
        {"training/returns_stat/mean", "test/returns_stat/mean", "training/env_step", "train/env_step"}
    ),
    tags={
        **{
            f"{training}/{tag}": TagMapping(key)
            for training in ("training", "train")  # version 2, earlier versions
            for tag, key in {
                "returns_stat/mean": "episode_return_recent",
                "returns_stat/min": "episode_return_min",
                "returns_stat/max": "episode_return_max",
                "lens_stat/mean": "episode_length",
                "n_collected_episodes": "episodes",
                "reward": "episode_return_recent",  # version 0
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
    differs="returns are means over the episodes of one collection (pgx: the last 20); metrics of updates are placed "
    "at the environment steps at which they were written",
)

LIBRARIES = (SB3, CLEANRL, TIANSHOU)


def detect_library(tags: frozenset[str]) -> Library | None:
    """Return the library that writes such tags; None if it is unknown."""
    return next((library for library in LIBRARIES if library.unique_tags & tags), None)


_ROW = re.compile(r"^\|([^|]+)\|([^|]*)\|$", re.MULTILINE)
_WRITTEN = {"env_id": "env", "exp_name": "algo", "seed": "seed"}  # CleanRL's names of the labels


def read_foreign(folder: Path, labels: Mapping[str, str]) -> RecordedRun:
    """Read the run whose event files are in a folder. Unknown tags keep their names.

    Args:
        folder: of the run.
        labels: given by the user: env, algo, seed.

    Raises:
        UnreadableError: the folder has no scalars over environment steps.
    """
    recorded, texts = read_events(folder)
    library = detect_library(frozenset(recorded))
    config = {name.strip(): value.strip() for text in texts.values() for name, value in _ROW.findall(text)}
    found = _translated(recorded, library)
    known = {own for own in found if own not in recorded}
    counted = [found[own].steps[-1] for own in known or found]
    if not counted:
        raise UnreadableError(f"{folder}: its event files contain no scalars")
    short = library.short if library else "tensorboard"
    from_config = {ours: config[theirs] for theirs, ours in _WRITTEN.items() if config.get(theirs)}
    identity = identify(folder, short, labels, from_config)
    return RecordedRun(
        folder=folder,
        source=library.name if library else "TensorBoard",
        env=identity.env,
        algo=identity.algo,
        seed=identity.seed,
        config=config,
        state="unknown",
        error=None,
        last_step=int(max(counted)),
        series=found,
    )


def _translated(recorded: Mapping[str, EventSeries], library: Library | None) -> dict[str, Series]:
    """Return series by pgx's tags where they exist, with the seconds and the recent return, which no library writes."""
    found: dict[str, Series] = {}
    clocks: list[Series] = []
    for name, column in recorded.items():
        steps = _env_steps(name, column, recorded, library)
        alias = library.tags.get(name) if library else None
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
    if library and library.each_episode is not None and library.each_episode in recorded:
        own = found[tag(library.tags[library.each_episode].key)]
        found[tag("episode_return_recent")] = Series(own.steps, _running_mean(own.values))
    return found


def _ordered(steps: np.ndarray, values: np.ndarray) -> Series:
    order = np.argsort(steps, kind="stable")
    return Series(steps[order], values[order])


def _env_steps(
    name: str, column: EventSeries, recorded: Mapping[str, EventSeries], library: Library | None
) -> np.ndarray:
    """Return the environment steps of a tag's rows; for a tag over updates, the last steps recorded before each row."""
    counts = [recorded[known] for known in library.env_steps if known in recorded] if library else []
    if not library or not counts or not name.startswith(library.by_update):
        return column.steps
    index = np.searchsorted(counts[0].clock, column.clock, side="right") - 1
    return counts[0].steps[np.maximum(index, 0)]


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the last _RECENT_EPISODES values at each value."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - _RECENT_EPISODES, 0)
    return np.asarray((total[end] - total[begin]) / (end - begin))
