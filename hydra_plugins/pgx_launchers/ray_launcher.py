"""hydra/launcher=ray: jobs as tasks of a Ray cluster, or of a Ray that is started here for the sweep."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import PlacedJob, place
from pgx.errors import UserError

PROBE = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"
LOOK = 1.0  # seconds between looks at the tasks: in between, Ctrl-C is heard


class RayLauncher(Launcher):
    """Jobs through Ray.

    Args:
        address: host:port of a cluster, "auto" for the one that runs on this machine; None to start one here.
        cpus_per_job, gpus_per_job: what Ray sets aside for each.
        connect_seconds: how long to wait for the cluster.
    """

    def __init__(
        self, address: str | None, cpus_per_job: float, gpus_per_job: float, connect_seconds: float
    ) -> None:
        self.address, self.connect_seconds = address, connect_seconds
        self.cpus_per_job, self.gpus_per_job = cpus_per_job, gpus_per_job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """The returns of the jobs that ended in their own way; a job whose process died is left out."""
        import ray

        jobs = place(self.context, self.config, self.task, job_overrides, initial_job_idx)
        if not ray.is_initialized():
            self._connect()
        # Ray would begin a dead task again; pgx does, which sees from the run's folder what there is to go on with.
        task = ray.remote(num_cpus=self.cpus_per_job, num_gpus=self.gpus_per_job, max_retries=0)(_run)
        pending: list[Any] = [task.remote(job) for job in jobs]
        ended: list[JobReturn] = []
        while pending:
            ready, pending = ray.wait(pending, timeout=LOOK)
            for reference in ready:
                with suppress(ray.exceptions.RayError):
                    ended.append(ray.get(reference))
        return ended

    def _connect(self) -> None:
        import ray

        if self.address is not None:
            _probe(self.address, self.connect_seconds)
        ray.init(
            address=self.address or "local",
            include_dashboard=None if self.address else False,
            logging_level=logging.WARNING,
            runtime_env={
                "env_vars": {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
            },
        )


def _run(job: PlacedJob) -> JobReturn:
    return job()


def _probe(address: str, seconds: float) -> None:
    """Ask whether a cluster answers, in a process that can be ended: Ray's own attempt cannot be.

    Raises:
        UserError: none does.
    """
    problem = f"hydra.launcher.address={address}: no Ray cluster answered within {seconds:g} s"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    started = time.monotonic()
    if address != "auto":
        if not host or not port.isdecimal():
            raise UserError(f"hydra.launcher.address={address}: expected host:port, auto or null")
        try:
            socket.create_connection((host, int(port)), timeout=seconds).close()
        except OSError as error:
            raise UserError(f"{problem} ({error})") from error
    left = max(1.0, seconds - (time.monotonic() - started))
    try:
        asked = subprocess.run(
            [sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=left, check=False
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
