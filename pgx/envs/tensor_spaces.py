"""Conversion of actions to tensors of Gymnasium spaces, for exported networks.

Separate from spaces.py because worker processes do not import torch.
"""

from collections.abc import Callable

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor


def tensor_action(space: "Space[object]") -> Callable[[Tensor], Tensor]:
    """Return the conversion of a policy's samples [N, ...] to actions of a space, as `action_spec` does for arrays."""
    if isinstance(space, spaces.Box):
        low, high = torch.from_numpy(np.stack([space.low, space.high]).astype(np.float32))
        dtype = torch.float64 if space.dtype == np.float64 else torch.float32
        return lambda a: a.reshape(-1, *low.shape).maximum(low).minimum(high).to(dtype)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    first = torch.from_numpy(np.asarray(space.start, np.int64))
    return lambda a: a.reshape(-1, *first.shape) + first


def first_observation(space: "Space[object]") -> int:
    """Return the smallest observation of a Discrete space; 0 for other spaces."""
    return int(space.start) if isinstance(space, spaces.Discrete) else 0
