"""A run is started as Hydra's own main would have started it, from one composition of its config."""

import os
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pgx.cli.launch import hand_over, start
from pgx.cli.run_folder import ready
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
ASKED = [
    *SMALL,
    *QUIET,
    "run_dir=run",
    "+hydra.job.env_set.PGX_SEEN=here",
    "hydra.sweep.dir=sweep",  # else the second, and the folder
    "hydra.sweep.subdir=run",
]


def seen_by_a_job(started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a job finds, and what is noted of it in its folder."""
    folder = tmp_path / started
    folder.mkdir()
    monkeypatch.chdir(folder)
    found: dict[str, object] = {}

    def job(cfg: DictConfig) -> None:
        found.update(cfg=OmegaConf.to_container(cfg, resolve=True), env=os.environ.get("PGX_SEEN"))
        section = OmegaConf.to_container(HydraConfig.get(), resolve=True)
        assert isinstance(section, dict)
        found.update(output_dir=section["runtime"].pop("output_dir").removeprefix(str(folder)))
        section["runtime"].pop("cwd")
        section["overrides"].pop("hydra")  # main adds the mode to them
        found.update(hydra=section)

    overrides = prepare(ASKED)
    if started == "by main":
        monkeypatch.setattr("sys.argv", ["pgx"])
        hand_over(overrides, job)
    else:
        start(ready(overrides)[0], job)
    noted = {path.name: path.read_text() for path in (folder / "run" / ".hydra").iterdir()}
    section = OmegaConf.create(noted.pop("hydra.yaml")).hydra
    assert section.runtime.output_dir == str(folder / "run")
    return found | noted


def test_a_job_finds_what_it_would_find_under_hydra_s_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    ours = seen_by_a_job("by start", tmp_path, monkeypatch)
    theirs = seen_by_a_job("by main", tmp_path, monkeypatch)
    assert ours == theirs
    assert ours["env"] == "here"


def test_a_run_s_config_is_composed_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    compose, times = Hydra.compose_config, []

    def counted(*arguments: object, **options: object) -> DictConfig:
        times.append(arguments)
        return compose(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Hydra, "compose_config", counted)
    said = command("train", *SMALL, *QUIET)
    assert said.code == 0 and len(times) == 1
    (config,) = Path().glob(f"outputs/*/*/*/{CONFIG}")
    (overrides,) = Path().glob("outputs/*/*/*/.hydra/overrides.yaml")
    assert OmegaConf.load(config).run_dir == str(config.parent)
    assert f"run_dir='{config.parent}'" in OmegaConf.load(overrides)


def test_what_a_job_raises_comes_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def job(cfg: DictConfig) -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        start(ready(prepare([*SMALL, *QUIET, "run_dir=run"]))[0], job)


@pytest.mark.parametrize("flag", [["--resolve"], ["--package", "algo"], ["-p", "_global_"]])
def test_flags_of_what_is_printed_need_something_to_print(command: Command, flag: list[str]) -> None:
    (problem,) = command("train", *flag, *SMALL).problems
    assert problem == f"{'--resolve' if flag == ['--resolve'] else '--package'}: goes with --cfg"
    assert not Path("outputs").exists()
    assert command("train", "--cfg", "job", *flag, *SMALL).code == 0
