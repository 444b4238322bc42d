"""Rate of a training loop, computed alike for pgx and for other libraries."""

from collections.abc import Sequence

Stamp = tuple[int, float]  # environment steps and time in seconds at the end of an iteration


def steps_per_second(stamps: Sequence[Stamp], warm_up: int) -> float:
    """Environment steps per second between the end of the warm-up and the end of the last iteration.

    Start-up, compilation and other work of the first iterations are before the first counted stamp.

    Args:
        stamps: ends of iterations, in order.
        warm_up: steps at which the clock starts.

    Raises:
        ValueError: no iteration ended after the warm-up.
    """
    counted = [stamp for stamp in stamps if stamp[0] >= warm_up]
    if len(counted) < 2:
        raise ValueError(f"no iteration ended after the {warm_up:,} steps of warm-up: {len(stamps)} in all")
    (steps, begin), (last, end) = counted[0], counted[-1]
    return (last - steps) / (end - begin)
