"""`logger.sinks`: names, arguments, bad input, loggers of the user, configs of earlier versions."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pgx.config.stored import current_override, read_config
from pgx.runs.loggers.jsonl import read_rows
from tests.command import Command

ROOT = Path(__file__).parents[3]
RUN = [
    "train", "env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "env.num_envs=4", "runner.rollout_steps=32",
    "trainer.total_steps=256", "trainer.compile=false", "run_dir=run", "logger.console=off",
]  # fmt: skip
MODULE = """
class Lacking:
    def write(self, steps, metrics): pass

class Failing(Lacking):
    def __init__(self, run_dir, config): pass
    def write(self, steps, metrics): raise KeyError("health/kl2")
    def write_video(self, steps, clip): pass
    def flush(self): pass
    def finish(self, summary): pass
    def close(self): pass

class Strict(Failing):
    def __init__(self, run_dir, config, *, path): pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"sinks_of_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_without_sinks_a_run_has_rows_alone(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "logger.sinks=[]").code == 0
    assert read_rows(tmp_path / "run" / "metrics.jsonl")
    assert not list((tmp_path / "run").glob("events.*"))


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ("tensorbord", "no such sink; did you mean 'tensorboard'?"),
        ("tensorboard,tensorboard", "tensorboard: listed twice"),
        ("{{name: tensorboard, project: x}}", "tensorboard: has no argument 'project'"),
        ("{{name: wandb, projekt: x}}", "wandb: has no argument 'projekt'; did you mean 'project'?"),
        ("absent_module:X", "module 'absent_module' cannot be imported"),
        ("{}:Lacking", "is no logger: it has no write_video, flush, finish, close"),
        ("{}:Strict", "missing a required argument: 'path'; write {{name:"),
    ],
)
def test_a_bad_sink_is_reported_before_anything_is_written(
    command: Command, tmp_path: Path, module: str, sinks: str, message: str
) -> None:
    said = command(*RUN, f"logger.sinks=[{sinks.format(module)}]")
    (problem,) = said.problems
    assert said.code == 2 and problem.startswith("logger.sinks: ") and message.format() in problem
    assert not (tmp_path / "run").exists()


def test_a_project_without_a_service_is_unused(command: Command) -> None:
    (problem,) = command(*RUN, "logger.project=mine").problems
    assert problem.startswith("logger.project: unused with logger.sinks=['tensorboard']")


def test_the_logger_of_the_page_writes_its_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "show.md").read_text()
    (code,) = re.findall(r"```python\n(class CSV:.*?)```", page, re.DOTALL)
    (typed,) = re.findall(r"`'(logger\.sinks=\[\{name: my_logger:CSV.*?)'`", page)
    (tmp_path / "my_logger.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert command(*RUN, typed).code == 0
    lines = (tmp_path / "run" / "kl.csv").read_text().splitlines()
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert lines == [f"{row['step']};{row.get('health/kl')}" for row in rows]


def test_an_exception_of_a_logger_fails_the_run_and_names_it(command: Command, module: str) -> None:
    said = command(*RUN, f"logger.sinks=[{module}:Failing]")
    assert said.code == 1
    assert f"logger {module}:Failing: write raised KeyError: 'health/kl2', in write ({module}.py:" in said.err
    assert 'raise KeyError("health/kl2")' in said.err  # the line of the traceback


def test_a_logger_of_a_file_needs_trust(command: Command, tmp_path: Path, module: str) -> None:
    assert command(*RUN, "logger.sinks=[]").code == 0
    config = tmp_path / "run" / "config.yaml"
    cfg = OmegaConf.load(config)
    cfg.logger.sinks = [f"{module}:Failing"]
    OmegaConf.save(cfg, config)
    refused = command("train", "--resume", "run", "trainer.total_steps=600")
    assert refused.code == 2 and f"logger.sinks with {module}:Failing would import the module" in refused.err
    assert command("eval", "run", "--episodes", "1").code == 0


@pytest.mark.parametrize(
    ("tensorboard", "wandb", "sinks", "project"),
    [
        (True, None, ["tensorboard"], "pgx"),
        (False, None, [], "pgx"),
        (True, "mine", ["tensorboard", "wandb"], "mine"),
        (False, "mine", ["wandb"], "mine"),
    ],
)
def test_configs_of_earlier_versions_name_the_same_sinks(
    tmp_path: Path, tensorboard: bool, wandb: str | None, sinks: list[str], project: str
) -> None:
    cfg = OmegaConf.load(ROOT / "tests" / "config" / "stored" / "ppo_0_1_0.yaml")
    cfg.logger.tensorboard = tensorboard
    if wandb is not None:
        cfg.logger.wandb = wandb
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    logger = read_config(tmp_path / "config.yaml").logger
    assert list(logger.sinks) == sinks and logger.project == project
    assert "tensorboard" not in logger and "wandb" not in logger


def test_overrides_of_earlier_versions_are_refused_with_what_replaces_them(command: Command) -> None:
    for typed in ("logger.tensorboard=false", "logger.wandb=mine"):
        (problem,) = command(*RUN, typed).problems
        assert "replaced by a list" in problem and "logger.sinks=[tensorboard" in problem
    assert current_override("logger.tensorboard=false") == "logger.sinks=[]"
    assert current_override("logger.wandb=mine") == "logger.sinks=[tensorboard,{name:wandb,project:mine}]"
