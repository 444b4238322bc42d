"""Compare the steps per second of a3c and a2c on the same cores. The runs alternate, so that a drift affects both.

python scripts/bench_a3c.py --env CartPole-v1 --steps 200000
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "bench_a3c"


def measure(algo: str, env: str, steps: int, turn: int) -> float:
    """Train, and return the steps per second over the second half of the run."""
    folder = RUNS / f"{algo}{turn}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pgx", "train", f"algo={algo}", f"env={env}", f"seed={turn}"]
    command += [f"trainer.total_steps={steps}", "trainer.checkpoint_every=null", f"run_dir={folder}"]
    command += ["logger.console=off", "logger.sinks=[]"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[len(rows) // 2], rows[-1]
    return float((last["step"] - first["step"]) / (last["time/seconds"] - first["time/seconds"]))


def main(env: str, steps: int, turns: int) -> None:
    found: dict[str, list[float]] = {"a2c": [], "a3c": []}
    for turn in range(turns):
        for algo, values in found.items():
            values.append(measure(algo, env, steps, turn))
    for algo, values in found.items():
        each = ", ".join(f"{value:,.0f}" for value in values)
        print(f"{algo} on {env}: {statistics.median(values):,.0f} steps/s ({each})")
    print(f"{len(os.sched_getaffinity(0))} cores")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=200_000, help="steps per run (200,000)")
    parser.add_argument("--turns", type=int, default=3, help="runs per rule (3)")
    arguments = parser.parse_args()
    main(arguments.env, arguments.steps, arguments.turns)
