"""Who is in one call for too long is found, and nobody else."""

import numpy as np

from pgx.distributed.worker_pool import Watchdog, attach_call_counts
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.make import CallCountingEnv


def test_only_time_that_is_waited_within_one_call_counts() -> None:
    watch = Watchdog(3, timeout=2.0)
    calls = attach_call_counts(watch.memory, 3)
    calls += [1, 1, 0]  # the third is in no call
    assert watch.hanging(5.0) is None  # they were not seen in it before
    assert watch.hanging(1.9) is None
    calls[0] += 2  # out of it, and in another
    assert watch.hanging(0.0) is None
    assert watch.hanging(0.2) == 1


def test_one_that_takes_the_place_of_another_is_not_held_to_what_that_one_did() -> None:
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


def test_a_counter_is_odd_within_calls_alone() -> None:
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
