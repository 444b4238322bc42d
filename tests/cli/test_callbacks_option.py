"""`callbacks=[module:Name]` on the command line: calls, arguments, bad input, trust, failures."""

import json
from pathlib import Path
from typing import Any

import pytest

from pgx.config.stored import pgx_command
from tests.command import Command

SMALL = [
    "algo=ppo",
    "env=CartPole-v1",
    "env.num_envs=4",
    "runner.rollout_steps=32",
    "trainer.total_steps=1024",
    "trainer.compile=false",
    "logger.console=off",
    "run_dir=run",
]
MODULE = """
from pgx import STOP, Metric

class Early:
    metrics = (Metric("iteration_seen", "updates", "number of the iteration", section="early"),)

    def __init__(self, after=2, *, scale=1.0):
        self.after, self.scale = after, scale

    def on_iteration(self, state):
        state.log("iteration_seen", self.scale * state.iteration)
        return STOP if state.iteration >= self.after else None

class Needy(Early):
    def __init__(self, patience):
        super().__init__(patience)

class Empty:
    pass

def note(state):
    print("noted", state.step)

def fail(state):
    total = [][state.iteration]

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of callbacks, whose name is used once, to a folder on the search path."""
    name = f"callbacks_of_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("entry", "iterations", "scale"),
    [
        ("{}:Early", 2, 1.0),
        ("{{name: {}:Early, after: 3, scale: 0.5}}", 3, 0.5),
        ("{{name: {}:Needy, patience: 1}}", 1, 1.0),
    ],
)
def test_a_class_is_called_with_its_arguments_and_stops_the_run(
    command: Command, tmp_path: Path, module: str, entry: str, iterations: int, scale: float
) -> None:
    said = command("train", *SMALL, f"callbacks=[{entry.format(module)}]")
    assert said.code == 0, said.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["iterations"]) == ("stopped", iterations)
    assert [row["early/iteration_seen"] for row in rows(tmp_path / "run")] == [
        scale * number
        for number in range(iterations + 1)  # the first warms up the statistics
    ]


def test_a_function_is_a_callback_after_each_iteration(command: Command, module: str) -> None:
    said = command("train", *SMALL, f"callbacks=[{module}:note]")
    assert said.code == 0 and said.out.count("noted ") >= 7


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("absent_module:X", "module 'absent_module' cannot be imported: ModuleNotFoundError"),
        ("{}:Eary", "has no 'Eary'; did you mean 'Early'?"),
        ("{}:number", "is no callback: it is no function and has no on_start"),
        ("{}:Empty", "is no callback: it has no on_start, on_iteration or on_end"),
        ("Early", "expected module:Name, for example my_module:EarlyStop"),
        ("{}:Needy", "missing a required argument: 'patience'; write {{name:"),
        ("{{name: {}:Needy, patence: 1}}", "has no argument 'patence'; did you mean 'patience'?"),
        ("{{name: {}:note, patience: 1}}", "is a function; arguments need a class"),
        ("{{nme: {}:note}}", "expected module:Name or {{name: module:Name, argument: value}}"),
    ],
)
def test_a_bad_entry_is_reported_before_anything_is_written(
    command: Command, tmp_path: Path, module: str, entry: str, message: str
) -> None:
    said = command("train", *SMALL, f"callbacks=[{entry.format(module)}]")
    (problem,) = said.problems
    assert said.code == 2 and problem.startswith("callbacks: ") and message.format() in problem
    assert not (tmp_path / "run").exists()


def test_all_bad_entries_are_reported_at_once(command: Command, module: str) -> None:
    said = command("train", *SMALL, f"callbacks=[{module}:number,{module}:Needy]")
    assert len(said.problems) == 2


def test_a_run_with_callbacks_of_a_file_needs_trust_to_be_resumed_and_not_to_be_evaluated(
    command: Command, tmp_path: Path, module: str
) -> None:
    assert command("train", *SMALL, f"callbacks=[{module}:Early]").code == 0
    resume = ["train", "--resume", "run", "trainer.total_steps=2048"]
    refused = command(*resume)
    assert refused.code == 2
    assert f"callbacks with {module}:Early would import the module '{module}'" in refused.err
    assert command("eval", "run", "--episodes", "1").code == 0
    assert command(*resume, "callbacks=[]", "--trust").code == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"
    assert "--trust" not in pgx_command("train", "--resume", tmp_path / "run", of=tmp_path / "run")


def test_printed_commands_trust_what_they_need(command: Command, tmp_path: Path, module: str) -> None:
    assert command("train", *SMALL, f"callbacks=[{module}:Early]").code == 0
    folder = tmp_path / "run"
    assert pgx_command("train", "--resume", folder, of=folder).endswith("--trust")
    assert not pgx_command("eval", folder, of=folder).endswith("--trust")


def test_callbacks_that_the_user_types_are_trusted(command: Command, module: str) -> None:
    assert command("train", *SMALL, f"callbacks=[{module}:Early]").code == 0
    again = command(
        "train",
        "--resume",
        "run",
        "trainer.total_steps=2048",
        f"callbacks=[{{name: {module}:Early, after: 9}}]",
    )
    assert again.code == 0, again.err


def test_a_failing_callback_shows_its_own_lines(command: Command, tmp_path: Path, module: str) -> None:
    said = command("train", *SMALL, f"callbacks=[{module}:fail]")
    assert said.code == 1
    assert "total = [][state.iteration]" in said.err and "IndexError: list index out of range" in said.err
    assert (
        f"callback fail: on_iteration raised IndexError: list index out of range, in fail ({module}.py:"
        in said.err
    )
    assert "a bug in pgx" not in said.err and "trainer.py" not in said.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and "callback fail" in summary["error"]
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
