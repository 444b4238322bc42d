"""Measurements of other libraries, each in its own Python."""

import json
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from . import disk_cache
from .pgx_parts import minibatch
from .processes import answer
from .rows import LOOP, PGX, Detail, Row, Side
from .sizes import ENV, Sizes

SB3: Side = "sb3"
TIANSHOU: Side = "tianshou"
VECS = {"dummy": "DummyVecEnv", "envpool": "EnvPool"}


def rate(python: str, algo: str, vec: str, num_envs: int, batch: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the environment steps per second of `learn` in SB3 or sb3-contrib."""
    found = answer(
        python, "bench_sb3.py", "run", "--env", ENV, "--algo", algo, "--vec", vec, "--num-envs", num_envs,
        "--batch", batch, "--minibatch", 64 if algo == "ppo" else 128, "--steps", sizes.steps_of(algo),
        "--warm-up", sizes.warm_up, "--seed", seed,
    )  # fmt: skip
    setting = f"{num_envs} {VECS[vec]}"
    return [Row(algo, LOOP, SB3, setting, "steps/s", found["steps_per_second"], num_envs)]


def tianshou_rate(python: str, algo: str, num_envs: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the environment steps per second of Tianshou's `run_training`."""
    found = answer(
        python, "bench_tianshou.py", "--env", ENV, "--algo", algo, "--vec", "envpool", "--num-envs", num_envs,
        "--steps", sizes.steps_of(algo), "--warm-up", sizes.warm_up, "--seed", seed,
    )  # fmt: skip
    setting = f"{num_envs} EnvPool"
    return [Row(algo, LOOP, TIANSHOU, setting, "steps/s", found["steps_per_second"], num_envs)]


def update(python: str, job: str, algo: str, batch: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the seconds of one `train()`."""
    found = answer(
        python, "bench_sb3.py", "update", "--env", ENV, "--algo", algo, "--batch", batch,
        "--minibatch", 64 if algo == "ppo" else minibatch(batch), "--updates", sizes.updates, "--seed", seed,
    )  # fmt: skip
    details = {"batch": float(batch), "first update": found["first"]}
    return [Row(job, f"update of {batch:,} rows", SB3, "train()", "s", found["seconds"], None, details)]


def memory(python: str, sizes: Sizes, seed: int) -> list[Row]:
    """Peak memory of a PPO run over what its imports alone take."""
    with tempfile.TemporaryDirectory() as folder:
        names = f"{folder}/modules.json"
        run = answer(
            python, "bench_sb3.py", "memory", "--env", ENV, "--steps", sizes.memory_steps, "--file", names,
            "--seed", seed,
        )  # fmt: skip
        imports = answer(python, "benchmark/imports.py", names)
    peak, alone = run["peak_mb"], imports["rss_mb"]
    details: dict[str, Detail] = {"peak": peak, "imports": alone}
    return [Row("memory", "peak over imports", SB3, "8 DummyVecEnv", "MB", peak - alone, 8, details)]


@cache
def _folders(python: str) -> list[Path]:
    program = (
        "import json, sysconfig; print(json.dumps([sysconfig.get_path(n) for n in ('stdlib', 'purelib')]))"
    )
    done = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    return [Path(folder) for folder in json.loads(done.stdout)]


def startup(python: str, seed: int) -> list[Row]:
    """Measure the seconds from the command to the first environment step, with cold and with warm files."""
    disk_cache.forget(_folders(python))
    rows = []
    for case in ("cold files", "warm files"):
        launched = time.monotonic()
        found = answer(python, "bench_sb3.py", "startup", "--env", ENV, "--seed", seed)
        rows.append(Row("startup", case, SB3, "8 DummyVecEnv", "s", found["at"] - launched, 8))
    return rows


def until(python: str, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the seconds from the command to a training return (mean of the last 20 episodes)."""
    launched = time.monotonic()
    found = answer(
        python, "bench_sb3.py", "until", "--env", ENV, "--reach", sizes.reach, "--steps", sizes.until_steps,
        "--seconds", sizes.until_seconds, "--seed", seed,
    )  # fmt: skip
    seconds = found["at"] - launched if found["reached"] else None
    details = {"steps": found["steps"], "loop": found["loop_seconds"], "return": found["return"]}
    return [Row("until", f"to return {sizes.reach:,.0f}", SB3, "8 DummyVecEnv", "s", seconds, 8, details)]


def losses(pgx_python: str, python: str, seed: int) -> list[Row]:
    """Compare the losses of pgx and SB3 over the same minibatch steps from the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/steps.npz"
        theirs = answer(python, "bench_sb3.py", "losses", "--env", ENV, "--file", file, "--seed", seed)
        found = answer(pgx_python, "bench_pgx.py", "losses", "--env", ENV, "--file", file)
    rows = []
    for what in ("policy", "value"):
        details: dict[str, Detail] = {
            "of mean size": found[what]["of mean size"],
            "steps": theirs["steps"],
            "clipped at the last": theirs["clip_fraction"],
        }
        case, value = f"{what} loss, largest difference", found[what]["relative"]
        rows.append(Row("losses", case, PGX, "beside SB3's", "relative", value, None, details))
    return rows
