"""Jobs whose processes are killed: the failed job is identified and the others end normally."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import pytest

from pgx.runs.lock import lock_run
from pgx.sweeps.plan import KILLED, STOP_FILE, Job, Plan, launch_until_ended, write_plan
from pgx.sweeps.progress import read_progress, write_failure
from pgx.sweeps.report import result_lines
from tests.command import Command


def work(run: Path, deadly: bool) -> None:
    """Write the files of a job, or get killed. "failed" stands for any end that writes a summary."""
    run.mkdir(exist_ok=True)
    with lock_run(run):
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        write_failure(run, "as it should")


Pool = Callable[[Sequence[Job]], None]


@pytest.fixture
def launches() -> list[list[str]]:
    return []


@pytest.fixture
def pool(launches: list[list[str]]) -> Pool:
    """Return a launcher that, like joblib's, loses all jobs if a process is killed."""

    def launch(jobs: Sequence[Job]) -> None:
        launches.append([job.run_dir.name for job in jobs])
        with (
            ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes,
            suppress(BrokenProcessPool),
        ):
            list(processes.map(work, [j.run_dir for j in jobs], ["deadly" in j.run_dir.name for j in jobs]))

    return launch


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job((), folder / name) for name in names]


@pytest.mark.slow
def test_a_killed_job_does_not_prevent_the_others_from_ending(
    tmp_path: Path, pool: Pool, launches: list[list[str]]
) -> None:
    all_jobs = jobs(tmp_path, "a", "deadly", "b", "c", "deadly2", "d")
    launch_until_ended(tmp_path, all_jobs, pool)
    assert {job.run_dir.name: read_progress(job.run_dir).error for job in all_jobs} == {
        name: KILLED if "deadly" in name else "as it should"
        for name in ("a", "deadly", "b", "c", "deadly2", "d")
    }
    assert ["deadly"] in launches and ["deadly2"] in launches  # each was launched alone


def test_a_killed_job_is_reported_and_the_others_end(command: Command, tmp_path: Path) -> None:
    """With one process per job, as with Ray: in the status and at the end of the sweep."""
    plan = Plan(tuple(jobs(tmp_path, "a", "deadly", "b")), (), tmp_path, None)
    write_plan(tmp_path, plan)

    def launch(launched: Sequence[Job]) -> None:
        for job in launched:
            process = multiprocessing.get_context("fork").Process(
                target=work, args=(job.run_dir, "deadly" in job.run_dir.name)
            )
            process.start()
            process.join()

    launch_until_ended(tmp_path, plan.jobs, launch)
    assert {job.run_dir.name: read_progress(job.run_dir).error for job in plan.jobs} == {
        "a": "as it should", "deadly": KILLED, "b": "as it should"
    }  # fmt: skip
    assert any(line.startswith(f"deadly: {KILLED}") for line in result_lines(tmp_path, plan)[1])
    said = command("sweep", "status", ".")
    assert said.code == 0 and f"deadly: {KILLED}" in said.out and "3 failed" in said.out


@pytest.mark.system
def test_a_job_that_ended_is_not_launched_again(
    tmp_path: Path, pool: Pool, launches: list[list[str]]
) -> None:
    launch_until_ended(tmp_path, jobs(tmp_path, "a", "b"), pool)
    assert launches == [["a", "b"]]


def test_a_launcher_that_starts_nothing_is_not_called_forever(tmp_path: Path) -> None:
    launch_until_ended(tmp_path, jobs(tmp_path, "a"), lambda jobs: None)
    run = read_progress(tmp_path / "a")
    assert run.state == "failed" and "without starting" in str(run.error)


def test_nothing_is_launched_after_a_stop_request(tmp_path: Path) -> None:
    def launch(jobs: Sequence[Job]) -> None:
        (tmp_path / STOP_FILE).touch()

    launch_until_ended(tmp_path, jobs(tmp_path, "a", "b"), launch)
    assert read_progress(tmp_path / "a").state == "waiting"  # not failed
