"""Episodes without an end are cut: in evaluation, in videos, in datasets; and a run that plays one can be stopped."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.rollouts.sources import Episode
from pgx.runs.checkpoints import Checkpoints
from pgx.training.build import load_agent
from pgx.training.evaluation import ProgressCallback, ignore_progress, never_stop, play
from pgx.training.videos import PeriodicVideo
from tests.command import Command
from tests.conftest import Make

COIN = ["algo=a2c", "env=tests.environments:Coin-v0", "env.num_envs=4", "runner.rollout_steps=8"]
ENDLESS = [*COIN, "env.kwargs.endless=true"]


def coin_episodes(make: Make, tmp_path: Path, episodes: int, max_steps: int) -> list[Episode]:
    """Of an environment that ends after five steps or never."""
    if not (tmp_path / "coin").exists():
        make(*COIN, "trainer.total_steps=64", name="coin").train()
    cfg = validate(compose([*COIN, f"run_dir={tmp_path / 'coin'}"]))
    agent, envs = load_agent(cfg, Checkpoints(tmp_path / "coin").load("last"), max_envs=4)
    played = play(
        agent,
        agent.act_greedily,
        envs,
        episodes,
        3,
        torch.device("cpu"),
        max_steps,
        never_stop,
        ignore_progress,
    )
    envs.close()
    return played


def test_every_episode_that_was_asked_for_is_played_and_those_without_an_end_are_cut(
    make: Make, tmp_path: Path
) -> None:
    played = coin_episodes(make, tmp_path, 40, max_steps=30)
    assert len(played) == 40
    assert {(episode.length, episode.cut) for episode in played} == {(5, False), (30, True)}
    assert all(episode.episode_return == episode.length for episode in played)
    # Neither kind is favoured: 20 +- 4 standard deviations.
    assert 8 <= sum(episode.cut for episode in played) <= 32


def test_a_longer_limit_only_lengthens_what_is_cut(make: Make, tmp_path: Path) -> None:
    short, long = (coin_episodes(make, tmp_path, 8, max_steps=limit) for limit in (20, 40))
    assert sorted(e.length for e in short if e.cut) == [20] * sum(e.cut for e in long)
    assert sorted(e.length for e in long if e.cut) == [40] * sum(e.cut for e in long)


def test_eval_record_and_collect_end_and_say_what_was_cut(
    make: Make, command: Command, tmp_path: Path
) -> None:
    make(*COIN, "trainer.total_steps=64", "trainer.eval_max_steps=25").train()
    said = command("eval", "run", "--trust", "--episodes", "8")
    assert said.code == 0 and "episodes were cut after 25 steps (--max-steps)" in said.out
    (judged,) = json.loads(
        command("eval", "run", "--trust", "--episodes", "8", "--max-steps", "12", "--json").out
    )
    assert judged["lengths"] == [12 if cut else 5 for cut in judged["cut"]] and True in judged["cut"]

    said = command("collect", "run", "--trust", "--episodes", "8", "--max-steps", "12", "--out", "data")
    assert said.code == 0 and "episodes were truncated after 12 steps" in said.out
    with h5py.File(tmp_path / "data" / "data" / "main_data.hdf5") as file:
        for group in file.values():
            length, truncated = len(group["rewards"]), group["truncations"][:]
            assert length in (5, 12) and truncated[-1] == (length == 12) and not truncated[:-1].any()

    said = command("record", "run", "--trust", "--episodes", "6", "--max-steps", "12", "--out", "coin.gif")
    assert said.code == 0 and "episodes were cut after 12 steps" in said.out
    with Image.open(tmp_path / "coin.gif") as video:
        assert video.n_frames > 6  # type: ignore[attr-defined]


def test_a_run_that_evaluates_an_endless_episode_stops_when_asked_and_keeps_its_steps(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ["trainer.total_steps=4096", "trainer.eval_every=32", "trainer.eval_max_steps=1_000_000_000"]
    trainer = make(*ENDLESS, *limits)
    asked: list[int] = []

    def stopping(prefix: str, episodes: int, interval: float) -> ProgressCallback:
        def on_step(played: int, steps: int) -> None:
            asked.append(steps)
            trainer.stop_requested = len(asked) == 50

        return on_step

    monkeypatch.setattr(sys.modules["pgx.training.build"], "print_progress", stopping)
    assert trainer.train()["status"] == "interrupted"
    assert len(asked) == 50
    assert trainer.writer.checkpoints.load("last")["counters"]["steps"] == 32
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert not any("eval/episode_return" in row for row in rows)  # of episodes that were stopped


def test_training_reports_episodes_that_its_evaluation_cut(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["trainer.total_steps=64", "trainer.eval_every=32", "trainer.eval_max_steps=20"]
    make(*ENDLESS, *limits, "trainer.eval_episodes=3").train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "eval/episode_return" in row]
    assert [row["eval/episodes_cut"] for row in told] == [3.0] * len(told) and len(told) >= 2
    assert np.allclose([row["eval/episode_return"] for row in told], 20)
    assert capsys.readouterr().err.count("3 of 3 episodes were cut at trainer.eval_max_steps=20") == 1


def test_a_video_that_is_stopped_is_dropped(make: Make, tmp_path: Path) -> None:
    trainer = make(*ENDLESS, "trainer.record_every=32", "trainer.record_seconds=1")
    shown: list[object] = []
    trainer.writer.write_video = lambda *clip: shown.append(clip)  # type: ignore[method-assign]
    (video,) = [c.given for c in trainer.callbacks if isinstance(c.given, PeriodicVideo)]
    state = replace(trainer._state(0, None, {}), step=64, iteration=1)
    video.on_iteration(state)
    assert len(shown) == 1  # ends with the second that it shows, though the episode does not
    for asks in (0, 3):
        answers = iter([False] * asks + [True] * 10_000)
        video.on_iteration(replace(state, stop_requested=lambda answers=answers: next(answers)))  # type: ignore[misc]
    trainer.runner.close()
    assert len(shown) == 1
