"""hydra/launcher=joblib: jobs in processes of this machine, so many at once."""

import os
import signal
import threading
import time
from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.pgx_launchers.jobs import place
from pgx.distributed.cores import available

LOOK = 1.0  # seconds between looks at whether the sweep is still there


class JoblibLauncher(Launcher):
    """Jobs through joblib's processes.

    Args:
        n_jobs: at once; None or -1 for one a core.
    """

    def __init__(self, n_jobs: int | None) -> None:
        self.n_jobs = available() if n_jobs is None or n_jobs == -1 else n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """The returns of the jobs that ended in their own way; where a process was killed, joblib ends them all."""
        from joblib import Parallel, delayed
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import BrokenProcessPool

        jobs = place(self.context, self.config, self.task, job_overrides, initial_job_idx)
        at_once = min(self.n_jobs, len(jobs))
        parallel = Parallel(
            n_jobs=max(2, at_once),  # with one, joblib runs the jobs in this process, which must outlive them
            backend="loky",
            batch_size=1,  # a job takes minutes: none waits behind another
            pre_dispatch=at_once,
            max_nbytes=None,
            return_as="generator_unordered",
            initializer=_belong_to_the_sweep,
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


def _belong_to_the_sweep() -> None:
    """Ctrl-C is the sweep's to hear, which asks the jobs to end; and a process whose sweep is gone ends at once.

    joblib's own would wait for work for ever. Nothing is lost: a run resumes from its last checkpoint however it ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
