"""How a rate changes over training: factors in [0, 1] as functions of progress in [0, 1]."""

import math
from collections.abc import Callable
from typing import Literal

Schedule = Callable[[float], float]
ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt"]


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float) -> float:
    """1 - progress: from 1 down to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """(1 + cos(π progress)) / 2: flat at both ends, from 1 down to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def inverse_sqrt(progress: float) -> float:
    """1 / √(1 + 99 progress): like 1/√t over training, from 1 down to a tenth."""
    return 1.0 / math.sqrt(1.0 + 99.0 * progress)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
}
