"""What `pgx eval` says of trained agents: returns with intervals, and whether tasks were done."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from pgx.commands.evaluate import evaluate
from pgx.config.build import load_agent
from pgx.config.compose import compose
from pgx.evaluation import never, play, success_rate, unwatched
from pgx.runners import Episode
from tests.conftest import Make

JUDGED = ["algo=a2c", "env=tests.environments:Judged-v0", "trainer.total_steps=64", "runner.rollout_steps=16"]
BACKENDS = ["gymnasium", "processes"]


def test_only_what_was_said_counts_towards_success() -> None:
    said = [Episode(0.0, 1, True), Episode(0.0, 1, None), Episode(0.0, 1, False), Episode(0.0, 1, False)]
    assert success_rate(said) == pytest.approx(1 / 3)
    assert success_rate([Episode(1.0, 1)]) is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", ["is_success", "success"])
def test_an_episode_s_task_is_done_if_its_last_step_says_so(
    make: Make, tmp_path: Path, backend: str, key: str
) -> None:
    """The environment pays 1 for what it calls a success, and says the opposite at every step before the last."""
    where = [f"env.backend={backend}", f"env.kwargs.key={key}", "env.num_threads=2"]
    make(*JUDGED, *where).train()
    agent, envs, _ = load_agent(_config(*where, run=tmp_path / "run"), tmp_path / "run", "last", max_envs=4)
    sampling = torch.Generator().manual_seed(0)
    played = play(
        agent, lambda obs: agent.act(obs, sampling), envs, 30, 7, torch.device("cpu"), 1000, never, unwatched
    )
    envs.close()
    assert {episode.success for episode in played} == {True, False}
    assert all(episode.success == (episode.episode_return == 1) for episode in played)


@pytest.mark.parametrize("backend", BACKENDS)
def test_episodes_that_say_nothing_are_left_out(make: Make, tmp_path: Path, backend: str) -> None:
    where = [f"env.backend={backend}", "env.kwargs.silent=true", "env.num_threads=2"]
    make(*JUDGED, *where).train()
    agent, envs, _ = load_agent(_config(*where, run=tmp_path / "run"), tmp_path / "run", "last", max_envs=4)
    sampling = torch.Generator().manual_seed(0)
    played = play(
        agent, lambda obs: agent.act(obs, sampling), envs, 40, 7, torch.device("cpu"), 1000, never, unwatched
    )
    envs.close()
    assert {episode.success for episode in played} == {True, False, None}
    assert all(e.success == (e.episode_return == 1) for e in played if e.success is not None)


def _config(*overrides: str, run: Path) -> DictConfig:
    return compose([*JUDGED, *overrides, "env.num_envs=4", f"run_dir={run}"])


def test_periodic_evaluation_tells_of_success(make: Make, tmp_path: Path) -> None:
    make(*JUDGED, "env.backend=gymnasium", "trainer.eval_every=32").train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "eval/episode_return" in row]
    assert len(told) >= 1 and all(row["eval/success"] == row["eval/episode_return"] for row in told)


def test_several_runs_both_ways_as_records(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(tmp_path / name) for name in ("a", "b")]
    make("algo=ppo", "env=CartPole-v1", "env.backend=gymnasium", "seed=1", name="a").train()
    make("algo=a2c", "env=CartPole-v1", "env.backend=gymnasium", "seed=2", name="b").train()
    capsys.readouterr()
    modes = ["deterministic", "stochastic"]
    said = []
    for _ in range(2):
        evaluate(runs, [], "last", 6, None, ["deterministic", "stochastic"], 3, trust=False, as_json=True)
        said.append(json.loads(capsys.readouterr().out))
    records = said[0]
    assert said[0] == said[1]
    assert [(r["run"], r["mode"]) for r in records] == [(run, mode) for run in runs for mode in modes]
    for record in records:
        assert record["episodes"] == len(record["returns"]) == len(record["lengths"]) == 6
        assert record["returns"] == record["lengths"]  # CartPole pays 1 a step
        assert record["mean"] == pytest.approx(np.mean(record["returns"]))
        assert record["mean_interval"][0] <= record["mean"] <= record["mean_interval"][1]
        assert record["iqm"] == pytest.approx(np.mean(sorted(record["returns"])[1:-1]))
        assert record["success_rate"] is None
    assert records[0]["returns"] != records[1]["returns"]
    assert len(set(records[0]["returns"])) > 1  # episodes begin in different states

    evaluate(runs, [], "last", 6, None, ["deterministic"], 3, trust=False, as_json=False)
    text = capsys.readouterr().out
    assert f"IQM     {records[0]['iqm']:.1f}   95% interval" in text and text.count("6 deterministic") == 2
