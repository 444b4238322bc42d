"""Lines printed at the end of a run: its commands work when pasted."""

import re
import shlex
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from pgx.cli.printing import has_video, next_commands
from pgx.config.changes import Change, rate_changes
from pgx.config.validate import validate
from tests.command import Command
from tests.conftest import composed

RUN = [
    "train", "env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "env.num_envs=4", "runner.rollout_steps=32",
    "trainer.total_steps=256", "trainer.compile=false", "logger.sinks=[]", "optimizer.schedule=linear",
]  # fmt: skip


def test_the_commands_after_a_run_work_when_pasted(command: Command, tmp_path: Path) -> None:
    out = command(*RUN, f"run_dir='{tmp_path}/all runs/it is 1'").out
    said = dict(re.findall(r"^  (\w+) +(pgx .+)$", out, re.MULTILINE))
    assert list(said) == ["view", "diagnose", "evaluate", "record", "compare"]
    assert said["view"] == "pgx tensorboard 'all runs'"
    assert said["record"] == "pgx record 'all runs/it is 1' --out 'all runs/it is 1/episode.gif'"
    for label in ("diagnose", "evaluate", "compare"):
        assert command(*shlex.split(said[label])[1:]).code == 0, label
    longer = command("train", "--resume", "all runs/it is 1", "trainer.total_steps=512").out
    assert re.search(
        r"^optimizer\.learning_rate at \d+ steps: 0 -> \S+ \(schedule=linear now ends at 512",
        longer,
        re.MULTILINE,
    )


def test_a_folder_elsewhere_is_named_in_full_and_an_interrupted_run_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    lines = next_commands(tmp_path / "-run", "Nowhere-v0", "interrupted")
    assert [line.split()[0] for line in lines] == ["view", "diagnose", "evaluate", "compare", "resume"]
    assert all(f"{tmp_path}/-run" in line for line in lines)
    assert next_commands(Path("-run"), "CartPole-v1", "finished")[1] == "  diagnose  pgx doctor ./-run"


def test_a_video_is_offered_if_the_environment_declares_rgb_array() -> None:
    assert has_video("CartPole-v1") and has_video("Walker2d-v4") and has_video("package:FrozenLake-v1")
    assert not has_video("unknown:Nowhere-v0")


class NotDescribable(gymnasium.Env[int, int]):
    metadata: Any = None


@pytest.mark.parametrize(
    "made", [gymnasium.Wrapper, NotDescribable, lambda: NotDescribable(), "tests.nowhere:Env"]
)
def test_no_video_is_offered_if_a_class_declares_no_render_mode(
    monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    """The metadata of a Wrapper exist on its instances only."""
    spec = EnvSpec("Odd-v0", entry_point=made)
    monkeypatch.setitem(gymnasium.registry, "Odd-v0", spec)
    assert not has_video("Odd-v0")


def test_rates_that_jump_with_the_length_of_a_run_are_named() -> None:
    rates = ["optimizer.learning_rate=0.1", "critic_optimizer.learning_rate=0.1"]
    schedules = ["optimizer.schedule=linear", "critic_optimizer.schedule=constant"]
    config = validate(composed("algo=ppo", *rates, *schedules, "trainer.total_steps=4000"))
    made = [Change("trainer.total_steps", 2000, 4000), Change("logger.every", 1, 2)]
    assert rate_changes(config, made, 1000) == [
        "optimizer.learning_rate at 1,000 steps: 0.05 -> 0.075 (schedule=linear now ends at 4,000 steps)"
    ]
    assert rate_changes(config, made[1:], 1000) == []
