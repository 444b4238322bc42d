"""CPU cores that this process may use."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the control group of a container (version 2)


def available_cores(quota: Path = _QUOTA) -> int:
    """Return the number of cores that this process may use, by its affinity and its container's quota.

    Args:
        quota: file with microseconds of CPU time and the period to which they apply, or "max" for no limit.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        granted, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if granted == "max" else max(1, min(cores, math.ceil(int(granted) / int(period))))


def has_one_core_each(count: int) -> bool:
    """Return whether each of `count` threads or processes can be pinned to a core of its own.

    That is so if they are as many as the machine's cores and this process may use all cores. Without pinning, Linux
    wakes them on the core of the thread that calls them, so that two compete while another core is idle: PPO's
    iteration took a tenth longer (docs/performance.md). Fewer threads than cores are not pinned.

    Args:
        count: threads or processes that step environments for equal times.
    """
    return os.cpu_count() == count and os.sched_getaffinity(0) == set(range(count))
