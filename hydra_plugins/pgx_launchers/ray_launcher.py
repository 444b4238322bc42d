"""hydra/launcher=ray: run jobs as tasks of a Ray cluster, or of a local Ray started for the sweep."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import ComposedJob, compose_jobs
from pgx.distributed.ray_cluster import check_cluster, python_path_env

_POLL_SECONDS = 1.0  # seconds between polls of the tasks; Ctrl-C is handled in between


class RayLauncher(Launcher):
    """Launcher that runs jobs as Ray tasks.

    Args:
        address: host:port of a cluster; "auto": the cluster on this machine; None: start a local one.
        cpus_per_job, gpus_per_job: resources that Ray reserves per job.
        connect_seconds: timeout for the connection to the cluster.
    """

    def __init__(
        self, address: str | None, cpus_per_job: float, gpus_per_job: float, connect_seconds: float
    ) -> None:
        self.address, self.connect_seconds = address, connect_seconds
        self.cpus_per_job, self.gpus_per_job = cpus_per_job, gpus_per_job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return the results of those that ended; jobs whose process crashed are omitted."""
        import ray

        jobs = compose_jobs(self.context, self.config, self.task, job_overrides, initial_job_idx)
        if not ray.is_initialized():
            self._connect()
        # No retries by Ray: pgx restarts crashed jobs itself, from the checkpoints in their folders.
        task = ray.remote(num_cpus=self.cpus_per_job, num_gpus=self.gpus_per_job, max_retries=0)(_run)
        pending: list[Any] = [task.remote(job) for job in jobs]
        ended: list[JobReturn] = []
        while pending:
            ready, pending = ray.wait(pending, timeout=_POLL_SECONDS)
            for reference in ready:
                with suppress(ray.exceptions.RayError):
                    ended.append(ray.get(reference))
        return ended

    def _connect(self) -> None:
        import ray

        if self.address is not None:
            check_cluster("hydra.launcher.address", self.address, self.connect_seconds)
        ray.init(
            address=self.address or "local",
            include_dashboard=None if self.address else False,
            logging_level=logging.WARNING,
            runtime_env=python_path_env(),
        )


def _run(job: ComposedJob) -> JobReturn:
    return job()
