"""Connecting to Ray: to a cluster that may not answer, or to a Ray that is started here. Imported by functions."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgx.core.errors import UserError

_PROBE = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"

LOG_FILTER_VARIABLE = (
    "RAY_DEDUP_LOGS_SKIP_REGEX"  # lines that Ray keeps from the console; read when it is imported
)
_LOG_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"  # below which Ray says nothing; read when it connects


class ParameterStore:
    """The newest parameters that were published, and how many actors took the place of others that died.

    It imports no torch: what is published are references into the object store, which it never looks into.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, list[Any]] | None = None
        self._joined: set[int] = set()
        self._restarts = 0

    def publish(self, version: int, references: list[Any]) -> int:
        """Put other parameters in place of those that are there; returns how many actors have died.

        Args:
            version: of the parameters.
            references: to them; in a list, since Ray would look up a bare one.
        """
        self._newest = version, references
        return self._restarts

    def newest(self) -> tuple[int, list[Any]] | None:
        """Version and references of what was published last; None: nothing was."""
        return self._newest

    def register(self, index: int) -> int:
        """A process begins to be an actor; returns 0, or where one was before it how many have died by now.

        Args:
            index: of the actor.
        """
        if index not in self._joined:
            self._joined.add(index)
            return 0
        self._restarts += 1
        return self._restarts

    def restarts(self) -> int:
        """Actors that died and were started again."""
        return self._restarts


def suppress_ray_logs() -> None:
    """Keep Ray, which this process has not imported yet, from telling of every death and retry; unless the user chose.

    What the user is to know of nodes and processes is in pgx's own messages.
    """
    os.environ.setdefault(LOG_FILTER_VARIABLE, ".*")


def address_problem(key: str, address: str) -> str | None:
    """What is wrong with how an address is written, in words; None: nothing."""
    host, _, port = address.rpartition(":")
    if address == "auto" or (host and "/" not in host and port.isdecimal()):
        return None
    return f"{key}={address}: expected host:port, auto or null"


def connect(key: str, address: str | None, connect_seconds: float, num_cpus: int) -> bool:
    """Make this process one of a Ray's drivers; one that is connected already stays where it is.

    Args:
        key: whose value `address` is, for messages.
        address: host:port of a cluster, "auto" for the one that runs on this machine; None: a Ray is started here and
            ends with this process.
        connect_seconds: to wait for the cluster.
        num_cpus: what a Ray that is started here has to give.

    Returns:
        Whether it was not connected before.

    Raises:
        UserError: no cluster answers there.
    """
    import ray

    if ray.is_initialized():
        return False
    if address is not None:
        check_cluster(key, address, connect_seconds)
    settings: dict[str, Any] = {
        "logging_level": logging.CRITICAL,
        "log_to_driver": False,
        "runtime_env": python_path_env(),
    }
    if address is None:
        settings |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
        ray.init(**settings)
        return True
    chosen = os.environ.setdefault(
        _LOG_LEVEL_VARIABLE, "fatal"
    )  # of this process: lost nodes are told of at length
    with _stderr_suppressed():
        ray.init(**settings, address=address)
    if chosen == "fatal":
        del os.environ[_LOG_LEVEL_VARIABLE]
    return True


@contextmanager
def _stderr_suppressed() -> Iterator[None]:
    """What is written to the error stream goes nowhere, from below Python too; exceptions say what went wrong."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def python_path_env() -> dict[str, dict[str, str]]:
    """A runtime environment in which Ray's processes find the modules that this process finds."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {"env_vars": {"PYTHONPATH": path}}


def check_cluster(key: str, address: str, seconds: float) -> None:
    """Ask whether a cluster answers, in a process that can be ended: Ray's own attempt cannot be.

    Args:
        key: whose value `address` is, for messages.
        address: host:port, or "auto".
        seconds: to wait.

    Raises:
        UserError: none does.
    """
    problem = f"{key}={address}: no Ray cluster answered within {seconds:g} s"
    started = time.monotonic()
    if address != "auto":
        if wrong := address_problem(key, address.removeprefix("ray://")):
            raise UserError(wrong)
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=seconds).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{problem} ({error})") from error
    left = max(1.0, seconds - (time.monotonic() - started))
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(problem) from None
    if asked.returncode != 0:
        said = [line for line in asked.stderr.splitlines() if line.strip()]
        why = next(
            (line for line in said if line.startswith("ray.exceptions.")),
            said[-1] if said else "no word of why",
        )
        raise UserError(f"{problem} ({why})")
