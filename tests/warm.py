"""The command in a process of its own without the seconds of imports: forked from one that has everything imported."""

import multiprocessing
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

PRELOADED = [
    "pgx.cli.main",
    "pgx.training.build",
    "pgx.cli.train",
    "pgx.algos",
    "gymnasium.envs.classic_control",
]
PATIENCE = 900  # seconds for what takes some ten: the machine may be busy with other things


@cache
def context() -> Any:
    """Where processes come from: a server that has imported pgx and run nothing. Made once, costs 4 s of a core."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def pgx(*arguments: str, cwd: Path, **variables: str) -> "CompletedProcess[str]":
    """Run a command to its end, its output as in a pipe; variables of its environment may be set.

    What a variable decides at import alone needs a real `python -m pgx`.
    """
    said = {name: Path(tempfile.mkstemp(prefix="pgx-said-")[1]) for name in ("out", "err")}
    process = context().Process(target=_live, args=(arguments, cwd, environment(**variables), said))
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutExpired(["pgx", *arguments], PATIENCE)
    out, err = (path.read_text() for path in said.values())
    for path in said.values():
        path.unlink()
    return CompletedProcess(["pgx", *arguments], process.exitcode, out, err)


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without those that colour output or show tracebacks, and with others."""
    loud = {"PGX_DEBUG", "HYDRA_FULL_ERROR", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"}
    return {key: value for key, value in os.environ.items() if key not in loud} | variables


def _live(arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], said: dict[str, Path]) -> None:
    """Be `pgx` with these arguments."""
    for number, path in enumerate(said.values(), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["pgx"]
    sys.path.insert(0, "")
    from pgx.cli.main import main

    main(arguments)
