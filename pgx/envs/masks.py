"""Read the action masks that environments show in `info["action_mask"]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

FIX = "1 or True allows an action, 0 or False forbids it; an additive mask becomes one by `mask == 0`"


def mask_problem(mask: Any, sizes: Sequence[int]) -> str:
    """Describe what is wrong with a mask; empty: nothing.

    Args:
        mask: as the environment shows it: one array, or a tuple with an array for each component.
        sizes: of the discrete choices that an action consists of.
    """
    joined = _joined(mask)
    if joined.shape != (sum(sizes),):
        return f"has the shape {list(joined.shape)}; expected [{sum(sizes)}], a number for each choice"
    if joined.dtype.kind == "b":
        return ""
    if joined.dtype.kind not in "iuf" or not ((joined == 0) | (joined == 1)).all():
        wrong = next(entry for entry in joined.tolist() if entry not in (0, 1))
        return f"contains {wrong!r}; expected 0 or 1 for each choice: {FIX}"
    return ""


def read_mask(mask: Any) -> Mask:
    """Return a mask without a problem as booleans [K]."""
    return _joined(mask).astype(bool)


def stuck(allowed: Mask, sizes: Sequence[int]) -> Mask:
    """Return for each row of masks [N, K] whether it forbids every alternative of some choice; [N]."""
    parts = np.split(allowed, np.cumsum(sizes)[:-1], axis=1)
    closed: Mask = np.any([~part.any(axis=1) for part in parts], axis=0)
    return closed


def _joined(mask: Any) -> NDArray[Any]:
    return np.concatenate(mask) if isinstance(mask, tuple) and mask else np.asarray(mask)
