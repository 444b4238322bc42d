"""Reading a dataset: what pgx collect wrote, or Minari with the probabilities of its actions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor

from pgx.core.command_lines import shell_command
from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, MultiDiscrete, ObsSpec
from pgx.envs import spaces
from pgx.envs.vector import VectorEnv
from pgx.rollouts.datasets.format import DATA, FOLDER, METADATA, Trajectory, hdf5, space_from_json


def dataset_problem(path: Path) -> str | None:
    """What keeps a path from being read as a dataset, as far as a glance shows; None when nothing does.

    Raises:
        UserError: h5py is missing.
    """
    hdf5()
    if not path.exists():
        collect = shell_command("collect", "RUN", "--episodes", "100", "--out", path)
        return f"dataset={path}: no such folder; `{collect}` writes a dataset there"
    missing = [name for name in (METADATA, DATA) if not (_folder(path) / name).is_file()]
    if missing:
        return (
            f"dataset={path}: not a dataset of episodes in HDF5 (no {' and no '.join(missing)} in {_folder(path)}); "
            "expected the folder that pgx collect wrote, or one of Minari"
        )
    return None


def read_dataset(path: Path, envs: VectorEnv) -> list[Trajectory]:
    """All episodes of a dataset, in memory.

    Args:
        path: the dataset's folder, or the folder `data` in it.
        envs: of the kind that the episodes are to be of.

    Raises:
        UserError: it is no dataset, it is of other observations or actions, or it lacks what weights need.
    """
    h5py = hdf5()
    if problem := dataset_problem(path):
        raise UserError(problem)
    try:
        metadata = json.loads((_folder(path) / METADATA).read_text())
        observation_space = space_from_json(metadata["observation_space"])
        action_space = space_from_json(metadata["action_space"])
        count = int(metadata["total_episodes"])
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, RecursionError) as error:
        raise UserError(
            f"dataset={path}: {METADATA} is not as expected: {type(error).__name__}: {error}"
        ) from error
    _check_fit(path, envs, observation_space, action_space)
    if count == 0:
        raise UserError(f"dataset={path}: holds no episode")
    try:
        with h5py.File(_folder(path) / DATA, "r") as file:
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
        raise UserError(f"dataset={path}: {DATA} cannot be read: {error}") from error


def _folder(path: Path) -> Path:
    return path / FOLDER if (path / FOLDER).is_dir() else path


def _check_fit(path: Path, envs: VectorEnv, observation: "Space[Any]", action: "Space[Any]") -> None:
    theirs = spaces.observation(envs.id, observation)[0], spaces.action(envs.id, action)[0]
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
) -> Trajectory:
    infos = group.get("infos", {})
    if "log_prob" not in infos:
        raise UserError(
            f"{where}: no infos/log_prob: weights need the behaviour's probabilities, log mu(a|s) of each action when "
            "it was taken; pgx collect writes them"
        )
    steps = len(group["rewards"])
    actions = infos["sample"] if "sample" in infos else group["actions"]
    mask = torch.from_numpy(infos["action_mask"][:steps]).bool() if "action_mask" in infos else None
    episode = Trajectory(
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
