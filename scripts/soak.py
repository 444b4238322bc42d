"""Monitor a long run: growth of memory, speed over time, size of files.

python scripts/soak.py run --steps 10_000_000          PPO on CartPole-v1, and a report
python scripts/soak.py sweep --runs 64                 many runs at once: checks their folders and seeds
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INTERVAL_SECONDS = 2.0  # between samples
WARM_UP = 0.2  # fraction of the run in which caches fill


@dataclass(frozen=True)
class Sample:
    """State of a run at one moment."""

    step: int
    seconds: float
    rss: float  # MB
    rows: int  # bytes of metrics.jsonl
    events: int  # bytes of TensorBoard's files
    checkpoints: int  # files


def _sample(pid: int, run: Path, started: float) -> Sample | None:
    """Return a sample; None if the run has not started or has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        step = _last_step(run / "metrics.jsonl")
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    events = sum(path.stat().st_size for path in run.glob("events.out.tfevents.*"))
    kept = len(list((run / "checkpoints").glob("*.pt"))) if (run / "checkpoints").is_dir() else 0
    size = (run / "metrics.jsonl").stat().st_size
    return Sample(step, time.monotonic() - started, rss / 1024, size, events, kept)


def _last_step(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return int(json.loads(file.read().split(b"\n")[-2])["step"])


def soak(steps: int, overrides: list[str]) -> int:
    """Train, take samples, and print a report; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        run, samples = Path(folder) / "run", []
        command = [sys.executable, "-m", "pgx", "train", "algo=ppo", "env=CartPole-v1", f"run_dir={run}"]
        command += [f"trainer.total_steps={steps}", "logger.console=off", *overrides]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(INTERVAL_SECONDS)
            sample = _sample(process.pid, run, started)
            if sample is not None and (not samples or sample.step > samples[-1].step):
                samples.append(sample)
                left = (steps - sample.step) * sample.seconds / max(1, sample.step)
                print(
                    f"{sample.step:,} steps, {sample.rss:,.0f} MB, {left:,.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
        _report(samples, json.loads((run / "summary.json").read_text()))
        return process.returncode


def _report(samples: list[Sample], summary: dict[str, object]) -> None:
    steps, seconds = np.array([x.step for x in samples]), np.array([x.seconds for x in samples])
    rss = np.array([x.rss for x in samples])
    warm = steps >= WARM_UP * steps[-1]
    slope = float(np.polyfit(steps[warm], rss[warm], 1)[0]) * 1e6
    tenths = np.linspace(0, steps[-1], 11)
    rates = np.diff(tenths) / np.diff(np.interp(tenths, steps, seconds))
    print(f"{summary['steps']:,} steps in {summary['seconds']:,} s: {summary['status']}")
    print(
        f"memory: {rss[warm][0]:,.1f} MB after a fifth, {rss[-1]:,.1f} MB at the end, {slope:+.3f} MB a million steps"
    )
    print("steps/s in each tenth: " + ", ".join(f"{rate:,.0f}" for rate in rates))
    half, last = samples[len(samples) // 2], samples[-1]
    for name, a, b in (("metrics.jsonl", half.rows, last.rows), ("events", half.events, last.events)):
        grown = f"{a / half.step:.1f} bytes a step at half, {b / last.step:.1f} at the end"
        print(f"{name}: {grown}, {b / 1e6:,.1f} MB in all")
    print(f"checkpoints: {max(sample.checkpoints for sample in samples)} files at most")


def sweep(runs: int, jobs: int) -> int:
    """Run a sweep, and check that each run has its own folder, seed and curve; return the exit code."""
    few = ["env=CartPole-v1", "trainer.total_steps=512", "runner.rollout_steps=32", "env.num_envs=4"]
    few += ["algo=a2c", "env.num_threads=1", "logger.every=1", "logger.console=off", "trainer.compile=false"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pgx",
            "train",
            "-m",
            "hydra/launcher=joblib",
            f"seed=range({runs})",
            *few,
        ]
        started = time.monotonic()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        }
        ended = subprocess.run(
            [*command, f"hydra.launcher.n_jobs={jobs}"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if ended.returncode != 0:
            print(ended.stdout, ended.stderr, file=sys.stderr)
            return ended.returncode
        summaries = [path.parent for path in Path(folder).rglob("summary.json")]
        seeds = [_seed(run) for run in summaries]
        curves = {_curve(run) for run in summaries}
        print(f"{len(summaries)} runs in {time.monotonic() - started:,.0f} s, {jobs} at a time")
        print(f"folders {len(set(summaries))}, seeds {len(set(seeds))}, curves that differ {len(curves)}")
        return int(not len(set(summaries)) == len(set(seeds)) == len(curves) == runs)


def _seed(run: Path) -> str:
    return next(line for line in (run / "config.yaml").read_text().splitlines() if line.startswith("seed:"))


def _curve(run: Path) -> str:
    """Return the logged rows of a run as text, without durations."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return json.dumps([{tag: x for tag, x in row.items() if not tag.startswith("time/")} for row in rows])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--steps", type=int, default=10_000_000)
    one.add_argument("overrides", nargs="*", help="overrides of the run")
    many = commands.add_parser("sweep")
    many.add_argument("--runs", type=int, default=64)
    many.add_argument("--jobs", type=int, default=2, help="concurrent runs (2)")
    options = parser.parse_args()
    return (
        soak(options.steps, options.overrides)
        if options.command == "run"
        else sweep(options.runs, options.jobs)
    )


if __name__ == "__main__":
    sys.exit(main())
