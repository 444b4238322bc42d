"""Where things are in a dataset: the HDF5 layout of Minari 0.5.

    PATH/data/metadata.json      spaces, totals, the environment's spec
    PATH/data/main_data.hdf5     a group episode_<i> for each episode, of L steps:
        observations [L + 1, ...]; actions [L, ...]; rewards, terminations, truncations [L]
        infos/log_prob [L]       log mu(a|s) of the policy that acted, nats
        infos/sample [L, ...]    continuous actions as the policy drew them, which log_prob is of; `actions` are clipped
        infos/action_mask [L, K] the actions that could be taken, where the environment says so

The names in `infos` are ours, the rest is Minari's.

Source: minari/dataset/minari_storage.py, dataset/_storages/hdf5_storage.py, serialization.py, storage/local.py and
namespace.py of Minari 0.5.4.

A whole episode, and the way between such and rollouts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pgx.core.data import Rollout
from pgx.core.extras import require

FOLDER, METADATA, DATA = "data", "metadata.json", "main_data.hdf5"
NAMESPACE = "namespace_metadata.json"  # what makes a folder of datasets a namespace of Minari's
MINARI_VERSION = "0.5.4"  # whose layout it is; Minari refuses to read versions that it does not know


def hdf5() -> Any:
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
class Trajectory:
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


def split(rollout: Rollout) -> list[Trajectory]:
    """The episodes of a rollout of whole episodes, environment by environment."""
    found = []
    for i in range(rollout.valid.shape[1]):
        valid, mask = rollout.valid[:, i], rollout.action_mask
        begins = (valid & (rollout.time[:, i] == 0)).nonzero().flatten().tolist()
        ends = (valid & rollout.done[:, i]).nonzero().flatten().tolist()
        for first, last in zip(begins, ends, strict=True):
            own = slice(first, last + 1)
            found.append(
                Trajectory(
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


def join(episodes: Sequence[Trajectory]) -> Rollout:
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
