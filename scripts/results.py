"""Run the experiments of docs/results.md, and generate its table and curves.

python scripts/results.py run     trains the missing runs below outputs/results; use --jobs 2 on two cores
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
    """Runs of a rule on an environment over seeds, with optional overrides."""

    algo: str
    env: str
    steps: int
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def label(self) -> str:
        """Rule and overrides, without the path of a dataset."""
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
    """Write the dataset of off_policy_reinforce: 2,000 episodes of CartPole-v1 with an initial policy."""
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
    """Train one run and evaluate it."""
    folder = experiment.folder(seed)
    shutil.rmtree(folder, ignore_errors=True)  # files of an interrupted call
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
    """Train and evaluate all unfinished runs, `jobs` at a time."""
    todo = [(e, s) for e in EXPERIMENTS for s in e.seeds if not (e.folder(s) / "evaluation.txt").is_file()]
    print(f"{len(todo)} runs to do, {jobs} at a time", flush=True)
    record()
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda job: train(*job), todo):
            pass


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and mean returns of the last 20 training episodes, or of evaluations if the run has no episodes."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for tag in ("rollout/episode_return_recent", "eval/episode_return"):
        if found := [row for row in rows if tag in row]:
            return np.array([row["step"] for row in found]), np.array([row[tag] for row in found])
    raise ValueError(f"{folder}: no returns")


def draw(axes: Axes, experiment: Experiment, seeds_too: bool) -> None:
    """Draw the mean over seeds, and optionally each seed as a thin line."""
    grid = np.linspace(0, experiment.steps, 200)
    curves = [np.interp(grid, *curve(experiment.folder(seed))) for seed in experiment.seeds]
    (line,) = axes.plot(grid, np.mean(curves, axis=0), label=experiment.label)
    for one in curves if seeds_too else []:
        axes.plot(grid, one, color=line.get_color(), alpha=0.4, linewidth=0.8)
    on_policy = experiment.algo in ON_POLICY
    axes.set(title=experiment.env_name, xlabel="environment steps" if on_policy else "recorded steps")
    axes.set_ylabel("return, mean of last 20 episodes" if on_policy else "return of evaluations")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def plot(name: str, panels: list[list[Experiment]]) -> Path:
    """Plot a panel for each list of experiments; a panel with one experiment shows every seed."""
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
    """Write docs/results.md from experiments whose seeds have all finished."""
    done = [e for e in EXPERIMENTS if all((e.folder(s) / "evaluation.txt").is_file() for s in e.seeds)]
    lines = [
        "# Results",
        "",
        "`python scripts/results.py run` and `report` generate this page with the default configs. Training return:",
        "mean of the last 20 training episodes (sampled actions). Evaluation: mean of 20 deterministic episodes, last",
        "checkpoint. `off_policy_reinforce` learns repeatedly from 2,000 recorded episodes of an untrained policy: its",
        "steps are recorded steps, and it plays episodes in evaluations only.",
        "",
        "All rows are of compiled runs (`trainer.compile=true`) whose statistics warm up before the first update",
        "(`env.normalizer_warmup_steps`; [environments](environments.md#warm-up-of-the-statistics) has ten seeds",
        "with and without it). The figure of Walker2d-v4 and those of single rules are older: they show runs",
        "without this warm-up. Three seeds do not distinguish rules whose scores overlap.",
        "",
        "| rule | environment | steps | seeds | training return, each seed | mean | evaluation, each seed | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for e in done:
        finals = [json.loads((e.folder(s) / "summary.json").read_text())["final_return"] for s in e.seeds]
        has_returns = all(final is not None for final in finals)
        played = [(e.folder(s) / "evaluation.txt").read_text().split("return")[1].split()[0] for s in e.seeds]
        lines.append(
            f"| {e.label} | {e.env_name} | {e.steps:,} | {', '.join(map(str, e.seeds))} | "
            + (
                f"{', '.join(f'{x:,.0f}' for x in finals)} | {np.mean(finals):,.0f} | "
                if has_returns
                else "- | - | "
            )
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
    parser.add_argument("--jobs", type=int, default=1, help="concurrent runs, each on one core (1)")
    arguments = parser.parse_args()
    run(arguments.jobs) if arguments.what == "run" else report()
