"""The command line: exit codes, messages, and the files of a run."""

import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pgx.core.stopping import QuietInterrupt
from tests.command import Command, CommandResult
from tests.warm import environment, pgx

PGX = [sys.executable, "-m", "pgx"]
TIMEOUT = 120  # seconds; processes take a few
SMALL = [
    "env=CartPole-v1",
    "env.backend=gymnasium",
    "env.num_envs=4",
    "runner.rollout_steps=64",
    "trainer.total_steps=512",
]
ESCAPE = re.compile(r"\x1b[\[(][0-9;?]*[a-zA-Z]")


def real(*arguments: str, cwd: Path, **variables: str) -> CommandResult:
    """Run `python -m pgx` with its output in a pipe."""
    ended = subprocess.run(
        [*PGX, *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return CommandResult(ended.returncode, ended.stdout, ended.stderr)


def shell(*arguments: str, cwd: Path, **variables: str) -> CommandResult:
    """Run a command in a forked process with its output in a pipe."""
    ended = pgx(*arguments, cwd=cwd, **variables)
    return CommandResult(ended.returncode, ended.stdout, ended.stderr)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def summary(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return read


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    read: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
    return read


def assert_one_message(said: CommandResult) -> None:
    """Assert that stderr has one error message of pgx: a line, or a heading and a line for each problem."""
    assert "Traceback" not in said.out + said.err
    lines = said.err.splitlines()
    assert lines[0].startswith("pgx: ")
    if len(lines) > 1:
        assert lines[0] == f"pgx: {len(lines) - 1} errors:"
        assert all(line.startswith("  ") for line in lines[1:])


def assert_one_message_and_what_is_kept(said: CommandResult) -> None:
    """Assert the same of the lines after an optional one that says how to resume the run."""
    lines = said.err.splitlines(keepends=True)
    others = [
        line
        for line in lines
        if not line.startswith("pgx: a checkpoint of the last finished iteration is written; resume with: ")
    ]
    assert len(lines) - len(others) <= 1
    assert_one_message(said._replace(err="".join(others)))


# --- the commands


def test_overrides_of_eval_may_follow_its_options(command: Command) -> None:
    assert (
        "outputs/none: " in command("eval", "outputs/none", "--episodes", "2", "env.num_envs=2").problems[0]
    )
    assert command("eval", "outputs/none", "--frames", "2").problems == [
        "unrecognized arguments: --frames 2 (see pgx eval --help)"
    ]


def test_help_lists_the_commands(tmp_path: Path) -> None:
    said = real("--help", cwd=tmp_path)
    assert said.code == 0
    for name in ("train", "eval", "collect", "envs", "algos"):
        assert re.search(rf"^\s+{name}\s", said.out, re.MULTILINE)
    assert said.err == ""


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pgx.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'gymnasium', 'hydra', 'numpy', 'envpool', 'tensorboard'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "[]"


def test_without_a_command_it_shows_the_commands_and_fails(command: Command) -> None:
    said = command()
    assert said.code == 2
    assert "train" in said.out + said.err


def test_a_misspelt_command_is_named_with_the_nearest(command: Command) -> None:
    said = command("trian")
    assert said.code == 2
    assert_one_message(said)
    assert "trian: no such command" in said.err
    assert "did you mean 'train'?" in said.err


@pytest.mark.parametrize(
    "arguments",
    [["eval"], ["envs", "a", "b"], ["eval", "run", "--episodes", "0"], ["algos", "--fast"], ["--fast"]],
)
def test_wrong_arguments_of_a_command_are_one_message(command: Command, arguments: list[str]) -> None:
    said = command(*arguments)
    assert said.code == 2
    assert_one_message(said)


def test_algos_lists_the_rules_with_a_line_about_each(command: Command) -> None:
    said = command("algos")
    assert said.code == 0
    assert re.search(r"^trpo +\w+", said.out, re.MULTILINE)
    assert re.search(r"^ppo +\w+", said.out, re.MULTILINE)


@pytest.mark.system
def test_envs_lists_the_ids_that_contain_a_text(tmp_path: Path) -> None:
    said = shell("envs", "walker", cwd=tmp_path)
    assert said.code == 0
    assert "Walker2d-v4" in said.out
    assert "configs/env/Walker2d-v4.yaml" in said.out
    assert "CartPole" not in said.out
    assert ESCAPE.search(said.out) is None


@pytest.mark.system
def test_train_help_shows_groups_and_keys_and_leaves_no_folder(tmp_path: Path) -> None:
    said = shell("train", "--help", cwd=tmp_path)
    assert said.code == 0
    for part in ("trpo", "ppo", "Walker2d-v4", "max_kl", "total_steps", "--resume", "-m"):
        assert part in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "overrides", [["algo=ppo", "env=CartPole-v1"], ["algo=npg", "policy=lstm"], ["algo=impala", "reward=hop"]]
)
def test_train_help_explains_every_key_in_80_columns(command: Command, overrides: list[str]) -> None:
    said = command("train", "--help", *overrides)
    assert said.code == 0 and said.err == ""
    lines = said.out.split("Keys: key=value")[1].splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"  [a-z]", line)]
    assert len(keys) > 60
    for number in keys:
        assert lines[number + 1].startswith("      "), lines[number]
    shown = {line.strip().partition("=")[0] for line in (lines[number] for number in keys)}
    assert {"seed", "env.num_envs", "trainer.total_steps", "algo.discount", "policy.name"} - shown == {
        "policy.name"
    }
    long = [line for line in said.out.splitlines() if len(line) > 80]
    assert all(" " not in line.strip() for line in long), long  # a value that cannot be broken


def test_train_cfg_prints_the_config_and_leaves_no_folder(command: Command, tmp_path: Path) -> None:
    said = command("train", "--cfg", "job", "algo=ppo", "env=Acrobot-v1", "seed=7")
    assert said.code == 0, said.err
    shown = OmegaConf.create(said.out)
    assert (shown.algo.name, shown.env.id, shown.seed) == ("ppo", "Acrobot-v1", 7)
    assert list(tmp_path.iterdir()) == []


# --- mistakes

BAD = [
    "algo=trop",
    "algo.max_k=1",
    "algo.max_kl=abc",
    "algo.max_kl=-1",
    "algo.max_kl=true",
    "env=Walker3d-v4",
    "trainer.total_step=5",
    "sed=1",
    "policy=mpl",
    "optimizer=adamm algo=ppo",
    "algo=trpo optimizer=adam",
    "algo=ppo optimizer=none",
    "algo=ppo algo.minibatch_size=60",
    "env.num_envs=0",
    "seed=-1",
    "runner.rollout_steps=1.5",
    "logger.console=fancy",
    "device=tpu",
    "policy.hidden=[64",
    "seed",
    "=3",
    "env=nosuchmodule:Foo-v0",
    "algo.max_k=1 algo.max_kl=abc seed=-1",
    "algo=trop sed=1",
    "seed=0,1",
    "-m seed=0,-1",
    "env=CartPole-v1 env.kwargs.no_such_keyword=1",
    "--resume",
    "--resume nowhere",
    "--no-such-flag",
]


@pytest.mark.parametrize("text", BAD)
def test_a_mistake_is_one_message_and_leaves_no_folder(command: Command, tmp_path: Path, text: str) -> None:
    said = command("train", *text.split())
    assert said.code == 2
    assert_one_message(said)
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
def test_a_mistake_ends_the_real_command_in_the_same_way(tmp_path: Path) -> None:
    said = real("train", "algo.max_k=1", "algo.max_kl=-1", cwd=tmp_path)
    assert said.code == 2
    assert said.out == ""
    assert said.err == (
        "pgx: 2 errors:\n"
        "  algo.max_k: unknown key; did you mean 'max_kl'?\n"
        "  algo.max_kl: expected a number > 0, got -1\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_several_values_without_m_are_refused_with_a_hint(command: Command) -> None:
    assert "-m" in command("train", "seed=0,1").err


def test_the_debug_variable_shows_a_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGX_DEBUG", "1")
    said = command("train", "algo.max_kl=-1")
    assert said.code == 2
    assert "Traceback" in said.err
    assert "algo.max_kl: expected a number > 0, got -1" in said.err.splitlines()[-1]


def test_a_folder_that_cannot_be_made_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = command("train", *SMALL, "run_dir=file/run")
    assert said.code == 2
    assert_one_message(said)
    assert "run_dir" in said.err
    assert "file/run" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- a run and its folder


@pytest.fixture(scope="module", params=["trpo", "ppo"])
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CommandResult]:
    """Run a short training as a separate process; return its folder and its result."""
    cwd = tmp_path_factory.mktemp(request.param)
    said = shell("train", f"algo={request.param}", *SMALL, "trainer.checkpoint_every=256", cwd=cwd)
    found = sorted(cwd.glob("outputs/CartPole-v1/*/*"))
    assert len(found) == 1, said
    assert found[0].parent.name == request.param
    return found[0], said


@pytest.fixture(scope="module")
def run(finished: tuple[Path, CommandResult]) -> Path:
    return finished[0]


@pytest.mark.system
def test_a_run_exits_with_0_and_prints_its_folder(finished: tuple[Path, CommandResult]) -> None:
    run, said = finished
    assert said.code == 0
    assert said.err == ""
    assert f"{run.parent.name} on CartPole-v1: 4 environments x 64 steps, backend gymnasium" in said.out
    assert "finished at" in said.out
    assert f"pgx eval {run.relative_to(run.parents[3])}" in said.out


def test_piped_output_has_no_escape_codes(finished: tuple[Path, CommandResult]) -> None:
    said = finished[1]
    assert "\x1b" not in said.out + said.err
    assert "\r" not in said.out + said.err
    assert re.search(r"512|5\d\d/512", said.out)


def test_a_run_leaves_its_folder_complete(run: Path) -> None:
    for name in ("config.yaml", ".hydra/config.yaml", "metrics.jsonl", "summary.json", "checkpoints/last.pt"):
        assert (run / name).stat().st_size > 0, name
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    assert not list(run.rglob("*.tmp"))


def test_the_stored_config_is_resolved(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "${" not in text
    cfg = OmegaConf.create(text)
    assert cfg.algo.name == run.parent.name
    assert (cfg.env.num_envs, cfg.runner.rollout_steps, cfg.trainer.total_steps) == (4, 64, 512)


def test_the_metrics_advance_by_environment_steps(run: Path) -> None:
    steps = [row["step"] for row in rows(run)]
    assert steps == sorted(set(steps))
    assert steps[-1] == summary(run)["steps"] >= 512
    assert 0 < steps[0] <= 256 + 64  # the first row counts the warm-up too
    assert all(0 < after - before <= 256 for before, after in itertools.pairwise(steps))
    assert all({"health/kl", "health/entropy", "time/steps_per_second"} <= row.keys() for row in rows(run))


def test_the_summary_has_the_status_of_the_run(run: Path) -> None:
    left = summary(run)
    assert left["status"] == "finished"
    assert left["error"] is None
    assert left["iterations"] == len(rows(run))
    assert left["final_return"] == pytest.approx(rows(run)[-1]["rollout/episode_return_recent"])


def test_checkpoints_hold_the_steps_that_they_are_named_after(run: Path) -> None:
    assert checkpoint(run)["counters"]["steps"] == summary(run)["steps"]
    named = sorted(run.glob("checkpoints/step_*.pt"))
    assert len(named) >= 2
    for path in named:
        assert checkpoint(run, path.stem)["counters"]["steps"] == int(path.stem.removeprefix("step_"))


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_the_scalars_of_metrics_jsonl(run: Path, events: EventAccumulator) -> None:
    tags = {tag for row in rows(run) for tag in row} - {"step"}
    assert {tag for tag in events.Tags()["scalars"] if not tag.startswith("result/")} == tags
    for tag in tags:
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert shown == [(row["step"], np.float32(row[tag])) for row in rows(run) if tag in row], tag


def test_tensorboard_shows_the_config_as_hyperparameters(run: Path, events: EventAccumulator) -> None:
    content = events.PluginTagToContent("hparams")
    data = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    shown = data.session_start_info.hparams
    cfg = OmegaConf.load(run / "config.yaml")
    assert shown["algo.discount"].number_value == cfg.algo.discount
    assert shown["env.id"].string_value == "CartPole-v1"
    assert {f"algo.{key}" for key, value in cfg.algo.items() if value is not None} <= shown.keys()
    assert events.Scalars("result/final_return")[0].value == pytest.approx(summary(run)["final_return"])


# --- eval


def test_eval_plays_as_many_episodes_as_asked(command: Command, run: Path) -> None:
    said = command("eval", str(run), "--episodes", "3")
    assert said.code == 0
    assert "3 deterministic episodes on CartPole-v1" in said.out
    assert re.search(r"return +[\d.]+ \+- ", said.out)
    assert command("eval", str(run), "--episodes", "3").out == said.out


def test_eval_can_sample_actions(command: Command, run: Path) -> None:
    said = command("eval", str(run), "--episodes", "3", "--stochastic")
    assert said.code == 0
    assert "3 stochastic episodes" in said.out


def test_eval_takes_an_earlier_checkpoint(command: Command, run: Path) -> None:
    name = min(run.glob("checkpoints/step_*.pt")).stem
    said = command("eval", str(run), "--episodes", "1", "--checkpoint", name)
    assert said.code == 0
    assert name in said.out


def test_eval_of_a_missing_checkpoint_lists_the_existing_ones(command: Command, run: Path) -> None:
    said = command("eval", str(run), "--checkpoint", "nope")
    assert said.code == 2
    assert_one_message(said)
    for path in run.glob("checkpoints/*.pt"):
        assert path.stem in said.err


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_eval_refuses_a_folder_without_a_run(command: Command, folder: str) -> None:
    said = command("eval", folder)
    assert said.code == 2
    assert_one_message(said)
    assert "not a run folder" in said.err


# --- resume


def test_resuming_a_finished_run_prints_that_it_is_finished(command: Command, run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    said = command("train", "--resume", str(run))
    assert said.code == 0
    assert "is finished" in said.out
    assert "trainer.total_steps" in said.out
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "override", ["algo.discount=0.5", "seed=1", "env.num_envs=2", "algo=npg", "trainer.total_step=9", "seed"]
)
def test_a_resumed_run_keeps_its_config(command: Command, run: Path, override: str) -> None:
    before = (run / "config.yaml").read_bytes()
    said = command("train", "--resume", str(run), override)
    assert said.code == 2
    assert_one_message(said)
    assert override.split("=")[0] in said.err
    assert (run / "config.yaml").read_bytes() == before


def test_the_values_that_a_resumed_run_may_change_are_checked(command: Command, run: Path) -> None:
    said = command("train", "--resume", str(run), "trainer.total_steps=-1", "logger.console=fancy")
    assert said.code == 2
    assert_one_message(said)
    assert "trainer.total_steps: expected a whole number >= 1, got -1" in said.err
    assert "logger.console" in said.err


@dataclass(frozen=True)
class Interrupted:
    run: Path
    said: CommandResult
    seen: list[dict[str, Any]]  # rows of metrics.jsonl when the run stopped


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Start a long run and send SIGINT after its first row of metrics."""
    cwd = tmp_path_factory.mktemp("interrupted")
    run = cwd / "run"
    process = subprocess.Popen(
        [*PGX, "train", *SMALL, "trainer.total_steps=100000000", "trainer.compile=false", f"run_dir={run}"],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        while not ((run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text().endswith("\n")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return Interrupted(run, CommandResult(process.returncode, out, err), rows(run))


@pytest.mark.system
def test_an_interrupted_run_ends_with_a_checkpoint_of_where_it_was(interrupted: Interrupted) -> None:
    assert interrupted.said.code == 130
    assert "Traceback" not in interrupted.said.err
    assert "stopping (Ctrl-C again: exit at once)" in interrupted.said.err
    left = summary(interrupted.run)
    assert (left["status"], left["error"]) == ("interrupted", None)
    assert left["steps"] == interrupted.seen[-1]["step"]
    assert checkpoint(interrupted.run)["counters"]["steps"] == left["steps"]


@pytest.mark.system
def test_an_interrupted_run_prints_how_to_resume_it(interrupted: Interrupted) -> None:
    assert f"pgx train --resume {interrupted.run.name}" in interrupted.said.out


@pytest.mark.system
def test_an_interrupted_run_can_be_evaluated(interrupted: Interrupted) -> None:
    said = shell("eval", interrupted.run.name, "--episodes", "2", cwd=interrupted.run.parent)
    assert said.code == 0
    assert "2 deterministic episodes on CartPole-v1" in said.out
    assert "\x1b" not in said.out + said.err


@pytest.mark.system
def test_a_resumed_run_trains_to_the_end(command: Command, interrupted: Interrupted) -> None:
    run, stopped = interrupted.run, interrupted.seen[-1]["step"]
    said = command("train", "--resume", str(run), f"trainer.total_steps={stopped + 512}")
    assert said.code == 0, said.err
    assert summary(run)["status"] == "finished"
    assert summary(run)["steps"] >= stopped + 512
    steps = [row["step"] for row in rows(run)]
    assert all(before < after for before, after in itertools.pairwise(steps))
    assert rows(run)[: len(interrupted.seen)] == interrupted.seen
    assert len(steps) > len(interrupted.seen)
    assert checkpoint(run)["counters"]["steps"] == steps[-1]


# --- sweeps


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("summary.json"))


@pytest.mark.system
def test_a_sweep_over_seeds_makes_a_run_of_each(command: Command, tmp_path: Path) -> None:
    said = command("train", "-m", "seed=0,1", *SMALL, "trainer.total_steps=256")
    assert said.code == 0, said.err
    assert [summary(run)["status"] for run in runs(tmp_path)] == ["finished"] * 2
    assert [OmegaConf.load(run / "config.yaml").seed for run in runs(tmp_path)] == [0, 1]
    assert len({rows(run)[0]["health/kl"] for run in runs(tmp_path)}) == 2


@pytest.mark.system
def test_a_sweep_over_values_makes_a_run_of_each(command: Command, tmp_path: Path) -> None:
    said = command("train", "--multirun", "algo.max_kl=0.01,0.05", *SMALL, "trainer.total_steps=256")
    assert said.code == 0, said.err
    assert {OmegaConf.load(run / "config.yaml").algo.max_kl for run in runs(tmp_path)} == {0.01, 0.05}


def test_a_sweep_into_one_folder_does_not_write_one_run_over_another(
    command: Command, tmp_path: Path
) -> None:
    said = command("train", "-m", "seed=0,1", *SMALL, "trainer.total_steps=256", "run_dir=one")
    assert (said.code == 2 and "run_dir" in said.err) or len(runs(tmp_path)) == 2


@pytest.mark.system
def test_a_run_of_a_sweep_writes_the_same_files_as_a_single_run(command: Command, tmp_path: Path) -> None:
    command("train", "-m", "seed=0", *SMALL, "trainer.total_steps=256")
    assert len(runs(tmp_path)) == 1
    for run in runs(tmp_path):
        for name in ("config.yaml", ".hydra/config.yaml", "metrics.jsonl", "checkpoints/last.pt"):
            assert (run / name).is_file(), name


# --- environments that fail

NO_SHAPING = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Faulty(gymnasium.Env):
    """Ten-step episodes; after a hundred steps something goes wrong."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, fault):
        self.fault, self.steps = fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fault == "reset":
            raise RuntimeError("the robot fell off the table")
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        late = self.steps > 100
        if late and self.fault == "step":
            raise RuntimeError("the robot fell off the table")
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if late and self.fault == "observation":
            obs[1] = np.nan
        reward = np.nan if late and self.fault == "reward" else float(action)
        return obs, reward, self.steps % 10 == 0, False, {}


for fault in ("reset", "step", "observation", "reward", "none"):
    gymnasium.register(f"Faulty-{fault}-v0", Faulty, kwargs={"fault": fault})
'''
IDS = [f"Faulty-{fault}-v0" for fault in ("reset", "step", "observation", "reward", "none")]
TINY = ["env.num_envs=2", "runner.rollout_steps=32", "algo.critic_minibatch_size=64", "env.num_threads=1"]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a module with environments, on sys.path."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "brokenenvs.py").write_text(NO_SHAPING)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("brokenenvs", None)
    for env_id in IDS:
        gymnasium.registry.pop(env_id, None)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("reset", "reset() raised RuntimeError: the robot fell off the table"),
        ("step", "step() raised RuntimeError: the robot fell off the table"),
        ("observation", "observation of environment 0, 1 is not a finite number"),
        ("reward", "reward of environment 0, 1 is not a finite number"),
    ],
)
def test_a_run_whose_environment_fails_reports_it_and_keeps_its_files(
    command: Command, own_module: Path, tmp_path: Path, fault: str, says: str
) -> None:
    run = tmp_path / "run"
    said = command(
        "train",
        f"env=brokenenvs:Faulty-{fault}-v0",
        *TINY,
        f"run_dir={run}",
        "trainer.checkpoint_every=64",
        "trainer.compile=false",
        "env.normalizer_warmup_steps=0",
    )
    assert said.code == 1
    assert_one_message_and_what_is_kept(said)
    assert f"Faulty-{fault}-v0" in said.err
    assert says in said.err
    left = summary(run)
    assert left["status"] == "failed"
    assert says in left["error"]
    if fault == "reset":
        assert rows(run) == []
    else:
        assert len(rows(run)) >= 2
        assert rows(run)[-1]["step"] == left["steps"]
        assert checkpoint(run)["counters"]["steps"] in [row["step"] for row in rows(run)]


@pytest.mark.system
def test_a_failing_environment_ends_the_real_command_in_the_same_way(
    own_module: Path, tmp_path: Path
) -> None:
    said = real(
        "train",
        "env=brokenenvs:Faulty-step-v0",
        *TINY,
        "trainer.compile=false",
        f"run_dir={tmp_path / 'run'}",
        cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(own_module), os.environ.get("PYTHONPATH", "")]),
    )
    assert said.code == 1
    assert_one_message_and_what_is_kept(said)
    assert "Faulty-step-v0" in said.err
    assert "the robot fell off the table" in said.err
    assert summary(tmp_path / "run")["status"] == "failed"


@pytest.mark.system
def test_environments_of_a_module_can_be_swept_over(
    command: Command, own_module: Path, tmp_path: Path
) -> None:
    said = command(
        "train", "-m", "env=brokenenvs:Faulty-none-v0,CartPole-v1", *TINY, "trainer.total_steps=64"
    )
    assert said.code == 0, said.err
    assert len(runs(tmp_path)) == 2


def test_a_run_on_a_module_s_environment_can_be_evaluated_in_another_process(
    command: Command, own_module: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = command(
        "train", "env=brokenenvs:Faulty-none-v0", *TINY, "trainer.total_steps=64", f"run_dir={run}"
    )
    assert said.code == 0, said.err
    # Another process has a registry without the module's environments.
    del sys.modules["brokenenvs"]
    for env_id in IDS:
        del gymnasium.registry[env_id]
    said = command("eval", str(run), "--episodes", "2", "--trust")
    assert said.code == 0, said.err


# --- a terminal


@pytest.mark.system
def test_on_a_terminal_it_shows_a_live_panel_and_then_the_summary(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    process = subprocess.Popen(
        [*PGX, "train", *SMALL, "logger.console=auto"],
        cwd=tmp_path,
        env=environment(TERM="xterm-256color"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # Linux: the last writer has closed the terminal
        pass
    finally:
        code = process.wait(TIMEOUT)
        os.close(controller)
    assert code == 0
    assert ESCAPE.search(shown.decode())
    text = ESCAPE.sub("", shown.decode())
    for part in ("steps/s", "eta", "rollout", "health", "rule", "KL", "explained var.", "line search"):
        assert part in text, part
    assert text.rindex("finished at") > text.rindex("explained var.")
    assert "pgx eval outputs/CartPole-v1/trpo/" in text


@pytest.mark.parametrize(
    ("raised", "line"), [(KeyboardInterrupt, "pgx: interrupted\n"), (QuietInterrupt, "")]
)
def test_an_interrupted_command_prints_one_message(
    command: Command, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], line: str
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr("pgx.cli.main._dispatch", interrupted)
    said = command("algos")
    assert (said.code, said.err) == (130, line)
