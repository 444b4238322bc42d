"""Conversion of Gymnasium spaces to specs, of observations and actions, and of action masks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.envs.vector import AnyArray

Convert = Callable[[AnyArray], AnyArray]


def observation_spec(env_id: str, space: "Space[object]") -> tuple[ObsSpec, Convert]:
    """Return the spec of one observation, and the conversion of a batch [N, ...] to the numbers of a rollout.

    Images stay uint8 and discrete observations become int64. Other numbers become float32, or float64 if float32
    cannot hold every value of the space's dtype. The observation normalizer casts to float32 after it has subtracted
    the mean, so a large offset costs no digits.

    Raises:
        UserError: the space is neither Box nor Discrete.
    """
    if isinstance(space, spaces.Box):
        shape = space.shape
        if space.dtype == np.uint8 and len(shape) == 3:
            return Image(shape), lambda obs: obs.reshape(len(obs), *shape)
        dtype: Literal["float32", "float64"]
        dtype = "float32" if np.can_cast(space.dtype, np.float32) else "float64"
        return Continuous(shape, dtype=dtype), lambda obs: obs.astype(dtype).reshape(len(obs), *shape)
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return Discrete(int(space.n)), lambda obs: obs.astype(np.int64).reshape(len(obs)) - start
    raise UserError(f"env.id={env_id}: observations are {space}; supported are Box and Discrete")


def action_spec(env_id: str, space: "Space[object]") -> tuple[ActionSpec, Convert]:
    """Return the spec of one action, and the conversion of a policy's samples [N, ...] to actions of the space.

    Raises:
        UserError: the space is not Discrete, MultiDiscrete or a Box of real numbers.
    """
    if isinstance(space, spaces.Discrete):
        start, dtype = int(space.start), space.dtype
        return Discrete(int(space.n)), lambda a: (a + start).astype(dtype)
    if isinstance(space, spaces.MultiDiscrete):
        first, shape, dtype = space.start, space.shape, space.dtype
        sizes = tuple(int(n) for n in space.nvec.ravel())
        return MultiDiscrete(sizes), lambda a: (a.reshape(len(a), *shape) + first).astype(dtype)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
        width = int(np.prod(shape))
        bounds = tuple(map(float, low.ravel())), tuple(map(float, high.ravel()))
        return Continuous((width,), *bounds), lambda a: np.clip(a.reshape(len(a), *shape), low, high).astype(
            dtype
        )
    raise UserError(
        f"env.id={env_id}: actions are {space}; supported are Discrete, MultiDiscrete and Box of real numbers"
    )


Mask = NDArray[np.bool_]

_MASK_FIX = "1 or True allows an action, 0 or False forbids it; convert an additive mask with `mask == 0`"


def mask_problem(mask: Any, sizes: Sequence[int]) -> str:
    """Return what is wrong with an action mask; empty: it is valid.

    Args:
        mask: as returned by the environment: one array, or a tuple with an array for each component.
        sizes: numbers of choices of the action's components.
    """
    joined = _joined(mask)
    if joined.shape != (sum(sizes),):
        return f"has the shape {list(joined.shape)}; expected [{sum(sizes)}], a number for each choice"
    if joined.dtype.kind == "b":
        return ""
    if joined.dtype.kind not in "iuf" or not ((joined == 0) | (joined == 1)).all():
        wrong = next(entry for entry in joined.tolist() if entry not in (0, 1))
        return f"contains {wrong!r}; expected 0 or 1 for each choice: {_MASK_FIX}"
    return ""


def read_mask(mask: Any) -> Mask:
    """Return a valid mask as booleans [K]."""
    return _joined(mask).astype(bool)


def no_action_allowed(allowed: Mask, sizes: Sequence[int]) -> Mask:
    """Return for each row of masks [N, K] whether it forbids every choice of some component; [N]."""
    parts = np.split(allowed, np.cumsum(sizes)[:-1], axis=1)
    closed: Mask = np.any([~part.any(axis=1) for part in parts], axis=0)
    return closed


def _joined(mask: Any) -> NDArray[Any]:
    return np.concatenate(mask) if isinstance(mask, tuple) and mask else np.asarray(mask)
