"""hydra/launcher=ray: jobs as tasks of a Ray cluster, or of a Ray that is started here for the sweep."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import PlacedJob, place
from pgx.distributed.ray_cluster import probe, same_path

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
            probe("hydra.launcher.address", self.address, self.connect_seconds)
        ray.init(
            address=self.address or "local",
            include_dashboard=None if self.address else False,
            logging_level=logging.WARNING,
            runtime_env=same_path(),
        )


def _run(job: PlacedJob) -> JobReturn:
    return job()
