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
"""

import json
from typing import Any

import numpy as np
from gymnasium import Space, spaces

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
