"""A short run from the command line to a comparison, and a run that is killed and resumed."""

import os
from pathlib import Path
from signal import SIGKILL

from pgx.cli.main import main
from scripts.kill_runs import differences, read_run
from tests.command import Command
from tests.processes import wait_until
from tests.warm import context

SIZES = ["env=CartPole-v1", "env.num_envs=4", "runner.rollout_steps=32", "trainer.compile=false"]


def test_a_run_is_trained_evaluated_diagnosed_and_compared(command: Command, tmp_path: Path) -> None:
    for algo in ("ppo", "trpo"):
        trained = command("train", f"algo={algo}", *SIZES, "trainer.total_steps=512", f"run_dir={algo}")
        assert trained.code == 0 and trained.err == ""
        assert (tmp_path / algo / "summary.json").is_file() and list((tmp_path / algo).glob("events.*"))
    assert command("eval", "ppo", "--episodes", "2").code == 0
    assert command("doctor", "trpo").code == 0
    compared = command("compare", "ppo", "trpo", "--resamples", "100")
    assert compared.code == 0 and "ppo" in compared.out and "trpo" in compared.out


def test_a_run_that_is_killed_and_resumed_equals_an_uninterrupted_run(
    command: Command, tmp_path: Path
) -> None:
    """The process is forked from one without threads and with all imports."""
    settings = ["algo=a2c", *SIZES, "trainer.total_steps=4000", "trainer.checkpoint_every=256"]
    assert command("train", *settings, "run_dir=whole").code == 0
    training = context().Process(target=_train_in, args=(tmp_path, [*settings, "run_dir=killed"]))
    training.start()
    wait_until(lambda: len(list((tmp_path / "killed" / "checkpoints").glob("step_*.pt"))) > 1)
    training.kill()
    training.join()
    assert training.exitcode == -SIGKILL
    assert command("train", "--resume", "killed").code == 0
    assert differences(read_run(tmp_path / "whole"), read_run(tmp_path / "killed"), "run") == []


def _train_in(folder: Path, settings: list[str]) -> None:
    os.chdir(folder)
    main(["train", *settings])
