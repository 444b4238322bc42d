"""Datasets of episodes: reading and writing them in the HDF5 layout of Minari 0.5.

    PATH/data/metadata.json      spaces, totals, the environment's spec
    PATH/data/main_data.hdf5     a group episode_<i> for each episode, of L steps:
        observations [L + 1, ...]; actions [L, ...]; rewards, terminations, truncations [L]
        infos/log_prob [L]       log mu(a|s) of the behaviour policy, nats
        infos/sample [L, ...]    continuous actions as the policy sampled them, to which log_prob belongs; `actions`
                                 are clipped
        infos/action_mask [L, K] the available actions, where the environment has a mask

The names in `infos` are pgx's, the rest is Minari's.

Source: minari/dataset/minari_storage.py, dataset/_storages/hdf5_storage.py, serialization.py, storage/local.py and
namespace.py of Minari 0.5.4.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.imports import require
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec
from pgx.core.text import shell_command
from pgx.envs import spaces as env_spaces
from pgx.envs.vector import AnyArray, VectorEnv

_FOLDER, _METADATA, _DATA = "data", "metadata.json", "main_data.hdf5"
_NAMESPACE = "namespace_metadata.json"  # marks a folder of datasets as a namespace of Minari
_MINARI_VERSION = "0.5.4"  # version of the layout; Minari refuses versions that it does not know


def import_h5py() -> Any:
    """Import and return h5py, an optional dependency.

    Raises:
        UserError: h5py is not installed.
    """
    require("dataset", "h5py")
    import h5py

    return h5py


def space_to_json(space: "Space[Any]") -> str:
    """Return Minari's JSON for a space."""
    kind, dtype = type(space).__name__, str(space.dtype)
    fields: dict[str, Any]
    match space:
        case spaces.Box():
            fields = {"shape": list(space.shape), "low": space.low.tolist(), "high": space.high.tolist()}
        case spaces.Discrete():
            dtype = "int64"  # Minari stores no other type
            fields = {"start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            fields = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case _:
            raise ValueError(f"no environment of pgx has the space {space}")
    return json.dumps({"type": kind, "dtype": dtype} | fields)


def space_from_json(text: str) -> "Space[Any]":
    """Return the space that Minari's JSON describes.

    Raises:
        KeyError: no environment of pgx has such a space.
    """
    fields = json.loads(text)
    match fields["type"]:
        case "Box":
            low, high = (np.array(fields[bound], dtype=fields["dtype"]) for bound in ("low", "high"))
            return spaces.Box(low, high, tuple(fields["shape"]), low.dtype.type)
        case "Discrete":
            return spaces.Discrete(fields["n"], start=fields["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(fields["nvec"], start=fields["start"])
    raise KeyError(fields["type"])


@dataclass(frozen=True)
class RecordedEpisode:
    """Whole episode of L steps, with the numbers of a `Rollout`."""

    obs: Tensor  # [L + 1, ...] raw, including the last successor
    action: Tensor  # [L, ...] as the policy sampled it
    log_prob: Tensor  # [L] log mu(a | s) of the behaviour policy, nats
    reward: Tensor  # [L] raw
    terminated: bool  # at the last step; at least one of both is true
    truncated: bool
    action_mask: Tensor | None = None  # [L, K] bool; None: all actions are available

    def __len__(self) -> int:
        return len(self.reward)


def split_episodes(rollout: Rollout) -> list[RecordedEpisode]:
    """Return the episodes of a rollout of whole episodes, in the order of environments."""
    found = []
    for i in range(rollout.valid.shape[1]):
        valid, mask = rollout.valid[:, i], rollout.action_mask
        begins = (valid & (rollout.time[:, i] == 0)).nonzero().flatten().tolist()
        ends = (valid & rollout.done[:, i]).nonzero().flatten().tolist()
        for first, last in zip(begins, ends, strict=True):
            steps = slice(first, last + 1)
            found.append(
                RecordedEpisode(
                    obs=torch.cat([rollout.obs[steps, i], rollout.next_obs[last : last + 1, i]]),
                    action=rollout.action[steps, i],
                    log_prob=rollout.log_prob[steps, i],
                    reward=rollout.reward[steps, i],
                    terminated=bool(rollout.terminated[last, i]),
                    truncated=bool(rollout.truncated[last, i]),
                    action_mask=None if mask is None else mask[steps, i],
                )
            )
    return found


def join_episodes(episodes: Sequence[RecordedEpisode]) -> Rollout:
    """Return a rollout with one episode in each column. Columns are padded with invalid rows to equal length."""
    lengths = torch.tensor([len(episode) for episode in episodes])
    row = torch.arange(int(lengths.max())).unsqueeze(1)
    valid, last = row < lengths, row == lengths - 1
    masks = [episode.action_mask for episode in episodes if episode.action_mask is not None]
    return Rollout(
        obs=pad_sequence([episode.obs[:-1] for episode in episodes]),
        action=pad_sequence([episode.action for episode in episodes]),
        log_prob=pad_sequence([episode.log_prob for episode in episodes]),
        reward=pad_sequence([episode.reward for episode in episodes]),
        next_obs=pad_sequence([episode.obs[1:] for episode in episodes]),
        terminated=last & torch.tensor([episode.terminated for episode in episodes]),
        truncated=last & torch.tensor([episode.truncated for episode in episodes]),
        valid=valid,
        time=row.where(valid, 0),
        action_mask=pad_sequence(masks, padding_value=1.0) if masks else None,
    )


def dataset_problem(path: Path) -> str | None:
    """Return why a path is not a dataset, judging by its files only; None if it looks like one.

    Raises:
        UserError: h5py is not installed.
    """
    import_h5py()
    if not path.exists():
        collect = shell_command("collect", "RUN", "--episodes", "100", "--out", path)
        return f"dataset={path}: no such folder; write a dataset with `{collect}`"
    missing = [name for name in (_METADATA, _DATA) if not (_folder(path) / name).is_file()]
    if missing:
        return (
            f"dataset={path}: not a dataset of episodes in HDF5 (no {' and no '.join(missing)} in {_folder(path)}); "
            "set a folder that pgx collect or Minari wrote"
        )
    return None


def read_dataset(path: Path, envs: VectorEnv) -> list[RecordedEpisode]:
    """Read all episodes of a dataset into memory.

    Args:
        path: folder of the dataset, or the folder `data` in it.
        envs: environments whose observations and actions the episodes must have.

    Raises:
        UserError: the path is not a dataset, its observations or actions differ, or log-probabilities are missing.
    """
    h5py = import_h5py()
    if problem := dataset_problem(path):
        raise UserError(problem)
    try:
        metadata = json.loads((_folder(path) / _METADATA).read_text())
        observation_space = space_from_json(metadata["observation_space"])
        action_space = space_from_json(metadata["action_space"])
        count = int(metadata["total_episodes"])
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, RecursionError) as error:
        raise UserError(f"dataset={path}: {_METADATA} is invalid: {type(error).__name__}: {error}") from error
    _check_fit(path, envs, observation_space, action_space)
    if count == 0:
        raise UserError(f"dataset={path}: contains no episode; record it again")
    try:
        with h5py.File(_folder(path) / _DATA, "r") as file:
            return [
                _episode(
                    f"dataset={path}, episode_{i}",
                    file[f"episode_{i}"],
                    envs,
                    observation_space,
                    action_space,
                )
                for i in range(count)
            ]
    except (OSError, KeyError) as error:
        raise UserError(f"dataset={path}: {_DATA} cannot be read: {error}") from error


def _folder(path: Path) -> Path:
    return path / _FOLDER if (path / _FOLDER).is_dir() else path


def _check_fit(path: Path, envs: VectorEnv, observation: "Space[Any]", action: "Space[Any]") -> None:
    recorded = (
        env_spaces.observation_spec(envs.id, observation)[0],
        env_spaces.action_spec(envs.id, action)[0],
    )
    expected = envs.obs_spec, envs.action_spec
    found = [
        f"dataset={path}: its {kind} are {one}, those of env.id={envs.id} are {other}"
        for kind, one, other in zip(("observations", "actions"), recorded, expected, strict=True)
        if one != other
    ]
    if found:
        raise UserError(*found)


def _episode(
    where: str, group: Any, envs: VectorEnv, observation_space: "Space[Any]", action_space: "Space[Any]"
) -> RecordedEpisode:
    infos = group.get("infos", {})
    if "log_prob" not in infos:
        raise UserError(
            f"{where}: no infos/log_prob: importance weights need log mu(a|s) of each action under the behaviour "
            "policy; record the dataset with pgx collect"
        )
    steps = len(group["rewards"])
    actions = infos["sample"] if "sample" in infos else group["actions"]
    mask = torch.from_numpy(infos["action_mask"][:steps]).bool() if "action_mask" in infos else None
    episode = RecordedEpisode(
        obs=_numbers(
            f"{where}, observations", group["observations"], observation_space, envs.obs_spec, steps + 1
        ),
        action=_numbers(f"{where}, actions", actions, action_space, envs.action_spec, steps),
        log_prob=_reals(f"{where}, infos/log_prob", infos["log_prob"], steps),
        reward=_reals(f"{where}, rewards", group["rewards"], steps),
        terminated=bool(group["terminations"][-1]),
        truncated=bool(group["truncations"][-1]),
        action_mask=mask,
    )
    done = group["terminations"][:] | group["truncations"][:]
    if not done[-1] or done[:-1].any():
        raise UserError(f"{where}: expected terminated or truncated at the last step and at no other")
    return episode


def _numbers(where: str, data: Any, space: "Space[Any]", spec: ObsSpec | ActionSpec, steps: int) -> Tensor:
    """Return observations or actions of a dataset [steps, ...] with the numbers of a Rollout."""
    assert space.shape is not None
    _check_shape(where, data, (steps, *space.shape))
    values = data[()] - getattr(space, "start", 0)
    if isinstance(spec, Continuous):
        return _finite(where, torch.from_numpy(values.astype(spec.dtype)).reshape(steps, *spec.shape))
    number = torch.from_numpy(values)
    if isinstance(spec, MultiDiscrete):
        number = number.reshape(steps, len(spec.sizes))
    if number.dtype == torch.uint8:
        return number
    assert isinstance(spec, Discrete | MultiDiscrete)
    sizes = torch.tensor(spec.n if isinstance(spec, Discrete) else spec.sizes)
    if bool(((number < 0) | (number >= sizes)).any()):
        raise UserError(f"{where}: contains numbers outside of {space}")
    return number.long()


def _reals(where: str, data: Any, steps: int) -> Tensor:
    """Return a column of a dataset, [steps] float32."""
    _check_shape(where, data, (steps,))
    return _finite(where, torch.from_numpy(data[()].astype(np.float32)))


def _check_shape(where: str, data: Any, shape: tuple[int, ...]) -> None:
    if data.shape != shape:
        raise UserError(f"{where}: expected shape {list(shape)}, got {list(data.shape)}")


def _finite(where: str, numbers: Tensor) -> Tensor:
    if not bool(numbers.isfinite().all()):
        raise UserError(f"{where}: contains NaN or infinite numbers")
    return numbers


class DatasetSummary(NamedTuple):
    """Totals of a dataset."""

    episodes: int
    steps: int
    mean_return: float  # raw, undiscounted


def write_dataset(
    path: Path,
    episodes: Iterable[RecordedEpisode],
    observation_space: "Space[Any]",
    action_space: "Space[Any]",
    metadata: Mapping[str, Any],
) -> DatasetSummary:
    """Write a dataset. It appears at its path when it is complete; a failure leaves nothing there.

    Args:
        path: new folder. Below Minari's folder ($MINARI_DATASETS_PATH or ~/.minari/datasets), the relative path is
            Minari's name of the dataset; elsewhere it is the last part of the path.
        episodes: at least one; they are written while they are iterated over.
        observation_space, action_space: spaces of the environment.
        metadata: further entries of Minari's metadata.json, for example env_spec.

    Raises:
        UserError: the path exists, cannot be written, or h5py is not installed.
    """
    h5py, count, steps, total = import_h5py(), 0, 0, 0.0
    with _new_folder(path) as folder:
        with h5py.File(folder / _DATA, "w") as file:
            for episode in episodes:
                group = file.create_group(f"episode_{count}")
                group.attrs.update({"id": count, "total_steps": len(episode)})
                for name, column in _columns(episode, observation_space, action_space).items():
                    group[name] = column
                count, steps = count + 1, steps + len(episode)
                total += float(episode.reward.double().sum())
        summary = {
            "dataset_id": _dataset_id(path),
            "total_episodes": count,
            "total_steps": steps,
            "dataset_size": round((folder / _DATA).stat().st_size / 1e6, 1),  # MB
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": space_to_json(observation_space),
            "action_space": space_to_json(action_space),
            "minari_version": _MINARI_VERSION,
        }
        (folder / _METADATA).write_text(json.dumps(summary | dict(metadata), allow_nan=False))
    return DatasetSummary(count, steps, total / count)


def _dataset_id(path: Path) -> str:
    """Return Minari's name of a dataset, with the folders below Minari's folder as its namespace."""
    name = path.name if "-v" in path.name else f"{path.name}-v0"
    minari, parent = _minari_folder(), path.resolve().parent
    return (parent.relative_to(minari) / name).as_posix() if parent.is_relative_to(minari) else name


def _mark_namespaces(path: Path) -> None:
    """Mark the folders between Minari's folder and a dataset as namespaces."""
    minari, parent = _minari_folder(), path.resolve().parent
    while parent.is_relative_to(minari) and parent != minari:
        if not (parent / _NAMESPACE).exists():
            (parent / _NAMESPACE).write_text("{}")
        parent = parent.parent


def _minari_folder() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").resolve()


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary data folder, and rename it to `path` when the block succeeds."""
    if path.exists():
        raise UserError(f"{path}: already exists and is not overwritten; choose another path")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        (temporary / _FOLDER).mkdir(parents=True)
        yield temporary / _FOLDER
        _mark_namespaces(path)
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _columns(
    episode: RecordedEpisode, observation_space: "Space[Any]", action_space: "Space[Any]"
) -> dict[str, AnyArray]:
    terminations, truncations = np.zeros((2, len(episode)), dtype=bool)
    terminations[-1], truncations[-1] = episode.terminated, episode.truncated
    sample = _to_space(action_space, episode.action)
    columns: dict[str, AnyArray] = {
        "observations": _to_space(observation_space, episode.obs),
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


def _to_space(space: "Space[Any]", numbers: Tensor) -> AnyArray:
    """Convert the numbers of a Rollout [L, ...] (integers from 0, flat actions) to those of the space."""
    assert space.shape is not None
    shaped: AnyArray = numbers.cpu().numpy().reshape(len(numbers), *space.shape)
    return (shaped + getattr(space, "start", 0)).astype(space.dtype)
