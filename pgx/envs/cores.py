"""Which cores environments are stepped on."""

import os


def one_each(number: int) -> bool:
    """Whether so many threads or processes have a core each to stay on: all that the machine has, and all are ours.

    Linux wakes them where the thread that calls them runs, so that two share a core while another idles: with a
    policy's answer between two steps, PPO's iteration took a tenth longer (docs/performance.md). Fewer than there are
    cores go where there is room.

    Args:
        number: of threads or processes that step environments, each as much of the time as the others.
    """
    return os.cpu_count() == number and os.sched_getaffinity(0) == set(range(number))
