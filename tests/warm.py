"""Run commands in processes that are forked from one with all imports, which saves seconds per command."""

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
TIMEOUT = 900  # seconds; commands take about ten, but the machine may be busy


@cache
def context() -> Any:
    """Return the context of processes: a fork server that has imported pgx. Starting it takes 4 s of a core."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def pgx(*arguments: str, cwd: Path, **variables: str) -> "CompletedProcess[str]":
    """Run a command with its output in a pipe, optionally with environment variables.

    A variable that is read during imports has no effect here; use `python -m pgx` for it.
    """
    outputs = {name: Path(tempfile.mkstemp(prefix="pgx-output-")[1]) for name in ("out", "err")}
    process = context().Process(target=_run_command, args=(arguments, cwd, environment(**variables), outputs))
    process.start()
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutExpired(["pgx", *arguments], TIMEOUT)
    out, err = (path.read_text() for path in outputs.values())
    for path in outputs.values():
        path.unlink()
    return CompletedProcess(["pgx", *arguments], process.exitcode, out, err)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment variables without those that change output, and with the given ones."""
    excluded = {
        "PGX_DEBUG",
        "HYDRA_FULL_ERROR",
        "FORCE_COLOR",
        "NO_COLOR",
        "TTY_COMPATIBLE",
        "COLUMNS",
        "LINES",
    }
    return {key: value for key, value in os.environ.items() if key not in excluded} | variables


def _run_command(
    arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], outputs: dict[str, Path]
) -> None:
    """Run `pgx` in this process, with stdout and stderr in files."""
    for number, path in enumerate(outputs.values(), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["pgx"]
    sys.path.insert(0, "")
    from pgx.cli.main import main

    main(arguments)
