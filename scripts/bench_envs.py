"""Measure Python environments in Gymnasium's SyncVectorEnv, and in pgx in one process and in several.

The backends alternate, A B C A B C ..., so that a drift in the speed of the machine affects all alike. A JSON line for
each backend has the median over rounds and the ratio to SyncVectorEnv in the same round. Run it on an idle machine.

    PYTHONPATH=. python scripts/bench_envs.py --num-envs 16 --workers 2 --rounds 5
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from pgx.envs.gymnasium_backend import GymnasiumVector, make_single
from pgx.envs.process_backend import ProcessVector
from pgx.envs.vector import VectorEnv, step

Actions = NDArray[np.float32]  # [T, N, ...]


def processes_vs_sync(env_id: str, num_envs: int, workers: int, seconds: float, rounds: int) -> None:
    """Print a JSON line for each backend: steps per second of num_envs environments with random actions.

    Args:
        env_id: id of an environment with continuous actions.
        num_envs: number of environments.
        workers: worker processes of the backend `processes`.
        seconds: duration of each measurement.
        rounds: measurements per backend.
    """
    sync = SyncVectorEnv([lambda: make_single(env_id, {})] * num_envs)
    single = GymnasiumVector(env_id, num_envs, {}, first_index=0)
    processes = ProcessVector(env_id, num_envs, {}, workers, timeout=60.0)
    space = sync.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    rng = np.random.default_rng(0)
    actions = rng.uniform(space.low, space.high, (64, num_envs, *space.shape)).astype(np.float32)
    measures: dict[str, Callable[[], float]] = {
        "gymnasium SyncVectorEnv": lambda: _rate_of_gymnasium(sync, actions, seconds),
        "pgx gymnasium": lambda: _rate(single, actions, seconds),
        f"pgx processes, {workers} workers": lambda: _rate(processes, actions, seconds),
    }
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            rates[name].append(measure())
    first = rates["gymnasium SyncVectorEnv"]
    for name, values in rates.items():
        ratios = [value / base for value, base in zip(values, first, strict=True)]
        line = {
            "env": env_id,
            "num_envs": num_envs,
            "backend": name,
            "steps_per_second": round(statistics.median(values)),
            "of_each_round": [round(value) for value in values],
            "over_sync": round(statistics.median(ratios), 2),
        }
        print(json.dumps(line), flush=True)
    processes.close()
    single.close()
    sync.close()


def _rate(envs: VectorEnv, actions: Actions, seconds: float) -> float:
    envs.reset(0)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for action in actions:
            step(envs, action)
        steps += actions.shape[0] * actions.shape[1]
    return steps / (time.perf_counter() - started)


def _rate_of_gymnasium(envs: SyncVectorEnv, actions: Actions, seconds: float) -> float:
    envs.reset(seed=0)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for action in actions:
            envs.step(action)
        steps += actions.shape[0] * actions.shape[1]
    return steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="scripts.bench_walker:BenchWalker-v0")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    processes_vs_sync(options.env, options.num_envs, options.workers, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
