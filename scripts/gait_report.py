"""Report the gaits of trained robots: a strip of images, a learning curve and a table of measurements.

python scripts/gait_report.py outputs/.../RUN... --out docs/tutorials/walker

It writes OUT/<reward>.png for each run and OUT/curves.svg, and prints the table. The measurements are reward terms,
summed over deterministic episodes of MuJoCo robots whose height is known (docs/rewards.md).
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import EngFormatter

from pgx.api.run_folder import load_trusted_config
from pgx.config.run_config import RunConfig
from pgx.core.seeding import derive
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.make import BackendChoice, make_envs
from pgx.envs.render.rendering_env import Frame, RenderingEnv
from pgx.envs.rewards.spec import RewardSpec
from pgx.envs.vector import AnyArray, VectorEnv
from pgx.rollouts.sources import Episode
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers.jsonl import METRICS, read_rows
from pgx.training.build import load_agent_for
from pgx.training.evaluation import ignore_progress, never_stop, play

IMAGES = 9
SIZE = (150, 210)  # pixels of an image
COLOURS = 48
ATTEMPTS = 10  # episodes to play until one is long enough
SLOW = 0.1  # m/s; below it the effort per metre is not shown
CPU = torch.device("cpu")
LONGEST = 30_000  # maximum steps of an episode


def airborne(time_in_air: AnyArray) -> AnyArray:
    """Return 1 in the air, 0 on the ground [N]."""
    return (time_in_air > 0).astype(np.float64)


MEASURES = RewardSpec(
    "measures",
    0.0,
    {
        "forward_velocity": {"weight": 1.0},
        "height": {"weight": 1.0, "above": 0.0},
        "airborne": {"weight": 1.0, "function": f"{__name__}.airborne"},
        "energy": {"weight": 1.0},
        "smoothness": {"weight": 1.0},
    },
)


@dataclass(frozen=True)
class Run:
    """Run with the reward that its robot was trained on."""

    folder: Path
    checkpoint: str
    config: RunConfig

    @property
    def name(self) -> str:
        return str(self.config.reward.name)

    def played(self, envs: VectorEnv, episodes: int) -> list[Episode]:
        """Play deterministic episodes of the agent."""
        state = Checkpoints(self.folder).load(self.checkpoint)
        agent = load_agent_for(self.config, state, envs.obs_spec, envs.action_spec)
        return play(
            agent,
            agent.act_greedily,
            envs,
            episodes,
            derive(0, "evaluation"),
            CPU,
            LONGEST,
            never_stop,
            ignore_progress,
        )


@contextmanager
def closing(envs: Any) -> Iterator[Any]:
    try:
        yield envs
    finally:
        envs.close()


def row(run: Run, episodes: int) -> str:
    """Measure a run; return its row of the table."""
    env_id, kwargs = run.config.env.id, dict(run.config.env.kwargs)
    with closing(make_single(env_id, kwargs)) as single:
        seconds = float(single.unwrapped.dt)
    choice = BackendChoice("gymnasium", "it gives access to the simulator")
    with closing(make_envs(choice, env_id, episodes, kwargs, 1, 60.0, MEASURES)) as envs:
        played = run.played(envs, episodes)
    steps = sum(episode.length for episode in played)
    mean = {name: sum((e.parts or {})[name] for e in played) / steps for name in MEASURES.terms}
    speed = mean["forward_velocity"]
    effort = f"{mean['energy'] / seconds / abs(speed):.1f}" if abs(speed) > SLOW else "-"
    own = np.mean([e.unshaped_return for e in played])
    cells = [f"`{run.name}`", f"{speed:.2f}", f"{mean['height']:.2f}", f"{mean['airborne']:.0%}"]
    cells += [f"{mean['energy']:.2f}", effort, f"{-mean['smoothness']:.2f}"]
    cells += [f"{steps / episodes * seconds:.1f}", f"{own:,.0f}"]
    return f"| {' | '.join(cells)} |"


class AllImagesTaken(Exception):
    """Raised when all images are taken."""


def strip(run: Run, first: int, every: int, path: Path) -> None:
    """Write a strip of images, taken at intervals from the first episode that is long enough."""
    wanted, taken = range(first, first + every * IMAGES, every), dict[tuple[int, int], AnyArray]()

    def show(frame: Frame) -> None:
        if frame.step in wanted:
            taken[frame.episode, frame.step] = frame.image
        if frame.step == wanted[-1]:
            raise AllImagesTaken(frame.episode)

    env = RenderingEnv(run.config.env.id, dict(run.config.env.kwargs), SIZE, 60.0, max_fps=1000, seconds=None)
    with closing(env):
        env.on_frame = show
        try:
            run.played(env, ATTEMPTS)
        except AllImagesTaken as done:
            (episode,) = done.args
        else:
            raise SystemExit(f"{run.folder}: no episode reaches step {wanted[-1]}; a smaller --first")
    images = [taken[episode, step] for step in wanted]
    Image.fromarray(np.concatenate(images, axis=1)).quantize(COLOURS).save(path, optimize=True)


def curves(runs: list[Run], path: Path) -> None:
    """Plot a panel for each run: its return in the shaped and in the environment's own reward."""
    columns = min(3, len(runs))
    lines = -(-len(runs) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(3.6 * columns, 2.6 * lines), layout="constrained", squeeze=False
    )
    for panel, run in zip(axes.flat, runs, strict=False):
        rows = read_rows(run.folder / METRICS)
        own = "rollout/unshaped_return"
        tags = {"paid": "rollout/episode_return", "environment's own": own}
        for label, tag in tags.items():
            found = [(each["step"], each[tag]) for each in rows if tag in each]
            if found:
                step, value = np.array(found).T
                bins = np.linspace(0, step[-1], 81)
                at = np.digitize(step, bins)
                means = [value[at == i].mean() if (at == i).any() else np.nan for i in range(1, 81)]
                panel.plot(bins[1:], means, label=label, linewidth=1.4)
        panel.set_title(run.name, fontsize="medium")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.legend(fontsize="x-small")
    for panel in axes.flat[len(runs) :]:
        panel.set_axis_off()
    figure.supxlabel("environment steps", fontsize="medium")
    figure.supylabel("return of training episodes", fontsize="medium")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--first", type=int, default=300, help="step of the first image (300)")
    parser.add_argument("--every", type=int, default=8, help="steps between images (8)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [Run(path, options.checkpoint, load_trusted_config(path, trust=False)) for path in options.runs]
    print(
        "| reward | m/s | height, m | in the air | effort a step | effort a metre | change a step | s | own return |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for each in found:
        print(row(each, options.episodes), flush=True)
        strip(each, options.first, options.every, options.out / f"{each.name}.png")
    curves(found, options.out / "curves.svg")
