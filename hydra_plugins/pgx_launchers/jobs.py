"""Jobs of all launchers: composed in this process, run in another."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass(frozen=True)
class ComposedJob:
    """Picklable job with everything that another process needs to run it."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    singletons: Any
    cwd: str
    path: tuple[str, ...]  # sys.path of this process, for modules of environments

    def __call__(self) -> JobReturn:
        sys.path.extend(entry for entry in self.path if entry not in sys.path)
        if Path(self.cwd).is_dir():
            os.chdir(self.cwd)
        setup_globals()
        Singleton.set_state(self.singletons)
        HydraConfig.instance().set_config(self.config)
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def compose_jobs(
    context: HydraContext,
    config: DictConfig,
    task: TaskFunction,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[ComposedJob]:
    """Compose jobs for other processes.

    Args:
        context, config, task: arguments of the launcher's setup.
        job_overrides: overrides of each job.
        first: number of the first job.
    """
    setup_globals()
    singletons = Singleton.get_state()
    composed_jobs = []
    for number, overrides in enumerate(job_overrides, first):
        composed = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        composed_jobs.append(
            ComposedJob(context, composed, task, singletons, str(Path.cwd()), tuple(sys.path))
        )
    return composed_jobs
