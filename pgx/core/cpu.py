"""CPU cores that this process may use."""

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container's own control group (version 2)


def available_cores(quota: Path = QUOTA) -> int:
    """Return how many cores this process may use: those of its affinity, or of its container's quota if fewer.

    Args:
        quota: file with microseconds of processor time and the period that they are for, or "max" for no limit.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        granted, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if granted == "max" else max(1, min(cores, math.ceil(int(granted) / int(period))))


def has_one_core_each(number: int) -> bool:
    """Whether so many threads or processes have a core each to stay on: all that the machine has, and all are ours.

    Linux wakes them where the thread that calls them runs, so that two share a core while another idles: with a
    policy's answer between two steps, PPO's iteration took a tenth longer (docs/performance.md). Fewer than there are
    cores go where there is room.

    Args:
        number: of threads or processes that step environments, each as much of the time as the others.
    """
    return os.cpu_count() == number and os.sched_getaffinity(0) == set(range(number))
