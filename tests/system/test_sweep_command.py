"""`pgx train -m` and `pgx sweep`: failed, skipped and refused jobs."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pgx.api.run_folder import create_unique_folder
from pgx.cli.sweep_jobs import _plan, _with_folders
from pgx.core.errors import UserError
from pgx.runs.lock import lock_run
from pgx.sweeps.progress import read_progress
from tests.command import Command
from tests.system.command import SMALL, TINY, begin, jobs, same, summary, wait_for
from tests.warm import TIMEOUT, pgx

NO_SHAPING = '''
import os, signal
from pathlib import Path
import gymnasium
import numpy as np


class Faulty(gymnasium.Env):
    """Ten-step episodes; "fails" and "dies" do so after 100 steps while the file `mended` is not there."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault):
        self.fault, self.steps = fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 100 and not Path("mended").exists():
            if self.fault == "fails":
                raise RuntimeError("the robot fell off the table")
            if self.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action), self.steps % 10 == 0, False, {}


for fault in ("fails", "dies", "works"):
    gymnasium.register(f"Faulty-{fault}-v0", Faulty, kwargs={"fault": fault})
'''
FAULTY = [*SMALL, "algo=a2c", "trainer.total_steps=512", "trainer.checkpoint_every=128", "logger.every=1"]


# --- jobs that fail


def test_a_failed_job_is_listed_with_its_error_and_its_command_and_runs_again_on_resume(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.py").write_text(NO_SHAPING)
    envs = "env=broken:Faulty-fails-v0,broken:Faulty-works-v0"
    said = pgx("train", "-m", envs, *FAULTY, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert said.returncode == 1 and "Traceback" not in said.stderr
    assert "1 of 2 runs failed" in said.stderr and "the robot fell off the table" in said.stderr
    command = next(line for line in said.stderr.splitlines() if "repeat: " in line).split("repeat: ")[1]
    assert command.startswith("pgx train 'env=broken\\:Faulty-fails-v0'") or "Faulty-fails-v0" in command
    failed, works = jobs(tmp_path / "sweep")
    assert (summary(failed)["status"], summary(works)["status"]) == ("failed", "finished")

    repeated = pgx(*shlex.split(command)[1:], cwd=tmp_path)
    assert repeated.returncode == 1 and "the robot fell off the table" in repeated.stderr

    status = pgx("sweep", "status", "sweep", cwd=tmp_path)
    assert status.returncode == 0 and "1 failed, 1 finished" in status.stdout
    assert "the robot fell off the table" in status.stdout

    (tmp_path / "mended").touch()
    before = (works / "summary.json").read_bytes()
    said = pgx("sweep", "resume", str(tmp_path / "sweep"), "--trust", cwd=tmp_path.parent)  # from any folder
    assert said.returncode == 0, said.stderr
    assert summary(failed)["status"] == "finished" and (works / "summary.json").read_bytes() == before


def test_a_job_that_cannot_start_writes_its_error_to_its_folder(tmp_path: Path) -> None:
    said = pgx(
        "train", "-m", *TINY, "env.kwargs.sutton_barto_reward=true,7,what", "env.kwargs.render_mode=null",
        "hydra.sweep.dir=sweep", "+env.kwargs.no_such=1", cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 1
    for run in jobs(tmp_path / "sweep"):
        assert summary(run)["status"] == "failed" and "no_such" in summary(run)["error"]
    assert said.stderr.count("repeat: pgx train") == 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_a_job_whose_process_is_killed_does_not_stop_the_others(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "broken.py").write_text(NO_SHAPING)
    envs = "env=broken:Faulty-works-v0,broken:Faulty-dies-v0"
    said = pgx(
        "train",
        "-m",
        "seed=0,1",
        envs,
        *FAULTY,
        "hydra.sweep.dir=sweep",
        f"hydra/launcher={launcher}",
        cwd=tmp_path,
    )
    assert said.returncode == 1, said.stdout + said.stderr
    ended = [summary(run)["status"] for run in jobs(tmp_path / "sweep")]
    assert ended == ["finished", "failed"] * 2
    assert said.stderr.count("its process was killed twice") == 2


# --- repeated


def test_a_repeated_sweep_skips_finished_jobs(command: Command, tmp_path: Path) -> None:
    asked = ["train", "-m", "seed=0,1", *TINY, "hydra.sweep.dir=sweep"]
    assert command(*asked)[0] == 0
    before = [(run / "summary.json").read_bytes() for run in jobs(tmp_path / "sweep")]
    code, out, _ = command(*asked)
    assert code == 0 and "2 jobs, 0 to run" in out
    assert [(run / "summary.json").read_bytes() for run in jobs(tmp_path / "sweep")] == before
    assert len(list((tmp_path / "outputs" / "CartPole-v1" / "a2c").iterdir())) == 2


def test_a_sweep_that_is_resumed_twice_has_the_same_folders(command: Command, tmp_path: Path) -> None:
    assert command("train", "-m", "seed=0", *TINY, "hydra.sweep.dir=sweep")[0] == 0
    runs = jobs(tmp_path / "sweep")
    for _ in range(2):
        (runs[0] / "summary.json").unlink()  # like those of a killed job
        said = command("sweep", "resume", "sweep")
        assert said.code == 0 and "1 jobs, 1 to run" in said.out and "1 finished" in said.out
        assert jobs(tmp_path / "sweep") == runs
        assert sorted((tmp_path / "outputs" / "CartPole-v1" / "a2c").iterdir()) == runs


def test_another_sweep_in_its_folder_is_refused_with_the_difference(command: Command, tmp_path: Path) -> None:
    assert command("train", "-m", "seed=0,1", *TINY, "hydra.sweep.dir=sweep")[0] == 0
    before = (tmp_path / "sweep" / "sweep.json").read_bytes()
    code, _, err = command("train", "-m", "seed=1,2", *TINY, "hydra.sweep.dir=sweep")
    assert code == 2 and "not asked for: " in err and "seed=0" in err and "seed=2" in err
    assert (tmp_path / "sweep" / "sweep.json").read_bytes() == before


def test_a_running_sweep_is_refused(command: Command, tmp_path: Path) -> None:
    assert command("train", "-m", "seed=0,1", *TINY, "hydra.sweep.dir=sweep")[0] == 0
    with lock_run(tmp_path / "sweep"):
        code, _, err = command("sweep", "resume", "sweep")
    assert code == 2 and f"process {os.getpid()}" in err


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_sweep_that_ctrl_c_stopped_resumes_and_ends_with_the_same_bits(
    tmp_path: Path, launcher: str
) -> None:
    sweep = [
        "-m",
        "seed=0,1,2",
        *TINY,
        "trainer.total_steps=6000",
        "trainer.checkpoint_every=512",
        "logger.every=1",
    ]
    process = begin("train", *sweep, "hydra.sweep.dir=cut", f"hydra/launcher={launcher}", cwd=tmp_path)
    try:
        started = tmp_path / "cut" / "sweep.json"
        wait_for(lambda: started.is_file() and read_progress(jobs(tmp_path / "cut")[0]).steps > 600, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "said.txt").read_text()
    assert "pgx sweep resume" in said and "Traceback" not in said
    cut = [read_progress(run).state for run in jobs(tmp_path / "cut")]
    assert cut[0] == "interrupted" and "failed" not in cut
    assert pgx("sweep", "resume", "cut", "hydra/launcher=joblib", cwd=tmp_path).returncode == 0
    assert (
        pgx("train", *sweep, "hydra.sweep.dir=whole", "hydra/launcher=joblib", cwd=tmp_path).returncode == 0
    )
    for one, other in zip(jobs(tmp_path / "cut"), jobs(tmp_path / "whole"), strict=True):
        assert same(one, other)


# --- folders


@pytest.mark.slow
def test_runs_that_start_in_the_same_second_have_different_folders_and_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plans = [_with_folders(_plan([*TINY, "seed=range(0,64)"], [])) for _ in range(2)]
    folders = [job.run_dir for plan in plans for job in plan.jobs]
    assert len(set(folders)) == 128 and all(folder.is_dir() for folder in folders)
    assert [job.overrides[-1] for job in plans[0].jobs] == [f"seed={n}" for n in range(64)]


def test_concurrent_processes_create_different_folders(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom pgx.api.run_folder import create_unique_folder\ninput()\n"
    )
    script += "print(create_unique_folder(Path(sys.argv[1])))"
    pipe = subprocess.PIPE
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "run")], stdin=pipe, stdout=pipe, text=True
        )
        for _ in range(4)
    ]
    claimed = [process.communicate("\n", timeout=TIMEOUT)[0].strip() for process in racing]
    assert sorted(claimed) == [str(tmp_path / name) for name in ("run", "run-2", "run-3", "run-4")]
    assert create_unique_folder(tmp_path / "run") == tmp_path / "run-5"


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("train -m seed=0,1 hydra/launcher=jolib", "did you mean 'joblib'?"),
        ("train -m seed=0,1 hydra/sweeper=optuna", "sweep=NAME"),
        ("train sweep=ppo_cartpole", "add -m"),
        ("train -m sweep=ppo_cartpol", "did you mean 'ppo_cartpole'?"),
        ("train -m sweep=ppo_cartpole seed=0,1", "seed"),
        ("train -m sweep=ppo_cartpole run_dir=x", "hydra.sweep.dir"),
        ("train -m sweep=ppo_cartpole algo.clip_rang=interval(0.1,0.2)", "did you mean 'clip_range'?"),
        (
            "train -m sweep=ppo_cartpole algo.clip_range=interval(-0.1,0.2)",
            "algo.clip_range: expected a number > 0",
        ),
        ("train -m sweep=ppo_cartpole sweep.trials=0", "sweep.trials"),
        ("train -m seed=0,-1", "seed"),
        ("train -m seed=0,1 hydra/launcher=joblib hydra.launcher.n_jobs=0", "expected a whole number >= 1"),
        ("sweep status nowhere", "not the folder of a sweep"),
        ("sweep resume nowhere", "not the folder of a sweep"),
        ("sweep", "pgx sweep --help"),
        ("sweep pause x", "pgx sweep --help"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_folder(
    command: Command, tmp_path: Path, arguments: str, says: str
) -> None:
    code, out, err = command(*arguments.split())
    assert code == 2 and says in err and out == ""
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_share_a_folder_are_refused_with_a_pattern_that_works() -> None:
    """The jobs differ in a key that is not part of the default folder names."""
    values = ["algo=trpo", "env=CartPole-v1", "algo.max_kl=0.01,0.05"]
    with pytest.raises(UserError, match="2 runs of the sweep would use this folder") as refused:
        _plan([*values, "run_dir=outputs/mine/${label}_${seed}"], [])
    shown = re.search(r"'(run_dir=.*)'", str(refused.value))
    assert shown is not None
    assert len({job.run_dir for job in _plan([*values, shown[1]], []).jobs}) == 2


def test_a_resumed_sweep_keeps_its_jobs(command: Command, tmp_path: Path) -> None:
    assert command("train", "-m", "seed=0", *TINY, "hydra.sweep.dir=sweep")[0] == 0
    code, _, err = command("sweep", "resume", "sweep", "seed=3")
    assert code == 2 and "seed=3: cannot change in a resumed sweep" in err


@pytest.mark.parametrize(
    ("package", "chosen", "extra"),
    [
        ("ray", "hydra/launcher=ray", "pgx-rl[ray]"),
        ("joblib", "hydra/launcher=joblib", "pgx-rl[sweep]"),
        ("submitit", "hydra/launcher=submitit_slurm", "pgx-rl[slurm]"),
        ("optuna", "sweep=ppo_cartpole", "pgx-rl[sweep]"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, chosen: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # makes an import fail
    code, _, err = command("train", "-m", chosen)
    assert code == 2 and f"the package {package} is not installed" in err and extra in err
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_slurm_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("submitit", reason="its message comes first where the extra `slurm` is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = command(
        "train", "-m", "seed=0,1", *TINY, "hydra/launcher=submitit_slurm", "hydra.sweep.dir=sweep"
    )
    assert code == 2 and "has no sbatch" in err


@pytest.mark.parametrize("answers", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_connection_to_ray_has_a_timeout(tmp_path: Path, answers: bool) -> None:
    with socket.socket() as listener:  # accepts connections and does not answer
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if answers:
            listener.listen()
        where = [
            "hydra/launcher=ray",
            f"hydra.launcher.address=127.0.0.1:{port}",
            "hydra.launcher.connect_seconds=5",
        ]
        said = pgx("train", "-m", "seed=0,1", *TINY, "hydra.sweep.dir=sweep", *where, cwd=tmp_path)
    assert said.returncode == 2 and "Traceback" not in said.stderr
    assert said.stderr.startswith(
        f"pgx: error: hydra.launcher.address=127.0.0.1:{port}: no Ray cluster answered"
    )
    assert len(said.stderr.splitlines()) == 1
    assert pgx("sweep", "resume", "sweep", "hydra/launcher=basic", cwd=tmp_path).returncode == 0
