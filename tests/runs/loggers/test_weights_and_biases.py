"""The sink for Weights & Biases: what it sends, and how it fails; test_services.py has the real package."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgx.runs.loggers.jsonl import read_rows
from tests.command import Command

RUN = [
    "train", "env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "env.num_envs=4", "runner.rollout_steps=32",
    "trainer.total_steps=256", "trainer.compile=false", "logger.every=1", "run_dir=run", "logger.sinks=[wandb]",
    "logger.project=project",
]  # fmt: skip


class Refused(Exception):
    pass


class FakeRun:
    """Keeps what is sent to it, until it fails."""

    def __init__(self, fails_at: int) -> None:
        self.fails_at = fails_at
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        pass

    def log(self, row: dict[str, Any]) -> None:
        if len(self.rows) == self.fails_at:
            raise ConnectionResetError("the service is gone")
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module `wandb` whose runs the test can look into."""
    module = SimpleNamespace(begun=[], fails_at=-1, refusal=None, errors=SimpleNamespace(Error=Refused))
    module.Settings = dict

    def init(**settings: Any) -> FakeRun:
        if module.refusal is not None:
            raise module.refusal
        run = FakeRun(module.fails_at)
        module.begun.append((settings, run))
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_rows_config_and_summary_are_sent_and_a_resumed_run_keeps_its_id(
    command: Command, fake: SimpleNamespace, tmp_path: Path
) -> None:
    assert command(*RUN).code == 0
    assert command("train", "--resume", "run", "trainer.total_steps=600").code == 0
    (first, begun), (second, resumed) = fake.begun
    assert first["project"] == "project" and first["config"]["algo.name"] == "a2c"
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert begun.rows + resumed.rows == read_rows(tmp_path / "run" / "metrics.jsonl")
    assert resumed.summary["status"] == "finished" and resumed.exit_code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert resumed.summary["result/final_return"] == summary["final_return"]


def test_a_service_that_fails_is_reported_once_and_the_run_goes_on(
    command: Command, fake: SimpleNamespace, tmp_path: Path
) -> None:
    fake.fails_at = 1
    said = command(*RUN)
    assert said.code == 0 and len(read_rows(tmp_path / "run" / "metrics.jsonl")) >= 2
    assert said.err.count("Weights & Biases") == 1 and "the run continues without it" in said.err


def test_a_refusal_to_start_is_one_message_and_leaves_the_folder_free(
    command: Command, fake: SimpleNamespace, tmp_path: Path
) -> None:
    fake.refusal = Refused("no API key")
    (problem,) = command(*RUN).problems
    assert (
        "logger.sinks: wandb cannot start" in problem
        and "no API key" in problem
        and "WANDB_MODE=offline" in problem
    )
    fake.refusal = None
    assert command(*RUN).code == 0
