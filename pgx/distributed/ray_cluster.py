"""Connections to Ray, and the store of parameters for its actors. Ray is imported inside functions."""

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

LOG_FILTER_VARIABLE = "RAY_DEDUP_LOGS_SKIP_REGEX"  # lines that Ray does not print; read on import
_LOG_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"  # lowest level that Ray logs; read when it connects


class ParameterStore:
    """References to the latest parameters in Ray's object store, and the number of restarted actors.

    Its process imports no torch, since it does not read the parameters.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, list[Any]] | None = None
        self._registered: set[int] = set()
        self._restarts = 0

    def publish(self, version: int, references: list[Any]) -> int:
        """Replace the parameters, and return the number of restarts.

        Args:
            version: version of the parameters.
            references: references to them, in a list, since Ray would replace a bare reference by its object.
        """
        self._newest = version, references
        return self._restarts

    def newest(self) -> tuple[int, list[Any]] | None:
        """Return version and references of the latest parameters, or None if there are none."""
        return self._newest

    def register(self, index: int) -> int:
        """Register the process of an actor. Return 0, or for a restarted actor the number of restarts so far.

        Args:
            index: number of the actor.
        """
        if index not in self._registered:
            self._registered.add(index)
            return 0
        self._restarts += 1
        return self._restarts

    def restarts(self) -> int:
        """Return the number of restarts of actors."""
        return self._restarts


def suppress_ray_logs() -> None:
    """Keep Ray from printing every exit and retry, unless the user set its log filter. Call before Ray is imported.

    pgx reports lost nodes and processes in its own messages.
    """
    os.environ.setdefault(LOG_FILTER_VARIABLE, ".*")


def address_problem(key: str, address: str) -> str | None:
    """Return a message about the syntax of an address, or None if it is valid."""
    host, _, port = address.rpartition(":")
    if address == "auto" or (host and "/" not in host and port.isdecimal()):
        return None
    return f"{key}={address}: not an address; set host:port, auto or null"


def connect(key: str, address: str | None, connect_seconds: float, num_cpus: int) -> bool:
    """Connect this process to Ray. A process that is already connected keeps its connection.

    Args:
        key: config key of the address, for messages.
        address: host:port of a cluster, or "auto" for the one that runs on this machine; None: start Ray here, which
            stops with this process.
        connect_seconds: time limit for the cluster to answer.
        num_cpus: CPUs of a Ray that is started here.

    Returns:
        Whether this call connected the process.

    Raises:
        UserError: no cluster answers at the address.
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
    # Otherwise this process prints long reports of lost nodes.
    level = os.environ.setdefault(_LOG_LEVEL_VARIABLE, "fatal")
    with _stderr_suppressed():
        ray.init(**settings, address=address)
    if level == "fatal":
        del os.environ[_LOG_LEVEL_VARIABLE]
    return True


@contextmanager
def _stderr_suppressed() -> Iterator[None]:
    """Discard standard error, also of native code. Exceptions report what fails."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def python_path_env() -> dict[str, dict[str, str]]:
    """Return a runtime environment in which Ray's processes find the same modules as this process."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {"env_vars": {"PYTHONPATH": path}}


def check_cluster(key: str, address: str, seconds: float) -> None:
    """Check that a cluster answers, from a child process, since Ray's own attempt has no time limit.

    Args:
        key: config key of the address, for messages.
        address: host:port, or "auto".
        seconds: time limit.

    Raises:
        UserError: no cluster answers.
    """
    problem = f"{key}={address}: no Ray cluster answered within {seconds:g} s"
    started = time.monotonic()
    if address != "auto":
        if syntax_problem := address_problem(key, address.removeprefix("ray://")):
            raise UserError(syntax_problem)
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=seconds).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{problem} ({error})") from error
    left = max(1.0, seconds - (time.monotonic() - started))
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(problem) from None
    if probe.returncode != 0:
        lines = [line for line in probe.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in lines if line.startswith("ray.exceptions.")),
            lines[-1] if lines else "no reason given",
        )
        raise UserError(f"{problem} ({reason})")
