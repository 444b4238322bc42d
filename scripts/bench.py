"""How fast pgx is on this machine: end to end, beside the simulator alone and, if given, beside Stable-Baselines3.

All commands run in turn, A B C A B C ..., so that a machine whose speed drifts treats them alike; medians are
printed, and ratios to the simulator's bare rate and to the peer.

    python scripts/bench.py --rounds 3 --peer-python /path/to/venv/bin/python
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def simulator(env: str, num_envs: int, seconds: float = 3.0) -> float:
    """Environment steps per second of EnvPool alone under random actions, reset rows not counted."""
    import envpool

    pool = envpool.make(env, env_type="gymnasium", num_envs=num_envs, num_threads=2, seed=0)
    pool.reset()
    rng = np.random.default_rng(0)
    actions = [rng.uniform(-1, 1, (num_envs, *pool.action_space.shape)) for _ in range(64)]
    steps, resets, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for action in actions:
            _, _, terminated, truncated, _ = pool.step(action)
            resets += int((terminated | truncated).sum())
        steps += num_envs * len(actions)
    return (steps - resets) / (time.perf_counter() - started)


def pgx(algo: str, env: str, steps: int, *overrides: str) -> float:
    """Environment steps per second of `pgx train`, by its own summary: from the first iteration to the last."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pgx", "train", f"algo={algo}", f"env={env}", f"run_dir={folder}"]
        command += [f"trainer.total_steps={steps}", "logger.console=off", *overrides]
        subprocess.run(command, check=True, capture_output=True, cwd=HERE.parent)
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return float(summary["steps_per_second"])


def peer(python: str, algo: str, env: str, steps: int) -> float:
    """Environment steps per second of Stable-Baselines3 or sb3-contrib at the same work."""
    command = [python, "-W", "ignore", str(HERE / "bench_peer.py"), "--algo", algo, "--env", env]
    done = subprocess.run([*command, "--steps", str(steps)], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["steps_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer-python", help="python of an environment with stable-baselines3 and sb3-contrib"
    )
    options = parser.parse_args()

    work: dict[str, Callable[[], float]] = {"simulator alone, 16 envs": lambda: simulator(options.env, 16)}
    for algo in ("trpo", "ppo"):
        work[f"pgx {algo}"] = lambda algo=algo: pgx(algo, options.env, options.steps)
        if options.peer_python:
            work[f"sb3 {algo}"] = lambda algo=algo: peer(
                options.peer_python, algo, options.env, options.steps
            )
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(options.rounds):
        for name, measure in work.items():
            rates[name].append(measure())
            print(f"round {number + 1}/{options.rounds}  {name}: {rates[name][-1]:,.0f} steps/s", flush=True)

    bare = statistics.median(rates["simulator alone, 16 envs"])
    print(f"\n{'':26}{'median':>9}{'min':>9}{'max':>9}   of the simulator   over the peer")
    for name, values in rates.items():
        median = statistics.median(values)
        theirs = rates.get(name.replace("pgx", "sb3")) if name.startswith("pgx") else None
        over = f"{median / statistics.median(theirs):.2f} x" if theirs else ""
        print(f"{name:26}{median:9,.0f}{min(values):9,.0f}{max(values):9,.0f}{median / bare:16.0%}{over:>18}")


if __name__ == "__main__":
    main()
