"""hydra/launcher=joblib: run jobs in several processes of this machine."""

import os
import signal
import threading
import time
from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import compose_jobs
from pgx.core.cpu import available_cores

_POLL_SECONDS = 1.0  # seconds between checks that the sweep's process still exists


class JoblibLauncher(Launcher):
    """Launcher that runs jobs in joblib's processes.

    Args:
        n_jobs: number of concurrent jobs; None or -1: one per core.
    """

    def __init__(self, n_jobs: int | None) -> None:
        self.n_jobs = available_cores() if n_jobs is None or n_jobs == -1 else n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return the results of those that ended. If one process is killed, joblib ends all."""
        from joblib import Parallel, delayed
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import BrokenProcessPool

        jobs = compose_jobs(self.context, self.config, self.task, job_overrides, initial_job_idx)
        at_once = min(self.n_jobs, len(jobs))
        parallel = Parallel(
            n_jobs=max(2, at_once),  # with 1, joblib would run the jobs in this process
            backend="loky",
            batch_size=1,  # jobs take minutes, so each is dispatched separately
            pre_dispatch=at_once,
            max_nbytes=None,
            return_as="generator_unordered",
            initializer=_exit_with_sweep,
        )
        ended: list[JobReturn] = []
        try:
            for job in parallel(delayed(job)() for job in jobs):
                ended.append(job)
        except BrokenProcessPool:
            pass
        finally:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
        return ended


def _exit_with_sweep() -> None:
    """Ignore Ctrl-C, which the sweep's process handles, and exit when that process is gone.

    joblib's processes would wait for work forever. Nothing is lost, because runs resume from their last checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
