"""Runs are started by `hydra.main`."""

import os
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pgx.api.run_folder import compose_valid
from pgx.cli.launch import run_hydra
from pgx.config.overrides import prepare
from pgx.config.stored import CONFIG
from pgx.core.errors import UserError
from tests.command import Command

SMALL = [
    "algo=ppo",
    "env=CartPole-v1",
    "env.num_envs=4",
    "runner.rollout_steps=64",
    "trainer.total_steps=256",
]
QUIET = ["logger.console=off", "algo.minibatch_size=64", "env.backend=gymnasium"]


def test_a_job_gets_the_config_that_was_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["pgx"])
    overrides = prepare([*SMALL, *QUIET, "run_dir=run", "+hydra.job.env_set.PGX_SEEN=here"])
    seen: list[object] = []

    def job(cfg: DictConfig) -> None:
        seen.extend([OmegaConf.to_container(cfg, resolve=True), os.environ.get("PGX_SEEN")])
        seen.append(HydraConfig.get().runtime.output_dir)

    run_hydra(overrides, job)
    assert seen == [compose_valid(overrides).values, "here", str(tmp_path / "run")]


def test_hydra_writes_the_overrides_and_config_of_a_run(command: Command) -> None:
    assert command("train", *SMALL, *QUIET).code == 0
    (config,) = Path().glob(f"outputs/*/*/*/{CONFIG}")
    noted = config.parent / ".hydra"
    assert OmegaConf.load(noted / "overrides.yaml") == [*SMALL, *QUIET, f"run_dir='{config.parent}'"]
    composed = OmegaConf.to_container(OmegaConf.load(noted / "config.yaml"), resolve=True)
    assert composed == OmegaConf.to_container(OmegaConf.load(config))


def test_the_mode_of_hydra_starts_no_sweep(command: Command) -> None:
    assert command("train", *SMALL, *QUIET, "hydra.mode=MULTIRUN", "run_dir=run").code == 0
    assert Path("run", CONFIG).is_file() and not Path("outputs").exists()


def test_an_exception_of_a_job_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["pgx"])

    def job(cfg: DictConfig) -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        run_hydra(prepare([*SMALL, *QUIET, "run_dir=run"]), job)


@pytest.mark.parametrize("flag", [["--resolve"], ["--package", "algo"], ["-p", "_global_"]])
def test_flags_for_printing_require_cfg(command: Command, flag: list[str]) -> None:
    (problem,) = command("train", *flag, *SMALL).problems
    name = "--resolve" if flag == ["--resolve"] else "--package"
    assert problem == f"{name}: is unused without --cfg; add --cfg job or remove it"
    assert not Path("outputs").exists()
    assert command("train", "--cfg", "job", *flag, *SMALL).code == 0
