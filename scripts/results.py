"""Runs the experiments behind docs/results.md and makes its table and curves from what they wrote.

python scripts/results.py run     trains whatever is missing below outputs/results (resumable, one at a time)
python scripts/results.py report  writes docs/results.md and docs/curves/*.svg from outputs/results
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "results"


@dataclass(frozen=True)
class Experiment:
    """A rule on an environment for a budget, over seeds."""

    algo: str
    env: str
    steps: int
    seeds: tuple[int, ...]

    def folder(self, seed: int) -> Path:
        return RUNS / self.env / self.algo / f"seed{seed}"


EXPERIMENTS = (
    Experiment("trpo", "Walker2d-v4", 200_000, (0, 1, 2)),
    Experiment("ppo", "Walker2d-v4", 200_000, (0, 1, 2)),
    *(
        Experiment(algo, "CartPole-v1", 100_000, (0, 1, 2))
        for algo in ("a2c", "npg", "trpo", "ppo", "ppo_kl", "mdpo")
    ),
)


def run() -> None:
    """Train and evaluate every experiment that has not finished yet."""
    todo = [(e, s) for e in EXPERIMENTS for s in e.seeds if not (e.folder(s) / "evaluation.txt").is_file()]
    for number, (experiment, seed) in enumerate(todo, start=1):
        print(f"{number}/{len(todo)} {experiment.algo} {experiment.env} seed {seed}", flush=True)
        folder = experiment.folder(seed)
        command = [sys.executable, "-m", "pgx", "train", f"algo={experiment.algo}", f"env={experiment.env}"]
        command += [f"trainer.total_steps={experiment.steps}", f"seed={seed}", f"run_dir={folder}"]
        subprocess.run(command, check=True, cwd=ROOT)
        command = [sys.executable, "-m", "pgx", "eval", str(folder), "--episodes", "20"]
        played = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
        (folder / "evaluation.txt").write_text(played.stdout)


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the running mean of the last 20 training returns."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "rollout/episode_return_recent" in row]
    return np.array([r["step"] for r in rows]), np.array([r["rollout/episode_return_recent"] for r in rows])


def plot(env: str, experiments: list[Experiment]) -> Path:
    """Mean over seeds of each rule on one environment, and every seed as a thin line."""
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for experiment in experiments:
        grid = np.linspace(0, experiment.steps, 200)
        curves = [np.interp(grid, *curve(experiment.folder(seed))) for seed in experiment.seeds]
        (line,) = axes.plot(grid, np.mean(curves, axis=0), label=experiment.algo)
        for one in curves:
            axes.plot(grid, one, color=line.get_color(), alpha=0.3, linewidth=0.8)
    seeds = len(experiments[0].seeds)
    axes.set(title=f"{env}, mean of {seeds} seeds and each seed", xlabel="environment steps")
    axes.set_ylabel("return, mean of last 20 episodes")
    axes.legend()
    path = ROOT / "docs" / "curves" / f"{env}.svg"
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
        "",
        "| rule | environment | steps | seeds | training return, each seed | mean | evaluation, each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for e in done:
        finals = [json.loads((e.folder(s) / "summary.json").read_text())["final_return"] for s in e.seeds]
        evaluations = [
            (e.folder(s) / "evaluation.txt").read_text().split("return")[1].split()[0] for s in e.seeds
        ]
        lines.append(
            f"| {e.algo} | {e.env} | {e.steps:,} | {', '.join(map(str, e.seeds))} | "
            f"{', '.join(f'{x:,.0f}' for x in finals)} | {np.mean(finals):,.0f} | {', '.join(evaluations)} |"
        )
    for env in dict.fromkeys(e.env for e in done):
        path = plot(env, [e for e in done if e.env == env])
        lines += ["", f"![learning curves on {env}]({path.relative_to(ROOT / 'docs')})"]
    (ROOT / "docs" / "results.md").write_text("\n".join(lines) + "\n")
    print(f"docs/results.md: {len(done)} of {len(EXPERIMENTS)} experiments")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "report"])
    {"run": run, "report": report}[parser.parse_args().what]()
