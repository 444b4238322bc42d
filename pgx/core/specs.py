"""Specs of observations and actions, independent of the environment's library."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Discrete:
    """Integers 0..n-1."""

    n: int


@dataclass(frozen=True)
class MultiDiscrete:
    """Tuples of integers, the i-th in 0..sizes[i]-1."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Continuous:
    """Real arrays of a shape; an action space has one dimension and bounds."""

    shape: tuple[int, ...]
    low: tuple[float, ...] | None = None  # of each component, infinite if unbounded; None: unknown
    high: tuple[float, ...] | None = None
    dtype: Literal["float32", "float64"] = (
        "float32"  # of observations in rollouts; networks compute in float32
    )


@dataclass(frozen=True)
class Image:
    """Arrays uint8 in three dimensions, one of which is the channels; networks convert them to float."""

    shape: tuple[int, int, int]


ObsSpec = Continuous | Discrete | Image
ActionSpec = Continuous | Discrete | MultiDiscrete


def obs_dtype(obs: ObsSpec) -> Literal["float32", "float64", "int64", "uint8"]:
    """Return the dtype of observations in rollouts, as NumPy and torch name it."""
    match obs:
        case Continuous():
            return obs.dtype
        case Discrete():
            return "int64"
        case Image():
            return "uint8"


def dimensions(action: ActionSpec) -> int | None:
    """Return the components of a continuous action; None for others."""
    return action.shape[0] if isinstance(action, Continuous) else None


def choice_sizes(action: ActionSpec) -> tuple[int, ...]:
    """Return the sizes of the discrete choices of an action; empty for a continuous one."""
    match action:
        case Discrete(n):
            return (n,)
        case MultiDiscrete(sizes):
            return sizes
        case Continuous():
            return ()
