"""Runs, sweeps, a dataset and modules that the commands of the docs name; small, created once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.analysis.writers import stable_baselines3

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "own_rule.md"
MODULE = """
from gymnasium import register
from gymnasium.envs.classic_control import CartPoleEnv


class MyEnv(CartPoleEnv):
    def __init__(self, gravity=9.8):
        super().__init__()
        self.gravity = gravity


def my_term(obs):
    return -abs(obs[:, 0])


register("MyEnv-v0", MyEnv, max_episode_steps=50)
"""
SIZE = [  # of a run: iterations of 4 x 64 steps, with a checkpoint and an evaluation after each
    "env.num_envs=4",
    "runner.rollout_steps=64",
    "trainer.total_steps=512",
    "trainer.compile=false",
    "trainer.checkpoint_every=256",
    "trainer.keep_checkpoints=1",
    "trainer.eval_every=256",
    "trainer.eval_episodes=1",
]
DIVERGING = ["critic_optimizer=sgd", "critic_optimizer.learning_rate=1e38", "logger.sinks=[]"]

# Replacements for words in commands of the docs: placeholders, and folders of examples.
CARTPOLE, WALKER, SWEEP = (
    "outputs/CartPole-v1/ppo/made",
    "outputs/Walker2d-v4/trpo/made",
    "outputs/sweeps/first",
)
STAND_FOR = {
    "RUN": CARTPOLE,
    "RUN...": CARTPOLE,
    "outputs/...": CARTPOLE,
    "outputs/CartPole-v1/ppo/...": CARTPOLE,
    "outputs/CartPole-v1/ppo/2026-11-21_22-41-04_seed0": CARTPOLE,
    "outputs/Walker2d-v4/trpo/...": WALKER,
    "RUN/post_mortem/iteration_<n>": "outputs/failed/post_mortem/iteration_000000001",
    "outputs/first": CARTPOLE,
    "outputs/mu": CARTPOLE,
    "outputs/healthy": WALKER,
    "outputs/greedy": WALKER,
    "outputs/sweeps/...": SWEEP,
    "outputs/sweeps/2026-...": SWEEP,
    "/shared/sweeps/walker": SWEEP,
    "DIR": SWEEP,
    "COMMAND": "eval",
    "[DIR]": "outputs",
    "env=module:Id": "env=my_module:MyEnv-v0",
    "env.id=module:Id": "env.id=my_module:MyEnv-v0",
    "env=...": "env=CartPole-v1",
}
OF_THE_MODULE = "outputs/mine"  # run in the environment of my_module


def modules(folder: Path) -> None:
    """Write a module with an environment, and the rule of the tutorial as it is on the page."""
    (folder / "my_module.py").write_text(MODULE)
    for language, name in (("python", "spo.py"), ("yaml", "spo.yaml")):
        found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert found is not None
        (folder / name).write_text(found[1])


def make_places(folder: Path, pgx: Callable[..., int]) -> None:
    """Create all of them below a folder.

    Args:
        folder: an empty folder.
        pgx: runs a command in that folder and returns its exit code.
    """
    modules(folder)
    for run, overrides in {
        CARTPOLE: ["algo=ppo", "env=CartPole-v1"],
        WALKER: ["algo=trpo", "env=Walker2d-v4"],
        "outputs/CartPole-v1/trpo/made": ["algo=trpo", "env=CartPole-v1"],
        OF_THE_MODULE: ["algo=ppo", "env=my_module:MyEnv-v0"],
    }.items():
        assert pgx("train", *overrides, *SIZE, f"run_dir={run}") == 0, run
    assert pgx("train", "algo=ppo", "env=CartPole-v1", *SIZE, *DIVERGING, "run_dir=outputs/failed") == 1
    sweep = ["algo=a2c", "env=CartPole-v1", "seed=0", "trainer.total_steps=80", f"hydra.sweep.dir={SWEEP}"]
    assert pgx("train", "-m", *sweep, "run_dir=outputs/CartPole-v1/a2c/made") == 0
    assert pgx("collect", CARTPOLE, "--episodes", "8", "--out", "data/cartpole-v0") == 0
    stable_baselines3(folder / "logs" / "sb3" / "PPO_1", np.arange(1.0, 6.0))
