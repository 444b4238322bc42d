"""How a loop's rate is taken: one rule for pgx and for its peers, which run in environments of their own."""

from collections.abc import Sequence

Stamp = tuple[int, float]  # environment steps so far and seconds on the clock, where an iteration ends


def steps_per_second(stamps: Sequence[Stamp], warm_up: int) -> float:
    """Environment steps per second between the end of the warm-up and the end of the last iteration.

    Start-up, compilation and whatever else only a first iteration does lie before the first stamp that counts.

    Args:
        stamps: the ends of iterations, in order.
        warm_up: the clock starts at the first stamp with as many steps.

    Raises:
        ValueError: no iteration ended after the warm-up.
    """
    counted = [stamp for stamp in stamps if stamp[0] >= warm_up]
    if len(counted) < 2:
        raise ValueError(f"no iteration ended after the {warm_up:,} steps of warm-up: {len(stamps)} in all")
    (steps, begin), (last, end) = counted[0], counted[-1]
    return (last - steps) / (end - begin)
