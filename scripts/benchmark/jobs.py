"""Jobs of the benchmark, and the parts of each job."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import peer_parts, pgx_parts
from .processes import SCRIPTS, answers
from .rows import PGX, Detail, Row
from .sizes import BARE_ENVS, Sizes

JOBS = {
    "bare": "EnvPool stepping alone",
    "ppo": "PPO end to end",
    "trpo": "TRPO end to end",
    "a2c": "A2C end to end",
    "ppo_update": "one PPO update",
    "trpo_update": "one TRPO update, of a small and of a large batch",
    "envs": "environments, by scripts/bench_envs.py",
    "memory": "peak memory of a PPO run",
    "startup": "from the command to the first environment step",
    "losses": "the first minibatch steps, compared with SB3's",
    "until": "PPO to a training return (hours; a round is a seed)",
}
BY_DEFAULT = tuple(name for name in JOBS if name != "until")
ENVS_SCRIPT = SCRIPTS / "bench_envs.py"


@dataclass(frozen=True)
class Part:
    """Part of a job: one or a few processes."""

    job: str
    name: str
    measure: Callable[[int], list[Row]]  # argument: number of the round, also used as seed


@dataclass(frozen=True)
class Pythons:
    """Python interpreters of other libraries; None: the library is omitted."""

    sb3: str | None
    tianshou: str | None


def parts(names: list[str], sizes: Sizes, pythons: Pythons, quick: bool) -> list[Part]:
    """Return the parts of jobs, in the order of a round."""
    few = 1 if quick else None  # settings of each kind; one is enough to test a job
    make: dict[str, Callable[[], list[Part]]] = {
        "bare": lambda: [
            Part("bare", f"{n} environments", partial(pgx_parts.bare, n, sizes)) for n in BARE_ENVS[:few]
        ],
        "ppo": lambda: _rates("ppo", (16, 32)[:few], 8, (8, 32)[:few], sizes, pythons),
        "trpo": lambda: _rates("trpo", (16, 32)[:few], 8, (8, 32)[:few], sizes, pythons),
        "a2c": lambda: _rates("a2c", (16,), 16, (16,), sizes, pythons),
        "ppo_update": lambda: _updates("ppo_update", "ppo", (2048,), sizes, pythons),
        "trpo_update": lambda: _updates("trpo_update", "trpo", sizes.batches, sizes, pythons),
        "envs": lambda: _environments(quick),
        "memory": lambda: _both("memory", pgx_parts.memory, peer_parts.memory, sizes, pythons),
        "startup": lambda: _startup(pythons),
        "losses": lambda: _losses(pythons),
        "until": lambda: _both("until", pgx_parts.until, peer_parts.until, sizes, pythons),
    }
    return [part for name in names for part in make[name]()]


def left_out(names: list[str], pythons: Pythons) -> list[str]:
    """Return messages on what is not measured because a library or a script is missing."""
    said = []
    if pythons.sb3 is None:
        said.append("Stable-Baselines3 and sb3-contrib are left out (--peer-python)")
    if pythons.tianshou is None:
        said.append("Tianshou is left out (--tianshou-python)")
    if "losses" in names and pythons.sb3 is None:
        said.append("losses is left out: it needs --peer-python")
    if "envs" in names and not ENVS_SCRIPT.exists():
        said.append("envs is left out: there is no scripts/bench_envs.py")
    return said


def _rates(
    algo: str, ours: tuple[int, ...], dummies: int, pools: tuple[int, ...], sizes: Sizes, pythons: Pythons
) -> list[Part]:
    """Return parts for whole loops: pgx and SB3 with EnvPool, and SB3 with its own vector environment."""
    batch = pgx_parts.ROWS[algo]
    found = [Part(algo, f"pgx, {n} environments", partial(pgx_parts.rate, algo, n, sizes)) for n in ours]
    if pythons.sb3:
        for vec, num_envs in (("dummy", dummies), *(("envpool", pool) for pool in pools)):
            measure = partial(peer_parts.rate, pythons.sb3, algo, vec, num_envs, batch, sizes)
            found.append(Part(algo, f"SB3, {num_envs} {peer_parts.VECS[vec]}", measure))
    if pythons.tianshou and algo != "trpo":
        measure = partial(peer_parts.tianshou_rate, pythons.tianshou, algo, pools[0], sizes)
        found.append(Part(algo, f"Tianshou, {pools[0]} EnvPool", measure))
    return found


def _updates(job: str, algo: str, batches: tuple[int, ...], sizes: Sizes, pythons: Pythons) -> list[Part]:
    found = []
    for batch in batches:
        found.append(Part(job, f"pgx, {batch:,} rows", partial(pgx_parts.update, job, algo, batch, sizes)))
        if pythons.sb3:
            measure = partial(peer_parts.update, pythons.sb3, job, algo, batch, sizes)
            found.append(Part(job, f"SB3, {batch:,} rows", measure))
    return found


def _both(
    job: str,
    ours: Callable[[Sizes, int], list[Row]],
    theirs: Callable[[str, Sizes, int], list[Row]],
    sizes: Sizes,
    pythons: Pythons,
) -> list[Part]:
    found = [Part(job, "pgx", partial(ours, sizes))]
    if pythons.sb3:
        found.append(Part(job, "SB3", partial(theirs, pythons.sb3, sizes)))
    return found


def _startup(pythons: Pythons) -> list[Part]:
    found = [Part("startup", "pgx", pgx_parts.startup)]
    if pythons.sb3:
        found.append(Part("startup", "SB3", partial(peer_parts.startup, pythons.sb3)))
    return found


def _losses(pythons: Pythons) -> list[Part]:
    if pythons.sb3 is None:
        return []
    return [Part("losses", "pgx and SB3", partial(peer_parts.losses, sys.executable, pythons.sb3))]


def _environments(quick: bool) -> list[Part]:
    if not ENVS_SCRIPT.exists():
        return []
    return [
        Part("envs", f"bench_envs.py, {num_envs} environments", partial(_environment_rows, num_envs, quick))
        for num_envs in ((16,) if quick else (16, 64))
    ]


def _environment_rows(num_envs: int, quick: bool, seed: int) -> list[Row]:
    """Run scripts/bench_envs.py; return a row for each of its JSON lines."""
    size: list[str | float] = ["--rounds", 3, "--seconds", 0.2] if quick else ["--rounds", 1]
    found = []
    for line in answers(sys.executable, ENVS_SCRIPT.name, "--num-envs", num_envs, *size):
        setting = f"{line['num_envs']} environments, {line['backend']}"
        details: dict[str, Detail] = {"over SyncVectorEnv": line["over_sync"]}
        found.append(
            Row(
                "envs",
                line["env"],
                PGX,
                setting,
                "steps/s",
                line["steps_per_second"],
                line["num_envs"],
                details,
            )
        )
    return found
