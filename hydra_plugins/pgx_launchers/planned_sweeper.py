"""Hydra sweeper that passes the jobs of sweep.json to the chosen launcher."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from pgx.core.cpu import available_cores


class PlannedSweeper(Sweeper):
    """Sweeper that runs the unfinished jobs of hydra.sweep.dir/sweep.json, which pgx wrote from the command line."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Dispatch the jobs. `arguments` is empty: Hydra finds no overrides to sweep over."""
        from pgx.runs.writer import print_warning
        from pgx.sweeps.plan import Job, launch_overrides, launch_until_ended, read_plan, unfinished_jobs

        assert self.config is not None and not arguments
        folder = Path(self.config.hydra.sweep.dir)
        plan = read_plan(folder)
        launcher, cores, todo = self.config.hydra.launcher, available_cores(), unfinished_jobs(plan)
        threads = threads_per_job(launcher, cores)
        if line := oversubscription_warning(launcher, len(todo), cores):
            print_warning(line)

        def launch(jobs: Sequence[Job]) -> None:
            self.launcher.launch([launch_overrides(plan, job, threads) for job in jobs], 0)

        launch_until_ended(folder, todo, launch)


def threads_per_job(launcher: DictConfig, cores: int) -> int | None:
    """Return the number of environment threads per job; None if jobs run one at a time and may use all cores.

    Args:
        launcher: section of the config. Hydra's plugins for joblib and submitit use the same names.
        cores: number of cores that this process may use.
    """
    for key in ("cpus_per_job", "cpus_per_task"):
        if launcher.get(key) is not None:
            return max(1, int(launcher[key]))
    if "n_jobs" in launcher:
        at_once = launcher.n_jobs
        return max(1, cores // (cores if at_once in (None, -1) else at_once))
    return None


def oversubscription_warning(launcher: DictConfig, jobs: int, cores: int) -> str | None:
    """Return a warning if a launcher runs more jobs at once on this machine than it has cores, else None.

    Args:
        launcher: section of the config.
        jobs: number of jobs to run.
        cores: number of cores that this process may use.
    """
    if "n_jobs" in launcher:
        at_once = min(jobs, cores if launcher.n_jobs in (None, -1) else launcher.n_jobs)
        fix = f"hydra.launcher.n_jobs={cores} runs one per core"
    elif launcher.get("cluster") == "local":
        at_once, fix = jobs, "hydra/launcher=joblib runs one per core"
    else:
        return None
    if at_once <= cores:
        return None
    return (
        f"{at_once} jobs at once on {cores} {'core' if cores == 1 else 'cores'} slow each other down; {fix}"
    )
