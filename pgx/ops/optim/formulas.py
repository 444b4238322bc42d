"""Formulas of first-order optimizers: clipping, directions of steps, and learning-rate schedules.

A step is weights - learning_rate * schedule(progress) * direction. All tensors have one shape, or broadcast to it.
"""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor


def clip_by_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Return gradient * min(1, max_norm / |gradient|), with the 2-norm of the whole gradient.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1.
    """
    # The small constant keeps a zero gradient at zero.
    scale: Tensor = max_norm / (gradient.norm() + 1e-6)
    return gradient * scale.clamp(max=1.0)


def heavy_ball(gradient: Tensor, velocity: Tensor, momentum: float) -> Tensor:
    """Return the velocity after this gradient, v ← μ v + g, which is the direction of the step.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964, with the learning rate
    outside v.
    """
    return momentum * velocity + gradient


def rmsprop(gradient: Tensor, square: Tensor, decay: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the direction g / (√s + ε) and the new mean square s ← δ s + (1 - δ) g².

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012; the form of Mnih et al., "Asynchronous methods for deep
    reinforcement learning", 2016, eq. 8, with ε outside the root.
    """
    square = decay * square + (1 - decay) * gradient.square()
    return gradient / (square.sqrt() + epsilon), square


def adam(
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    first_total: Tensor,
    second_total: Tensor,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the direction m̂ / (√v̂ + ε), and m ← β1 m + (1 - β1) g and v ← β2 v + (1 - β2) g².

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Args:
        gradient: g.
        first, second: m and v before this gradient.
        first_total, second_total: 1 - β1^t and 1 - β2^t from `total_weight`; m̂ = m / (1 - β1^t), v̂ = v / (1 - β2^t).
        beta1, beta2, epsilon: β1, β2, ε.

    Returns:
        The direction, m and v.
    """
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient.square()
    return (first / first_total) / ((second / second_total).sqrt() + epsilon), first, second


def total_weight(total: Tensor, decay: float) -> Tensor:
    """Return the sum of the weights of a running mean after one more term, w ← β w + (1 - β): 1 - β^t after t terms.

    It uses the recursion of the mean, because a power would be computed for every coordinate.
    """
    return decay * total + (1 - decay)


Schedule = Callable[[float], float]
ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt"]


def constant_schedule(progress: float) -> float:
    """Return 1."""
    return 1.0


def linear_schedule(progress: float) -> float:
    """Return 1 - progress, which falls from 1 to 0."""
    return 1.0 - progress


def cosine_schedule(progress: float) -> float:
    """Return (1 + cos(π progress)) / 2, which falls from 1 to 0 and is flat at both ends."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def inverse_sqrt_schedule(progress: float) -> float:
    """Return 1 / √(1 + 99 progress), which falls like 1/√t from 1 to a tenth."""
    return 1.0 / math.sqrt(1.0 + 99.0 * progress)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant_schedule,
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "inverse_sqrt": inverse_sqrt_schedule,
}
