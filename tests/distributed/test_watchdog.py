"""Watchdog: finds workers that are in one call for too long, and no others."""

import numpy as np

from pgx.distributed.worker_pool import Watchdog, attach_call_counts
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.make import CallCountingEnv


def test_only_waiting_time_within_one_call_counts() -> None:
    watch = Watchdog(3, timeout=2.0)
    calls = attach_call_counts(watch.memory, 3)
    calls += [1, 1, 0]  # the third worker is in no call
    assert watch.hanging(5.0) is None  # the first look at these calls
    assert watch.hanging(1.9) is None
    calls[0] += 2  # returned, and in another call
    assert watch.hanging(0.0) is None
    assert watch.hanging(0.2) == 1


def test_a_restarted_worker_starts_with_a_new_count() -> None:
    watch = Watchdog(1, timeout=2.0)
    calls = attach_call_counts(watch.memory, 1)
    calls += 1
    watch.hanging(0.0)
    assert watch.hanging(1.5) is None
    watch.reset(0)
    assert calls[0] == 0  # an even number
    calls += 1
    watch.hanging(0.0)
    assert watch.hanging(1.5) is None


def test_counters_are_odd_only_within_calls() -> None:
    calls = np.zeros(1, np.int64)
    envs = GymnasiumVector("CartPole-v1", 2, {}, first_index=0)
    seen: list[int] = []
    for name in ("reset", "send", "receive"):
        inner = getattr(envs, name)
        setattr(envs, name, lambda *given, inner=inner: (seen.append(int(calls[0])), inner(*given))[1])
    watched = CallCountingEnv(envs, calls)
    watched.reset(0)
    assert calls[0] % 2 == 0
    watched.send(np.zeros(2, np.int64))
    assert calls[0] % 2 == 0
    watched.receive()
    assert calls[0] % 2 == 0 and seen == [1, 3, 5]
    watched.close()
