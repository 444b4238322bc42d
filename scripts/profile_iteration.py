"""Measure the parts of an iteration and lower bounds of their times; print the table of docs/performance.md.

python scripts/profile_iteration.py --algo ppo --iterations 20
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from benchmark.machine import cores

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.training import health
from pgx.training.build import build

ENV = "Walker2d-v4"
Seconds = dict[str, list[float]]


def timed(owner: Any, name: str, label: str, seconds: Seconds) -> None:
    """Replace a method, or a function of a module, by one that records the duration of each call."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = original(*arguments, **options)
        seconds[label].append(time.perf_counter() - started)
        return result

    setattr(owner, name, call)


def parts(trainer: Any, iterations: int) -> dict[str, float]:
    """Return the milliseconds of each part of an iteration, as medians over iterations."""
    seconds: Seconds = defaultdict(list)
    rule = trainer.loop.algorithm
    for owner, name, label in (
        (trainer.runner, "collect", "collect"),
        (rule, "update", "update"),
        (rule, "estimate", "estimate"),
        (health, "look", "look"),
        (health, "measure", "measure"),
        (trainer, "_iterate", "iteration"),
    ):
        timed(owner, name, label, seconds)
    rows: dict[str, list[float]] = defaultdict(list)
    runner, counters = trainer.runner, trainer.counters
    env, policy = 0.0, 0.0

    iterate = trainer._iterate

    def iterate_and_note() -> None:
        nonlocal env, policy
        iterate()
        spent = {label: sum(values) for label, values in seconds.items()}
        spent["estimate in the update"] = seconds["estimate"][-1]
        spent["environments"], spent["policy"] = runner.env_seconds - env, runner.policy_seconds - policy
        env, policy = runner.env_seconds, runner.policy_seconds
        seconds.clear()
        if counters.iterations > 3:  # programs are loaded and caches are warm
            for label, value in spent.items():
                rows[label].append(1000 * value)
        trainer.stop_requested = counters.iterations == 3 + iterations

    trainer._iterate = iterate_and_note  # type: ignore[method-assign]
    trainer.train()
    return {label: statistics.median(values) for label, values in rows.items()}


def physics(num_envs: int, steps: int) -> float:
    """Return the milliseconds of `steps` steps of all environments in EnvPool alone, with random actions."""
    import envpool
    import numpy as np

    pool = envpool.make(ENV, env_type="gymnasium", num_envs=num_envs, num_threads=cores(), seed=0)
    pool.reset()
    rng = np.random.default_rng(0)
    actions = [rng.uniform(-1, 1, (num_envs, *pool.action_space.shape)) for _ in range(steps)]
    took = []
    for _ in range(20):
        started = time.perf_counter()
        for action in actions:
            pool.step(action)
        took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took)


def products(rows: int, passes: int) -> float:
    """Return the milliseconds of the matrix products of `passes` training passes of a 17-64-64-6 network."""
    shapes = [(17, 64), (64, 64), (64, 6)]
    pairs = [(torch.randn(rows, a), torch.randn(a, b), torch.empty(rows, b)) for a, b in shapes]
    took = []
    for _ in range(50):
        started = time.perf_counter()
        for left, right, out in pairs:
            torch.mm(left, right, out=out)
        took.append(1000 * (time.perf_counter() - started))
    return 3 * passes * statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algo", choices=["ppo", "trpo"], default="ppo")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--num-envs", type=int, default=32, help="environments that share 2,048 rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"algo={options.algo}", f"env={ENV}", f"run_dir={folder}/run", "logger.console=off"]
        overrides += [f"env.num_envs={options.num_envs}", f"runner.rollout_steps={2048 // options.num_envs}"]
        cfg = compose([*overrides, "trainer.compile=true", "trainer.checkpoint_every=null"])
        ms = parts(build(validate(cfg)), options.iterations)
    num_envs, steps = cfg.env.num_envs, cfg.runner.rollout_steps
    rows = num_envs * steps
    update_floor = 2 * products(64, 320) if options.algo == "ppo" else products(rows, 16) * 4 / 3
    rest = ms["iteration"] - ms["collect"] - ms["update"] - ms["look"] - ms["measure"]
    # The first of two estimates is for health.
    health_ms = ms["look"] + ms["measure"] + ms["estimate"] - ms["estimate in the update"]
    table = [
        ("environments", ms["environments"], physics(num_envs, steps), "EnvPool alone, random actions"),
        ("policy", ms["policy"], None, ""),
        ("rollout, bookkeeping", ms["collect"] - ms["environments"] - ms["policy"], None, ""),
        (
            "estimates",
            ms["estimate in the update"],
            products(rows, 1) / 3,
            "one forward pass: its matrix products",
        ),
        (
            "update",
            ms["update"] - ms["estimate in the update"],
            update_floor,
            "its matrix products, on one core",
        ),
        ("health", health_ms, products(rows, 2), "five forward passes' worth of matrix products"),
        ("logging and the rest", rest - ms["estimate"] + ms["estimate in the update"], None, ""),
        ("iteration", ms["iteration"], None, f"{1000 * rows / ms['iteration']:,.0f} steps/s"),
    ]
    print(f"{options.algo}, {num_envs} environments x {steps} steps, {cores()} cores\n")
    print("| part | ms | at least, ms | that is |\n|---|---|---|---|")
    for label, value, floor, what in table:
        print(f"| {label} | {value:.1f} | {'' if floor is None else f'{floor:.1f}'} | {what} |")


if __name__ == "__main__":
    main()
