"""hydra/launcher=submitit_slurm: run jobs as a Slurm array; submitit_local: in processes of this machine."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import ComposedJob, compose_jobs
from pgx.core.errors import UserError

_POLL_SECONDS = 2.0  # seconds between polls of the jobs; submitit asks Slurm less often


class SubmititLauncher(Launcher):
    """Launcher that runs jobs through submitit.

    Args:
        cluster: "slurm", or "local" for processes of this machine.
        folder: for submitit's job files and logs.
        cpus_per_job: Slurm's --cpus-per-task.
        parameters: other parameters of submitit.
    """

    def __init__(self, cluster: str, folder: str, cpus_per_job: int, parameters: Mapping[str, Any]) -> None:
        self.cluster, self.folder = cluster, Path(folder)
        self.cpus_per_job, self.parameters = cpus_per_job, parameters

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=submitit_slurm: this machine has no sbatch; start the sweep on a Slurm node"
            )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return the results of those that ended; jobs that Slurm killed for good are omitted."""
        import submitit

        jobs = compose_jobs(self.context, self.config, self.task, job_overrides, initial_job_idx)
        settings = dict(self.parameters)
        limits = {key: settings.pop(key) for key in self.parameters if key == "slurm_max_num_timeout"}
        executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster, **limits)
        executor.update_parameters(name="pgx", cpus_per_task=self.cpus_per_job, **settings)
        submitted = executor.map_array(_Requeued(), jobs)
        while not all(job.done() for job in submitted):
            time.sleep(_POLL_SECONDS)
        return [job.result() for job in submitted if job.exception() is None]


class _Requeued:
    """Job that is requeued when its time limit is reached; its run then resumes."""

    def __call__(self, job: ComposedJob) -> JobReturn:
        return job()

    def checkpoint(self, job: ComposedJob) -> Any:
        """Return the job to requeue; submitit calls this before the time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
