"""Measure parts of pgx that `pgx train` does not report; print a JSON line. Called by scripts/bench.py.

python scripts/bench_pgx.py update --algo trpo --batch 20000 --updates 5
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from benchmark.pgx_losses import differences


def bare(options: argparse.Namespace) -> dict[str, object]:
    """Measure EnvPool alone with random actions. Reset rows do not count as steps."""
    import envpool
    import numpy as np

    pool = envpool.make(
        options.env,
        env_type="gymnasium",
        num_envs=options.num_envs,
        num_threads=min(options.threads, options.num_envs),
        seed=options.seed,
    )
    pool.reset()
    rng = np.random.default_rng(options.seed)
    space = pool.action_space
    actions = [rng.uniform(space.low, space.high, (options.num_envs, *space.shape)) for _ in range(64)]

    def rate(seconds: float) -> float:
        steps, resets, started = 0, 0, time.perf_counter()
        while (took := time.perf_counter() - started) < seconds:
            for action in actions:
                _, _, terminated, truncated, _ = pool.step(action)
                resets += int((terminated | truncated).sum())
            steps += options.num_envs * len(actions)
        return (steps - resets) / took

    rate(options.seconds / 5)  # warm-up of threads, into the middle of episodes
    return {"steps_per_second": rate(options.seconds)}


def update(options: argparse.Namespace) -> dict[str, object]:
    """Measure `algorithm.update` (estimates, policy, critic) on rollouts of the current policy; seconds."""
    from pgx.config.compose import compose
    from pgx.config.validate import validate
    from pgx.training.build import build

    envs = 32
    overrides = [f"algo={options.algo}", f"env={options.env}", f"env.num_envs={envs}", f"seed={options.seed}"]
    overrides += [
        f"runner.rollout_steps={options.batch // envs}",
        "logger.console=off",
        "trainer.compile=true",
    ]
    if options.algo == "trpo":
        overrides.append(f"algo.critic_minibatch_size={options.minibatch}")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(validate(compose([*overrides, f"run_dir={folder}/run"])))
        for _ in range(1 + options.updates):
            rollout = trainer.runner.collect(trainer.agent)
            started = time.perf_counter()
            trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
            seconds.append(time.perf_counter() - started)
        trainer.runner.close()
    return {"seconds": statistics.median(seconds[1:]), "first": seconds[0], "updates": options.updates}


def modules(options: argparse.Namespace) -> dict[str, object]:
    """Write the names of all modules that a run of `pgx train` imports to --file."""
    from pgx.cli.main import main as pgx

    overrides = ["train", f"algo={options.algo}", f"env={options.env}", "trainer.total_steps=2048"]
    overrides.append("logger.console=off")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with redirect_stdout(sys.stderr):
                pgx([*overrides, f"run_dir={folder}/run"])
        except SystemExit as end:
            if end.code:
                raise
    scripts = Path(__file__).parent.name
    names = [name for name in sys.modules if name.split(".")[0] not in ("__main__", "benchmark", scripts)]
    Path(options.file).write_text(json.dumps(names))
    return {"names": len(names)}


def losses(options: argparse.Namespace) -> dict[str, object]:
    """Compute the largest differences of pgx's losses from those of SB3 in --file."""
    return dict(differences(Path(options.file), options.env))


MEASURES = {function.__name__: function for function in (bare, update, modules, losses)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--env", default="Walker2d-v4")
    parser.add_argument("--algo", choices=["ppo", "trpo"], default="ppo")
    parser.add_argument("--num-envs", type=int, default=8, help="bare: environments")
    parser.add_argument("--threads", type=int, default=1, help="bare: threads of EnvPool")
    parser.add_argument("--seconds", type=float, default=3.0, help="bare: seconds of stepping")
    parser.add_argument("--batch", type=int, default=2048, help="update: rows")
    parser.add_argument(
        "--minibatch", type=int, default=128, help="update: rows of a minibatch of TRPO's critic"
    )
    parser.add_argument(
        "--updates", type=int, default=5, help="update: timed updates, after an untimed first one"
    )
    parser.add_argument("--file", help="modules, losses: file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(MEASURES[options.what](options)))


if __name__ == "__main__":
    main()
