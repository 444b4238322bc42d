"""Measure the effect of policy lag with and without V-trace's correction, and the speed gained by actors.

python scripts/lag_experiment.py lags    train missing runs below outputs/lags; print the table of impala.md
python scripts/lag_experiment.py speed   steps per second of a2c and vtrace in one process, of impala with two actors
"""

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "lags"

ENV, STEPS, RATE = "CartPole-v1", 100_000, 2e-3
LAGS, SEEDS = (0, 1, 4, 16), (0, 1, 2)
# With all importance weights 1, both rules take the same gradient steps.
RULES = {
    "corrected": ("algo=vtrace", "algo.rho_clip=1.0", "algo.c_clip=1.0", "algo.trace_lambda=1.0"),
    "uncorrected": ("algo=a2c", "algo.gae_lambda=1.0"),
}


@dataclass(frozen=True)
class Job:
    """Run of the table."""

    rule: str
    lag: int
    seed: int

    @property
    def folder(self) -> Path:
        return RUNS / f"{ENV}_{RATE:g}_{STEPS}" / self.rule / f"lag{self.lag}_seed{self.seed}"

    def train(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # files of an interrupted call
        command = [sys.executable, "-m", "pgx", "train", f"env={ENV}", f"seed={self.seed}", *RULES[self.rule]]
        command += [f"{group}.learning_rate={RATE}" for group in ("optimizer", "critic_optimizer")]
        command += [f"runner.lag={self.lag}", "runner.rollout_steps=20", f"trainer.total_steps={STEPS}"]
        command += ["logger.every=10", "logger.console=off", "logger.sinks=[]", "env.num_threads=1"]
        subprocess.run([*command, f"run_dir={self.folder}"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)

    def returns(self) -> float:
        """Return the mean over the run of the mean of the last 20 training returns."""
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        recent = [(r["step"], r["rollout/episode_return_recent"]) for r in rows if "rollout/episodes" in r]
        steps, values = zip(*((step, value) for step, value in recent), strict=True)
        return float(np.interp(np.linspace(0, STEPS, 200), steps, values).mean())

    def divergence(self) -> float:
        """Return the mean over the run of KL(mu || pi) in nats; NaN if the rule does not measure it."""
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return float(np.mean([row.get("algo/behaviour_kl", np.nan) for row in rows]))

    def final(self) -> float:
        summary = json.loads((self.folder / "summary.json").read_text())
        return float(summary["final_return"])


def lags(jobs: int) -> None:
    """Train the missing runs, `jobs` at a time, and print the table."""
    wanted = [Job(rule, lag, seed) for rule in RULES for lag in LAGS for seed in SEEDS]
    todo = [job for job in wanted if not (job.folder / "summary.json").is_file()]
    with ThreadPoolExecutor(jobs) as pool:
        for done, _ in enumerate(pool.map(Job.train, todo), start=1):
            print(f"{done} of {len(todo)}", file=sys.stderr, flush=True)
    print(f"{ENV}, learning rates {RATE:g}, {STEPS:,} steps, seeds {', '.join(map(str, SEEDS))}")
    print()
    print(
        "| lag | rule | return over the run, each seed | mean | return at its end | mean | KL(mu, pi), mean |"
    )
    print("|---|---|---|---|---|---|---|")
    for lag in LAGS:
        for rule in RULES:
            group = [Job(rule, lag, seed) for seed in SEEDS]
            whole, end = [job.returns() for job in group], [job.final() for job in group]
            kl = np.mean([job.divergence() for job in group])
            print(
                f"| {lag} | {rule} | {', '.join(f'{x:.0f}' for x in whole)} | {np.mean(whole):.0f} "
                f"| {', '.join(f'{x:.0f}' for x in end)} | {np.mean(end):.0f} | {'' if np.isnan(kl) else f'{kl:.3f}'} |"
            )


def speed(env: str, steps: int) -> None:
    """Print median speeds over the second halves of runs, which alternate so that a drift affects all alike."""
    settings = {
        "a2c": ("algo=a2c", "runner.rollout_steps=20", "logger.every=10"),
        "vtrace": ("algo=vtrace",),
        "impala": ("algo=impala", "runner.workers=2"),
    }
    found: dict[str, list[float]] = {name: [] for name in settings}
    for turn in range(3):
        for name, overrides in settings.items():
            folder = RUNS / "speed" / f"{name}{turn}"
            shutil.rmtree(folder, ignore_errors=True)
            command = [
                sys.executable,
                "-m",
                "pgx",
                "train",
                f"env={env}",
                f"trainer.total_steps={steps}",
                *overrides,
            ]
            command += ["logger.console=off", "logger.sinks=[]", f"run_dir={folder}"]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            first, last = rows[len(rows) // 2], rows[-1]
            found[name].append(
                (last["step"] - first["step"]) / (last["time/seconds"] - first["time/seconds"])
            )
    for name, values in found.items():
        print(f"{name} on {env}: {np.median(values):,.0f} steps/s ({', '.join(f'{x:,.0f}' for x in values)})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["lags", "speed"])
    parser.add_argument("--jobs", type=int, default=1, help="lags: concurrent runs (1)")
    parser.add_argument("--env", default="Walker2d-v4", help="speed: environment (Walker2d-v4)")
    parser.add_argument("--steps", type=int, default=60_000, help="speed: steps per run (60,000)")
    arguments = parser.parse_args()
    lags(arguments.jobs) if arguments.what == "lags" else speed(arguments.env, arguments.steps)
