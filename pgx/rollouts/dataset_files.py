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

from pgx.core.command_lines import shell_command
from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.extras import require
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec
from pgx.envs import spaces as env_spaces
from pgx.envs.vector import Array, VectorEnv

_FOLDER, _METADATA, _DATA = "data", "metadata.json", "main_data.hdf5"
_NAMESPACE = "namespace_metadata.json"  # what makes a folder of datasets a namespace of Minari's
_MINARI_VERSION = "0.5.4"  # whose layout it is; Minari refuses to read versions that it does not know


def import_h5py() -> Any:
    """The module h5py, an optional dependency.

    Raises:
        UserError: it cannot be imported.
    """
    require("dataset", "h5py")
    import h5py

    return h5py


def space_to_json(space: "Space[Any]") -> str:
    """A space in Minari's words."""
    kind, dtype = type(space).__name__, str(space.dtype)
    said: dict[str, Any]
    match space:
        case spaces.Box():
            said = {"shape": list(space.shape), "low": space.low.tolist(), "high": space.high.tolist()}
        case spaces.Discrete():
            dtype = "int64"  # whatever the space's own: Minari has one
            said = {"start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            said = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case _:
            raise ValueError(f"no environment of pgx has the space {space}")
    return json.dumps({"type": kind, "dtype": dtype} | said)


def space_from_json(text: str) -> "Space[Any]":
    """The space that Minari's words name.

    Raises:
        KeyError: a kind of space that no environment of pgx has.
    """
    said = json.loads(text)
    match said["type"]:
        case "Box":
            low, high = (np.array(said[bound], dtype=said["dtype"]) for bound in ("low", "high"))
            return spaces.Box(low, high, tuple(said["shape"]), low.dtype.type)
        case "Discrete":
            return spaces.Discrete(said["n"], start=said["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(said["nvec"], start=said["start"])
    raise KeyError(said["type"])


@dataclass(frozen=True)
class RecordedEpisode:
    """One whole episode of L steps, in the numbers that a Rollout has them in."""

    obs: Tensor  # [L + 1, ...] raw; the last one is where it ended
    action: Tensor  # [L, ...] the policy's own sample
    log_prob: Tensor  # [L] log mu(a | s) of the policy that acted, nats
    reward: Tensor  # [L] raw
    terminated: bool  # it ended this way, or the other, or both
    truncated: bool
    action_mask: Tensor | None = None  # [L, K] bool; None: all actions, always

    def __len__(self) -> int:
        return len(self.reward)


def split_episodes(rollout: Rollout) -> list[RecordedEpisode]:
    """The episodes of a rollout of whole episodes, environment by environment."""
    found = []
    for i in range(rollout.valid.shape[1]):
        valid, mask = rollout.valid[:, i], rollout.action_mask
        begins = (valid & (rollout.time[:, i] == 0)).nonzero().flatten().tolist()
        ends = (valid & rollout.done[:, i]).nonzero().flatten().tolist()
        for first, last in zip(begins, ends, strict=True):
            own = slice(first, last + 1)
            found.append(
                RecordedEpisode(
                    obs=torch.cat([rollout.obs[own, i], rollout.next_obs[last : last + 1, i]]),
                    action=rollout.action[own, i],
                    log_prob=rollout.log_prob[own, i],
                    reward=rollout.reward[own, i],
                    terminated=bool(rollout.terminated[last, i]),
                    truncated=bool(rollout.truncated[last, i]),
                    action_mask=None if mask is None else mask[own, i],
                )
            )
    return found


def join_episodes(episodes: Sequence[RecordedEpisode]) -> Rollout:
    """A rollout with an episode in each column, as long as the longest; what is past an episode's end is not data."""
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
    """What keeps a path from being read as a dataset, as far as a glance shows; None when nothing does.

    Raises:
        UserError: h5py is missing.
    """
    import_h5py()
    if not path.exists():
        collect = shell_command("collect", "RUN", "--episodes", "100", "--out", path)
        return f"dataset={path}: no such folder; `{collect}` writes a dataset there"
    missing = [name for name in (_METADATA, _DATA) if not (_folder(path) / name).is_file()]
    if missing:
        return (
            f"dataset={path}: not a dataset of episodes in HDF5 (no {' and no '.join(missing)} in {_folder(path)}); "
            "expected the folder that pgx collect wrote, or one of Minari"
        )
    return None


def read_dataset(path: Path, envs: VectorEnv) -> list[RecordedEpisode]:
    """All episodes of a dataset, in memory.

    Args:
        path: the dataset's folder, or the folder `data` in it.
        envs: of the kind that the episodes are to be of.

    Raises:
        UserError: it is no dataset, it is of other observations or actions, or it lacks what weights need.
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
        raise UserError(
            f"dataset={path}: {_METADATA} is not as expected: {type(error).__name__}: {error}"
        ) from error
    _check_fit(path, envs, observation_space, action_space)
    if count == 0:
        raise UserError(f"dataset={path}: holds no episode")
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
    theirs = env_spaces.observation(envs.id, observation)[0], env_spaces.action(envs.id, action)[0]
    ours = envs.obs_spec, envs.action_spec
    found = [
        f"dataset={path}: its {what} are {that}, those of env.id={envs.id} are {this}"
        for what, that, this in zip(("observations", "actions"), theirs, ours, strict=True)
        if that != this
    ]
    if found:
        raise UserError(*found)


def _episode(
    where: str, group: Any, envs: VectorEnv, observation_space: "Space[Any]", action_space: "Space[Any]"
) -> RecordedEpisode:
    infos = group.get("infos", {})
    if "log_prob" not in infos:
        raise UserError(
            f"{where}: no infos/log_prob: weights need the behaviour's probabilities, log mu(a|s) of each action when "
            "it was taken; pgx collect writes them"
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
        raise UserError(
            f"{where}: expected an end, terminated or truncated, in its last step and there alone"
        )
    return episode


def _numbers(where: str, data: Any, space: "Space[Any]", spec: ObsSpec | ActionSpec, steps: int) -> Tensor:
    """[steps, ...] in the environment's numbers as a Rollout has them."""
    assert space.shape is not None
    _check_shape(where, data, (steps, *space.shape))
    own = data[()] - getattr(space, "start", 0)
    if isinstance(spec, Continuous):
        return _finite(where, torch.from_numpy(own.astype(spec.dtype)).reshape(steps, *spec.shape))
    number = torch.from_numpy(own)
    if isinstance(spec, MultiDiscrete):
        number = number.reshape(steps, len(spec.sizes))
    if number.dtype == torch.uint8:
        return number
    assert isinstance(spec, Discrete | MultiDiscrete)
    sizes = torch.tensor(spec.n if isinstance(spec, Discrete) else spec.sizes)
    if bool(((number < 0) | (number >= sizes)).any()):
        raise UserError(f"{where}: numbers outside of {space}")
    return number.long()


def _reals(where: str, data: Any, steps: int) -> Tensor:
    """[steps] float32."""
    _check_shape(where, data, (steps,))
    return _finite(where, torch.from_numpy(data[()].astype(np.float32)))


def _check_shape(where: str, data: Any, shape: tuple[int, ...]) -> None:
    if data.shape != shape:
        raise UserError(f"{where}: expected the shape {list(shape)}, got {list(data.shape)}")


def _finite(where: str, numbers: Tensor) -> Tensor:
    if not bool(numbers.isfinite().all()):
        raise UserError(f"{where}: not all are finite numbers")
    return numbers


class DatasetSummary(NamedTuple):
    """What a dataset holds."""

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
        said = {
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
        (folder / _METADATA).write_text(json.dumps(said | dict(metadata), allow_nan=False))
    return DatasetSummary(count, steps, total / count)


def _dataset_id(path: Path) -> str:
    """Return the name of a dataset with its namespace: the folders between Minari's own and the dataset."""
    name = path.name if "-v" in path.name else f"{path.name}-v0"
    minari, parent = _minari_folder(), path.resolve().parent
    return (parent.relative_to(minari) / name).as_posix() if parent.is_relative_to(minari) else name


def _note_namespaces(path: Path) -> None:
    """Make the folders above a dataset namespaces of Minari's, where they are below its folder."""
    minari, parent = _minari_folder(), path.resolve().parent
    while parent.is_relative_to(minari) and parent != minari:
        if not (parent / _NAMESPACE).exists():
            (parent / _NAMESPACE).write_text("{}")
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
        (temporary / _FOLDER).mkdir(parents=True)
        yield temporary / _FOLDER
        _note_namespaces(path)
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _columns(
    episode: RecordedEpisode, observation_space: "Space[Any]", action_space: "Space[Any]"
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
