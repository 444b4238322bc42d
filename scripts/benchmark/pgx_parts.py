"""Measurements of pgx, and of EnvPool alone."""

import statistics
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from . import disk_cache
from .clock import Stamp, steps_per_second
from .machine import cores
from .processes import ROOT, PartFailed, Run, answer, watched_run
from .rows import BARE, LOOP, PGX, Detail, Row
from .sizes import ENV, Sizes

ROWS = {"ppo": 2048, "trpo": 2048, "a2c": 80}  # of a rollout
DEFAULT = 16  # number of environments of all three
COMPILED = "trainer.compile=true"  # by default, runs as short as these are not compiled


def _shape(algo: str, num_envs: int) -> tuple[str, str]:
    """Return the overrides that set the shape of a rollout."""
    return f"env.num_envs={num_envs}", f"runner.rollout_steps={ROWS[algo] // num_envs}"


def _setting(num_envs: int) -> str:
    return f"{num_envs} environments"


def minibatch(batch: int) -> int:
    """Return the minibatch size of TRPO's critic, also for SB3: 128 if it divides the batch, else 125."""
    return 128 if batch % 128 == 0 else 125


def bare(num_envs: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure EnvPool alone."""
    threads = cores()
    found = answer(
        sys.executable, "bench_pgx.py", "bare", "--env", ENV, "--num-envs", num_envs,
        "--threads", threads, "--seconds", sizes.bare_seconds, "--seed", seed,
    )  # fmt: skip
    setting = f"{num_envs} environments"
    return [Row("bare", "stepping alone", BARE, setting, "steps/s", found["steps_per_second"], num_envs)]


def rate(algo: str, num_envs: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the environment steps per second of `pgx train`, by the times at which rows of its metrics appear."""
    _make_programs(algo, num_envs)
    overrides = [f"algo={algo}", f"env={ENV}", f"seed={seed}", f"trainer.total_steps={sizes.steps_of(algo)}"]
    run = watched_run([*overrides, *_shape(algo, num_envs), COMPILED], lambda row, seconds: False)
    stamps: list[Stamp] = [(row["step"], moment) for moment, row in run.seen]
    own: list[Stamp] = [(row["step"], row["time/seconds"]) for _, row in run.seen]
    try:
        value = steps_per_second(stamps, sizes.warm_up)
        details: dict[str, Detail] = {"by its own clock": steps_per_second(own, sizes.warm_up)}
        details["share in environments"] = statistics.median(
            row["time/environment_fraction"] for _, row in run.seen if row["step"] >= sizes.warm_up
        )
    except ValueError as error:
        raise PartFailed(f"pgx train {' '.join(overrides)}: {error}") from error
    return [Row(algo, LOOP, PGX, _setting(num_envs), "steps/s", value, num_envs, details)]


def update(job: str, algo: str, batch: int, sizes: Sizes, seed: int) -> list[Row]:
    """Measure the seconds of one update."""
    found = answer(
        sys.executable, "bench_pgx.py", "update", "--env", ENV, "--algo", algo, "--batch", batch,
        "--minibatch", minibatch(batch), "--updates", sizes.updates, "--seed", seed,
    )  # fmt: skip
    details: dict[str, Detail] = {"batch": float(batch), "first update": found["first"]}
    return [
        Row(job, f"update of {batch:,} rows", PGX, "algorithm.update", "s", found["seconds"], None, details)
    ]


def _briefly(algo: str, num_envs: int, rows: int, *overrides: str) -> Run:
    """Train for one rollout, or for two if episodes end in the first."""
    return watched_run(
        [
            f"algo={algo}",
            f"env={ENV}",
            *_shape(algo, num_envs),
            f"trainer.total_steps={rows}",
            COMPILED,
            *overrides,
        ],
        lambda row, seconds: False,
    )


@cache
def _make_programs(algo: str, num_envs: int) -> None:
    """Compile and store the programs of a run, so that measured runs find them."""
    _briefly(algo, num_envs, ROWS[algo])


@cache
def _imports_mb() -> float:
    """Return the memory of a process that imports all modules of a real run, MB."""
    with tempfile.TemporaryDirectory() as folder:
        names = f"{folder}/modules.json"
        answer(sys.executable, "bench_pgx.py", "modules", "--env", ENV, "--algo", "ppo", "--file", names)
        found = answer(sys.executable, "benchmark/imports.py", names)
    return float(found["rss_mb"])


def memory(sizes: Sizes, seed: int) -> list[Row]:
    """Measure the peak memory of `pgx train` minus that of its imports."""
    _make_programs("ppo", DEFAULT)
    overrides = ["algo=ppo", f"env={ENV}", f"seed={seed}", f"trainer.total_steps={sizes.memory_steps}"]
    overrides += [COMPILED, *_shape("ppo", DEFAULT)]
    peak, imports = watched_run(overrides, lambda row, seconds: False).peak_mb, _imports_mb()
    details: dict[str, Detail] = {"peak": peak, "imports": imports}
    return [
        Row("memory", "peak over imports", PGX, _setting(DEFAULT), "MB", peak - imports, DEFAULT, details)
    ]


def startup(seed: int) -> list[Row]:
    """Measure the seconds from the command to the first environment step, with cold and with warm files."""
    _make_programs("ppo", DEFAULT)
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    disk_cache.forget([*folders, ROOT / "pgx", ROOT / "configs"])
    rows = []
    for case in ("cold files", "warm files"):
        one_step = "runner.rollout_steps=1", "algo.minibatch_size=16"
        run = _briefly("ppo", DEFAULT, DEFAULT, f"seed={seed}", *one_step)
        moment, row = _first(run)
        # The row has the seconds of the iteration of one step, which began after the start-up.
        value = moment - run.launched - row["time/seconds"]
        details: dict[str, Detail] = {"to the first row": moment - run.launched}
        rows.append(Row("startup", case, PGX, _setting(DEFAULT), "s", value, DEFAULT, details))
    return rows


def _first(run: Run) -> tuple[float, dict[str, float]]:
    if not run.seen:
        raise PartFailed("pgx train: the run ended without a row of metrics")
    return run.seen[0]


def until(sizes: Sizes, seed: int) -> list[Row]:
    """Measure the seconds from the command to a training return (mean of the last 20 episodes)."""
    episodes = 0.0

    def reached(row: dict[str, float]) -> bool:
        return episodes >= 20 and row.get("rollout/episode_return_recent", -1e9) >= sizes.reach

    def enough(row: dict[str, float], seconds: float) -> bool:
        nonlocal episodes
        episodes += row["rollout/episodes"]
        return reached(row) or seconds > sizes.until_seconds

    overrides = ["algo=ppo", f"env={ENV}", f"seed={seed}", f"trainer.total_steps={sizes.until_steps}"]
    _make_programs("ppo", DEFAULT)
    run = watched_run(overrides, enough)
    # Rows after the stop signal do not count.
    episodes, found = 0.0, None
    for moment, row in run.seen:
        episodes += row["rollout/episodes"]
        if reached(row):
            found = (moment - run.launched, row)
            break
    seconds, row = found or (None, run.seen[-1][1])
    details: dict[str, Detail] = {
        "steps": row["step"],
        "loop": row["time/seconds"],
        "return": row.get("rollout/episode_return_recent"),
    }
    return [Row("until", f"to return {sizes.reach:,.0f}", PGX, "as by default", "s", seconds, None, details)]
