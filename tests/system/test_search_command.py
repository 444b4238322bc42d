"""`pgx train -m sweep=NAME`: a search that is killed and resumed."""

import os
import re
import shlex
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from pgx.sweeps.progress import read_progress, resumable
from tests.command import Command
from tests.system.command import begin, jobs, summary, wait_for
from tests.warm import pgx

SEARCH = [
    "-m",
    "sweep=ppo_cartpole",
    "sweep.trials=6",
    "sweep.startup_trials=2",
    "sweep.report_every=512",
    "sweep.warmup_steps=512",
    "trainer.total_steps=4096",
    "trainer.checkpoint_every=512",
    "env.num_envs=4",
    "runner.rollout_steps=64",
    "env.backend=gymnasium",
    "logger.every=1",
]


def trials(folder: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db").trials


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run a search without interruption; return its folder and output."""
    cwd = tmp_path_factory.mktemp("whole")
    said = pgx("train", *SEARCH, "hydra.sweep.dir=search", cwd=cwd)
    assert said.returncode == 0, said.stderr
    return cwd / "search", said.stdout


def test_the_study_has_the_name_of_the_sweep_and_its_trials_their_runs(
    command: Command, tmp_path: Path
) -> None:
    short = ["sweep.trials=1", "trainer.total_steps=256", "seed=5", "algo.epochs=1", "algo.minibatch_size=64"]
    said = command("train", *SEARCH, *short, "logger.sinks=[]", "hydra.sweep.dir=found/search")
    assert said.code == 0, said.err
    storage = f"sqlite:///{tmp_path}/found/search/study.db"
    assert optuna.get_all_study_names(storage) == ["search"]
    attributes = [trial.user_attrs for trial in trials(tmp_path / "found" / "search")]
    assert attributes == [{"run_dir": str(run), "seed": 5} for run in jobs(tmp_path / "found" / "search")]


@pytest.mark.slow
def test_a_search_ends_with_the_best_the_command_that_repeats_it_and_the_importances(
    whole: tuple[Path, str],
) -> None:
    folder, said = whole
    ended = trials(folder)
    assert len(ended) == 6 and all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in ended)
    best = max(t.value for t in ended if t.state == TrialState.COMPLETE and t.value is not None)
    assert (
        max(summary(run)["final_return"] for run in jobs(folder) if read_progress(run).state == "finished")
        == best
    )
    assert "best final_return: " in said and "importance: " in said
    command = shlex.split(re.findall(r"repeat +(.*)", said)[-1])
    repeated = pgx(*command[1:], "run_dir=again", cwd=folder.parent)
    assert repeated.returncode == 0, repeated.stderr
    assert summary(folder.parent / "again")["final_return"] == best


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_killed_search_resumes_its_unfinished_trials(
    whole: tuple[Path, str], tmp_path: Path, launcher: str
) -> None:
    folder = tmp_path / "search"
    process = begin("train", *SEARCH, "hydra.sweep.dir=search", f"hydra/launcher={launcher}", cwd=tmp_path)

    def half_way() -> bool:
        if not (folder / "sweep.json").is_file():
            return False
        seen = [read_progress(run) for run in jobs(folder)]
        ended = sum(run.state in ("finished", "pruned") for run in seen)
        return ended >= 2 and any(run.state == "running" and 1024 < run.steps < 3072 for run in seen)

    try:
        wait_for(half_way, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = {run: read_progress(run) for run in jobs(folder)}
    cut = [run for run in before if before[run].state == "interrupted" and resumable(run)]
    noted = {run: (run / "trial.json").read_bytes() for run in before if (run / "trial.json").is_file()}
    assert cut
    said = pgx("sweep", "resume", "search", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert {run: (run / "trial.json").read_bytes() for run in noted} == noted
    ended = [t for t in trials(folder) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 6 and not [t for t in trials(folder) if t.state == TrialState.RUNNING]
    if launcher == "basic":  # with one trial after another, a search does not depend on kills
        pairs = zip(trials(folder), trials(whole[0]), strict=True)
        assert all((a.params, a.values, a.state) == (b.params, b.values, b.state) for a, b in pairs)

    larger = ["sweep.trials=7" if o == "sweep.trials=6" else o for o in SEARCH]
    more = pgx("train", *larger, "hydra.sweep.dir=search", cwd=tmp_path)
    assert more.returncode == 0 and "7 jobs, 1 to run" in more.stdout, more.stderr
