"""Writing a dataset."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces
from torch import Tensor

from pgx.core.errors import UserError
from pgx.envs.vector import Array
from pgx.rollouts.datasets.format import (
    DATA,
    FOLDER,
    METADATA,
    MINARI_VERSION,
    NAMESPACE,
    Trajectory,
    hdf5,
    space_to_json,
)


class Written(NamedTuple):
    """What a dataset holds."""

    episodes: int
    steps: int
    mean_return: float  # raw, undiscounted


def write_dataset(
    path: Path,
    episodes: Iterable[Trajectory],
    observation_space: "Space[Any]",
    action_space: "Space[Any]",
    metadata: Mapping[str, Any],
) -> Written:
    """Write the episodes as they come; the dataset is at its path whole, or not at all.

    Args:
        path: where nothing is yet. Minari finds the dataset by its path below Minari's folder ($MINARI_DATASETS_PATH,
            or ~/.minari/datasets), and elsewhere by its last part.
        episodes: one at least.
        observation_space, action_space: of the environment that they were played in.
        metadata: what else Minari's metadata.json is to say, e.g. env_spec.

    Raises:
        UserError: something is at the path, it cannot be written, or h5py is missing.
    """
    h5py, count, steps, total = hdf5(), 0, 0, 0.0
    with _new_folder(path) as folder:
        with h5py.File(folder / DATA, "w") as file:
            for episode in episodes:
                group = file.create_group(f"episode_{count}")
                group.attrs.update({"id": count, "total_steps": len(episode)})
                for name, column in _columns(episode, observation_space, action_space).items():
                    group[name] = column
                count, steps = count + 1, steps + len(episode)
                total += float(episode.reward.double().sum())
        said = {
            "dataset_id": _dataset_id(path),
            "total_episodes": count,
            "total_steps": steps,
            "dataset_size": round((folder / DATA).stat().st_size / 1e6, 1),  # MB
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": space_to_json(observation_space),
            "action_space": space_to_json(action_space),
            "minari_version": MINARI_VERSION,
        }
        (folder / METADATA).write_text(json.dumps(said | dict(metadata), allow_nan=False))
    return Written(count, steps, total / count)


def _dataset_id(path: Path) -> str:
    """Return the name of a dataset with its namespace: the folders between Minari's own and the dataset."""
    name = path.name if "-v" in path.name else f"{path.name}-v0"
    minari, parent = _minari_folder(), path.resolve().parent
    return (parent.relative_to(minari) / name).as_posix() if parent.is_relative_to(minari) else name


def _note_namespaces(path: Path) -> None:
    """Make the folders above a dataset namespaces of Minari's, where they are below its folder."""
    minari, parent = _minari_folder(), path.resolve().parent
    while parent.is_relative_to(minari) and parent != minari:
        if not (parent / NAMESPACE).exists():
            (parent / NAMESPACE).write_text("{}")
        parent = parent.parent


def _minari_folder() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").resolve()


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """The folder of the data, which appears at `path` when all that belongs there is written."""
    if path.exists():
        raise UserError(f"{path}: is there already, and nothing is written over; choose another path")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        (temporary / FOLDER).mkdir(parents=True)
        yield temporary / FOLDER
        _note_namespaces(path)
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _columns(
    episode: Trajectory, observation_space: "Space[Any]", action_space: "Space[Any]"
) -> dict[str, Array]:
    terminations, truncations = np.zeros((2, len(episode)), dtype=bool)
    terminations[-1], truncations[-1] = episode.terminated, episode.truncated
    sample = _as_in(action_space, episode.action)
    columns: dict[str, Array] = {
        "observations": _as_in(observation_space, episode.obs),
        "actions": sample,
        "rewards": episode.reward.cpu().double().numpy(),
        "terminations": terminations,
        "truncations": truncations,
        "infos/log_prob": episode.log_prob.cpu().numpy(),
    }
    if isinstance(action_space, spaces.Box):
        columns["actions"] = sample.clip(action_space.low, action_space.high)
        columns["infos/sample"] = sample
    if episode.action_mask is not None:
        columns["infos/action_mask"] = episode.action_mask.cpu().numpy()
    return columns


def _as_in(space: "Space[Any]", numbers: Tensor) -> Array:
    """[L, ...] in a Rollout's numbers (whole ones from 0, actions flat) as the space has them."""
    assert space.shape is not None
    shaped: Array = numbers.cpu().numpy().reshape(len(numbers), *space.shape)
    return (shaped + getattr(space, "start", 0)).astype(space.dtype)
