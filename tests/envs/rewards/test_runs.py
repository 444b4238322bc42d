"""Runs with a shaped reward: metrics, resume, evaluation and collected datasets."""

import json
from pathlib import Path

import h5py
import pytest
import torch

from pgx.runs.loggers.jsonl import read_rows
from tests.command import Command
from tests.conftest import Make, parameters, resumed_run, small

OWN_TERMS = "tests.envs.rewards.own_terms"
OPPOSITE = [
    "reward.environment=0",
    f"reward.terms.minus={{function:{OWN_TERMS}.opposite,scale:2.0,weight:0.5}}",
]
CARTPOLE = [
    "algo=a2c",
    "env=CartPole-v1",
    "env.num_envs=4",
    "runner.rollout_steps=64",
    "trainer.compile=false",
]


def test_the_parts_of_the_reward_sum_to_the_return(make: Make, tmp_path: Path) -> None:
    make(
        *small("a2c"), "reward=thrifty", "logger.every=1", "trainer.eval_every=256", "reward.environment=0.1"
    ).train()
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "rollout/episode_return" in row]
    assert rows and any("eval/episode_return" in row for row in rows)
    for row in rows:
        parts = {tag: value for tag, value in row.items() if tag.startswith("reward/")}
        assert set(parts) == {
            f"reward/{name}" for name in ("environment", "target_speed", "alive", "energy", "smoothness")
        }
        assert sum(parts.values()) == pytest.approx(row["rollout/episode_return"])
        assert parts["reward/environment"] == pytest.approx(0.1 * row["rollout/unshaped_return"])
        assert ("eval/unshaped_return" in row) == ("eval/episode_return" in row)


def test_the_unshaped_return_equals_that_of_a_run_without_shaping(make: Make) -> None:
    """Only the first rollout is compared, before the policies differ."""
    found = []
    for reward in ("none", "backward"):
        trainer = make(*small("a2c"), f"reward={reward}", "env.backend=gymnasium", name=reward)
        trainer.runner.collect(trainer.agent)
        trainer.runner.close()
        found.append(trainer.runner.episodes)  # type: ignore[attr-defined]
    plain, shaped = found
    assert len(plain) > 3
    assert [e.episode_return for e in plain] == [e.unshaped_return for e in shaped]
    assert all(e.unshaped_return is None and e.parts is None for e in plain)
    assert all(e.episode_return != e.unshaped_return for e in shaped)


@pytest.mark.system
def test_a_resumed_run_equals_an_uninterrupted_one(make: Make, tmp_path: Path) -> None:
    """Terms keep the previous action and the time in the air, which a checkpoint resets."""
    settings = [
        *small("a2c"),
        "env=Hopper-v4",
        "env.backend=gymnasium",
        "reward=hop",
        "reward.terms.smoothness={weight:0.5}",
        "trainer.total_steps=1500",
        "trainer.checkpoint_every=500",
        "logger.every=3",
    ]
    whole = make(*settings, name="whole")
    whole.train()
    assert torch.equal(parameters(whole), parameters(resumed_run(make, *settings, at=500)))
    rows = [read_rows(tmp_path / run / "metrics.jsonl")[-1] for run in ("whole", "cut")]
    told = [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows]
    assert told[0] == told[1] and "reward/smoothness" in told[0]


@pytest.mark.system
def test_actors_use_the_shaped_reward(make: Make, tmp_path: Path) -> None:
    few = ["runner.workers=1", "runner.rollout_steps=64", "logger.every=1"]
    make("algo=impala", "env=CartPole-v1", *few, *OPPOSITE).train()
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "rollout/episode_return" in row]
    assert rows and all(row["reward/minus"] == row["rollout/episode_return"] for row in rows)
    assert all(row["rollout/unshaped_return"] == -row["rollout/episode_return"] > 0 for row in rows)


def test_both_returns_are_evaluated_and_the_task_s_own_collected(
    command: Command,
    tmp_path: Path,
) -> None:
    said = command(
        "train", *CARTPOLE, *OPPOSITE, "trainer.total_steps=512", "run_dir=run", "logger.console=off"
    )
    assert said.code == 0, said.err
    evaluated = command("eval", "run", "--episodes", "3", "--trust")
    assert "mean in the environment's own reward" in evaluated.out
    (told,) = json.loads(command("eval", "run", "--episodes", "3", "--trust", "--json").out)
    assert told["unshaped_returns"] == [-earned for earned in told["returns"]]
    assert told["unshaped_mean"] == -told["mean"] > 0
    said = command("collect", "run", "--episodes", "2", "--out", "data", "--trust")
    assert said.code == 0, said.err
    with h5py.File(next((tmp_path / "data").rglob("*.hdf5"))) as file:
        assert all((file[episode]["rewards"][:] == 1.0).all() for episode in file)
