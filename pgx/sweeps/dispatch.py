"""Handing jobs to whatever launches them, and finding out from their folders which of them it lost."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pgx.runs.lock import last_holder
from pgx.sweeps.plan import STOP, Job
from pgx.sweeps.progress import ENDED, look, write_failure

Launch = Callable[[Sequence[Job]], None]

LOST = "its process ended without a word, launched alone as well (killed from outside, perhaps for want of memory)"


def dispatch(folder: Path, jobs: Sequence[Job], launch: Launch) -> None:
    """Launch jobs until each has ended or a stop is asked for.

    A process that is killed (for want of memory, most often) takes others with it in some launchers, and its run
    leaves no word. So jobs that had begun and left none are launched again one by one, each from its last checkpoint:
    the one that dies alone is the one that failed.

    Args:
        folder: the sweep's.
        jobs: which have not ended; a job that another process works on is left to it.
        launch: runs jobs, and returns when no process of theirs is left. How they ended stands in their folders.
    """
    left = list(jobs)
    while left and not (folder / STOP).exists():
        before = {job: last_holder(job.run_dir) for job in left}
        launch(left)
        unfinished = [job for job in left if look(job.run_dir).state not in (*ENDED, "running")]
        suspects = [job for job in unfinished if last_holder(job.run_dir) != before[job]]
        for job in suspects:
            if (folder / STOP).exists():
                return
            launch([job])
            if not (folder / STOP).exists() and look(job.run_dir).state not in (*ENDED, "running"):
                write_failure(job.run_dir, LOST)
        rest = [job for job in unfinished if job not in suspects]
        if len(rest) == len(left) and not (folder / STOP).exists():
            for job in rest:
                write_failure(job.run_dir, "the launcher returned without having begun it")
            return
        left = rest
