"""Runs the experiments behind docs/results.md and makes its table and curves from what they wrote.

python scripts/results.py run     trains whatever is missing below outputs/results; --jobs 2 on two cores
python scripts/results.py report  writes docs/results.md and docs/curves/*.svg from outputs/results
"""

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "results"


@dataclass(frozen=True)
class Experiment:
    """A rule on an environment for a budget, over seeds; with values other than the defaults where it says so."""

    algo: str
    env: str
    steps: int
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def label(self) -> str:
        """Its rule, and its values but for where files are."""
        return " ".join([self.algo, *(o for o in self.overrides if not o.startswith("dataset="))])

    @property
    def env_name(self) -> str:
        return self.env.split(":")[-1]

    def folder(self, seed: int) -> Path:
        return RUNS / self.env_name / self.label.replace(" ", "_").replace("/", "-") / f"seed{seed}"


ON_POLICY = (
    "reinforce",
    "actor_critic",
    "a2c",
    "npg",
    "trpo",
    "ppo",
    "ppo_kl",
    "mdpo",
    "ppg",
    "vtrace",
    "impala",
)
EXPERIMENTS = (
    *(Experiment(algo, "CartPole-v1", 100_000) for algo in ON_POLICY),
    Experiment("off_policy_reinforce", "CartPole-v1", 300_000, (f"dataset={RUNS / 'recorded'}",)),
    *(Experiment(algo, "Walker2d-v4", 200_000) for algo in ON_POLICY),
)


def record() -> None:
    """What off_policy_reinforce learns from: 2,000 episodes of CartPole-v1 by a policy that has learned nothing yet."""
    dataset = RUNS / "recorded"
    if dataset.is_dir():
        return
    behaviour = RUNS / "behaviour"
    shutil.rmtree(behaviour, ignore_errors=True)
    command = [sys.executable, "-m", "pgx", "train", "algo=reinforce", "env=CartPole-v1", "seed=100"]
    command += ["trainer.total_steps=1", "logger.console=off", f"run_dir={behaviour}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    command = [
        sys.executable,
        "-m",
        "pgx",
        "collect",
        str(behaviour),
        "--episodes",
        "2000",
        "--out",
        str(dataset),
    ]
    subprocess.run(command, check=True, cwd=ROOT)


def train(experiment: Experiment, seed: int) -> None:
    """One run, and its evaluation."""
    folder = experiment.folder(seed)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
    command = [sys.executable, "-m", "pgx", "train", f"algo={experiment.algo}", f"env={experiment.env}"]
    command += [f"trainer.total_steps={experiment.steps}", f"seed={seed}", f"run_dir={folder}"]
    command += ["logger.console=off", "env.num_threads=1", "trainer.compile=true"]
    command += [*experiment.overrides]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "pgx", "eval", str(folder), "--episodes", "20"]
    played = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    (folder / "evaluation.txt").write_text(played.stdout)
    print(
        f"{experiment.label} on {experiment.env_name}, seed {seed}: {played.stdout.splitlines()[1].strip()}",
        flush=True,
    )


def run(jobs: int) -> None:
    """Train and evaluate every experiment that has not finished yet, `jobs` at a time."""
    todo = [(e, s) for e in EXPERIMENTS for s in e.seeds if not (e.folder(s) / "evaluation.txt").is_file()]
    print(f"{len(todo)} runs to do, {jobs} at a time", flush=True)
    record()
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda job: train(*job), todo):
            pass


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the running mean of the last 20 training returns; evaluations where no training episode is its own."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for tag in ("rollout/episode_return_recent", "eval/episode_return"):
        if found := [row for row in rows if tag in row]:
            return np.array([row["step"] for row in found]), np.array([row[tag] for row in found])
    raise ValueError(f"{folder}: no returns")


def draw(axes: Axes, experiment: Experiment, seeds_too: bool) -> None:
    """The mean over seeds, and every seed as a thin line."""
    grid = np.linspace(0, experiment.steps, 200)
    curves = [np.interp(grid, *curve(experiment.folder(seed))) for seed in experiment.seeds]
    (line,) = axes.plot(grid, np.mean(curves, axis=0), label=experiment.label)
    for one in curves if seeds_too else []:
        axes.plot(grid, one, color=line.get_color(), alpha=0.4, linewidth=0.8)
    own = experiment.algo in ON_POLICY
    axes.set(title=experiment.env_name, xlabel="environment steps" if own else "recorded steps")
    axes.set_ylabel("return, mean of last 20 episodes" if own else "return of evaluations")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def plot(name: str, panels: list[list[Experiment]]) -> Path:
    """A figure with a panel for each list of experiments; with every seed where a panel shows one rule alone."""
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for panel, experiments in zip(axes[0], panels, strict=True):
        for experiment in experiments:
            draw(panel, experiment, seeds_too=len(experiments) == 1)
        panel.legend(fontsize="small")
    path = ROOT / "docs" / "curves" / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def report() -> None:
    """docs/results.md from the summaries; only experiments of which every seed has finished."""
    done = [e for e in EXPERIMENTS if all((e.folder(s) / "evaluation.txt").is_file() for s in e.seeds)]
    lines = [
        "# Results",
        "",
        "Made by `python scripts/results.py run` and `report` with the default configs. Training return: mean of the",
        "last 20 training episodes (sampled actions). Evaluation: mean of 20 deterministic episodes, last checkpoint.",
        "off_policy_reinforce learns from 2,000 recorded episodes of an untrained policy, again and again: its steps",
        "are recorded ones, and only evaluations are its own.",
        "",
        "| rule | environment | steps | seeds | training return, each seed | mean | evaluation, each seed | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for e in done:
        finals = [json.loads((e.folder(s) / "summary.json").read_text())["final_return"] for s in e.seeds]
        own = all(final is not None for final in finals)
        played = [(e.folder(s) / "evaluation.txt").read_text().split("return")[1].split()[0] for s in e.seeds]
        lines.append(
            f"| {e.label} | {e.env_name} | {e.steps:,} | {', '.join(map(str, e.seeds))} | "
            + (f"{', '.join(f'{x:,.0f}' for x in finals)} | {np.mean(finals):,.0f} | " if own else "- | - | ")
            + f"{', '.join(played)} | {np.mean([float(x.replace(',', '')) for x in played]):,.0f} |"
        )
    for env in dict.fromkeys(e.env_name for e in done):
        path = plot(env, [[e for e in done if e.env_name == env and e.algo in ON_POLICY]])
        lines += ["", f"![learning curves on {env}]({path.relative_to(ROOT / 'docs')})"]
    for algo in dict.fromkeys(e.algo for e in done):
        plot(algo, [[e] for e in done if e.algo == algo])
    (ROOT / "docs" / "results.md").write_text("\n".join(lines) + "\n")
    print(f"docs/results.md: {len(done)} of {len(EXPERIMENTS)} experiments")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core (1)")
    arguments = parser.parse_args()
    run(arguments.jobs) if arguments.what == "run" else report()
