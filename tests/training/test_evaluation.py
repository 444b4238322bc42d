"""What `pgx eval` says of trained agents: returns with intervals, and whether tasks were done."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from pgx.cli import eval as command_of_eval
from pgx.cli.eval import evaluate
from pgx.config.validate import validate
from pgx.core.agent import Act
from pgx.core.data import Observations
from pgx.core.nonfinite import NotFiniteError
from pgx.core.seeding import derive
from pgx.rollouts.sources import Episode
from pgx.runs.checkpoints import Checkpoints
from pgx.training.build import load_agent
from pgx.training.evaluation import (
    episode_metrics,
    evaluation_metrics,
    ignore_progress,
    never_stop,
    play,
    success_rate,
)
from pgx.training.nan_debug.post_mortem import write_bundle
from tests.command import Command
from tests.conftest import Make, composed

JUDGED = ["algo=a2c", "env=tests.environments:Judged-v0", "trainer.total_steps=64", "runner.rollout_steps=16"]
BACKENDS = ["gymnasium", pytest.param("processes", marks=pytest.mark.system)]


def test_only_reported_successes_count() -> None:
    said = [Episode(0.0, 1, True), Episode(0.0, 1, None), Episode(0.0, 1, False), Episode(0.0, 1, False)]
    assert success_rate(said) == pytest.approx(1 / 3)
    assert success_rate([Episode(1.0, 1)]) is None


def test_an_evaluation_s_metrics_are_of_its_episodes() -> None:
    episodes = [
        Episode(1.0, 10, True, unshaped_return=-1.0),
        Episode(4.0, 20, False, unshaped_return=-2.0),
        Episode(7.0, 60, None, unshaped_return=-6.0, cut=True),
    ]
    assert evaluation_metrics(episodes) == {
        "eval_success": 0.5,
        "eval_unshaped_return": -3.0,
        "eval_episodes_cut": 1.0,
        "eval_episode_return": 4.0,
        "eval_episode_return_std": pytest.approx(6**0.5),
        "eval_episode_length": 30.0,
    }


def test_training_s_metrics_of_episodes_are_of_those_that_ended() -> None:
    plain = [Episode(1.0, 10), Episode(4.0, 40), Episode(7.0, 16)]
    assert episode_metrics(plain, recent=[5.0, 6.0]) == {
        "episodes": 3.0,
        "episode_return_recent": 5.5,
        "episode_return": 4.0,
        "episode_return_min": 1.0,
        "episode_return_max": 7.0,
        "episode_length": 22.0,
        "episode_length_min": 10.0,
        "episode_length_max": 40.0,
    }
    assert episode_metrics([], recent=[]) == {"episodes": 0.0}
    shaped = [
        Episode(3.0, 1, None, -1.0, {"a": 1.0, "b": 2.0}),
        Episode(7.0, 1, None, -3.0, {"a": 7.0, "b": 0.0}),
    ]
    found = episode_metrics(shaped, recent=[])
    assert (found["unshaped_return"], found["reward/a"], found["reward/b"]) == (-2.0, 4.0, 1.0)


def test_an_episode_starts_without_the_recurrent_state_of_the_previous_one(make: Make) -> None:
    trainer = make("algo=a2c", "env=tests.environments:Counter-v0", "env.backend=gymnasium", "policy=gru")
    agent, began = trainer.agent, list[bool]()

    def act(obs: Observations) -> Act:
        assert obs.history is not None
        starts = obs.features[:, 0] == 0  # Counter shows its step
        began.extend(starts[starts].tolist())
        assert not obs.history.recurrent_state[starts].any()
        assert obs.history.recurrent_state[obs.time > 1].any(-1).all()
        return agent.act_greedily(obs)

    envs = trainer.runner.envs
    played = play(agent, act, envs, 12, 0, torch.device("cpu"), 100, never_stop, ignore_progress)
    assert len(played) == 12 and len(began) >= 12


def test_each_environment_plays_its_share(make: Make) -> None:
    """Six episodes of four environments: two of the first two, one of the others, whichever end first."""
    trainer = make("algo=a2c", "env=tests.environments:Counter-v0", "env.backend=gymnasium")
    envs, shares = trainer.runner.envs, [2, 2, 1, 1]
    alone = make(
        "algo=a2c", "env=tests.environments:Counter-v0", "env.backend=gymnasium", "env.num_envs=1"
    ).runner.envs
    expected = []
    for i, share in enumerate(shares):
        expected += play(
            trainer.agent,
            trainer.agent.act_greedily,
            alone,
            share,
            5 + i,
            torch.device("cpu"),
            99,
            never_stop,
            ignore_progress,
        )
    played = play(
        trainer.agent,
        trainer.agent.act_greedily,
        envs,
        6,
        5,
        torch.device("cpu"),
        99,
        never_stop,
        ignore_progress,
    )
    assert sorted(e.length for e in played) == sorted(e.length for e in expected)


def test_each_round_of_cut_episodes_has_starts_of_its_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environments whose episodes were cut are all seeded anew; the first round is of the evaluation's own seed."""
    trainer = make("algo=a2c", "env=tests.environments:Endless-v0", "env.backend=gymnasium")
    envs, seeds = trainer.runner.envs, list[int]()
    reset = envs.reset
    monkeypatch.setattr(envs, "reset", lambda seed: seeds.append(seed) or reset(seed))
    played = play(
        trainer.agent,
        trainer.agent.act_greedily,
        envs,
        12,
        5,
        torch.device("cpu"),
        3,
        never_stop,
        ignore_progress,
    )
    assert [(e.length, e.cut) for e in played] == [(3, True)] * 12
    assert seeds[0] == 5 and len(set(seeds)) == len(seeds) == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", ["is_success", "success"])
def test_an_episode_succeeds_if_its_last_step_reports_success(
    make: Make, tmp_path: Path, backend: str, key: str
) -> None:
    """The environment pays 1 for what it calls a success, and says the opposite at every step before the last."""
    where = [f"env.backend={backend}", f"env.kwargs.key={key}", "env.num_threads=2"]
    make(*JUDGED, *where).train()
    agent, envs = load_agent(
        validate(_config(*where, run=tmp_path / "run")),
        Checkpoints(tmp_path / "run").load("last"),
        max_envs=4,
    )
    sampling = torch.Generator().manual_seed(0)
    played = play(
        agent,
        lambda obs: agent.act(obs, sampling),
        envs,
        30,
        7,
        torch.device("cpu"),
        1000,
        never_stop,
        ignore_progress,
    )
    envs.close()
    assert {episode.success for episode in played} == {True, False}
    assert all(episode.success == (episode.episode_return == 1) for episode in played)


@pytest.mark.parametrize("backend", BACKENDS)
def test_episodes_that_say_nothing_are_left_out(make: Make, tmp_path: Path, backend: str) -> None:
    where = [f"env.backend={backend}", "env.kwargs.silent=true", "env.num_threads=2"]
    make(*JUDGED, *where).train()
    agent, envs = load_agent(
        validate(_config(*where, run=tmp_path / "run")),
        Checkpoints(tmp_path / "run").load("last"),
        max_envs=4,
    )
    sampling = torch.Generator().manual_seed(0)
    played = play(
        agent,
        lambda obs: agent.act(obs, sampling),
        envs,
        40,
        7,
        torch.device("cpu"),
        1000,
        never_stop,
        ignore_progress,
    )
    envs.close()
    assert {episode.success for episode in played} == {True, False, None}
    assert all(e.success == (e.episode_return == 1) for e in played if e.success is not None)


def _config(*overrides: str, run: Path) -> DictConfig:
    return composed(*JUDGED, *overrides, "env.num_envs=4", f"run_dir={run}")


def test_periodic_evaluation_logs_success(make: Make, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("num_envs", [1, 16])
def test_episodes_of_any_length_count_alike(make: Make, tmp_path: Path, num_envs: int) -> None:
    """Of episodes of 1 or 60 steps, with equal odds, half are long, however many environments play them."""
    coin = ["algo=a2c", "env=tests.environments:CoinFlip-v0", "env.backend=gymnasium", "env.num_envs=16"]
    make(*coin, "trainer.total_steps=64", "runner.rollout_steps=4").train()
    cfg = composed(*coin, f"run_dir={tmp_path / 'run'}")
    agent, envs = load_agent(validate(cfg), Checkpoints(tmp_path / "run").load("last"), max_envs=num_envs)
    assert envs.num_envs == num_envs
    lengths: list[int] = []
    for seed in range(4):
        played = play(
            agent,
            agent.act_greedily,
            envs,
            16,
            100 * seed,
            torch.device("cpu"),
            1000,
            never_stop,
            ignore_progress,
        )
        lengths += [episode.length for episode in played]
    envs.close()
    assert set(lengths) == {1, 60} and len(lengths) == 64
    assert abs(lengths.count(60) / 64 - 0.5) < 4 * 0.5 / 8  # standard deviations of a fair coin


def test_the_best_checkpoint_earns_what_was_logged_when_it_became_the_best(
    make: Make, tmp_path: Path
) -> None:
    """Networks and normaliser are of one moment: the evaluation of that moment comes out again, to the bit."""
    chosen = [
        "algo=a2c",
        "env=CartPole-v1",
        "env.backend=gymnasium",
        "optimizer.learning_rate=1e-2",
        "seed=3",
    ]
    trainer = make(*chosen, "trainer.total_steps=2048", "trainer.eval_every=1", "trainer.eval_episodes=5")
    trainer.train()
    best = trainer.writer.checkpoints.load("best")["counters"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [row for row in rows if row["step"] == best["steps"] and "eval/episode_return" in row]
    cfg = composed(*chosen, "env.num_envs=4", f"run_dir={tmp_path / 'run'}")
    agent, envs = load_agent(validate(cfg), Checkpoints(tmp_path / "run").load("best"), max_envs=4)
    start = derive(3, "evaluation", best["iterations"])
    played = play(
        agent, agent.act_greedily, envs, 5, start, torch.device("cpu"), 1000, never_stop, ignore_progress
    )
    envs.close()
    assert logged["eval/episode_return"] == np.mean([episode.episode_return for episode in played])


PLAYING = (
    "eval run --episodes 2",
    "collect run --episodes 2 --out data",
    "export run --to torchscript --out policy.pt",
    "record run --out square.gif",
    "replay BUNDLE",
)


@pytest.mark.parametrize(
    "line", [PLAYING[0], *(pytest.param(each, marks=pytest.mark.system) for each in PLAYING[1:])]
)
def test_every_command_that_plays_has_the_torch_threads_of_the_run(
    make: Make, command: Command, tmp_path: Path, line: str
) -> None:
    painted = ["algo=a2c", "env=tests.environments:Painted-v0", "env.backend=gymnasium", "env.kwargs.steps=3"]
    trainer = make(*painted, "trainer.total_steps=64", "runner.rollout_steps=16", "torch_threads=2")
    trainer.train()
    failure = NotFiniteError("iteration 1: as if")
    bundle = write_bundle(tmp_path, trainer.writer.config, Checkpoints(tmp_path / "none"), 1, failure)
    arguments = [str(bundle) if word == "BUNDLE" else word for word in line.split()]
    try:
        torch.set_num_threads(1)
        said = command(*arguments, "--trust")
        assert said.code == (1 if arguments[0] == "replay" else 0), said.err
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_records_of_eval_are_strict_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = {"mean": float("inf"), "returns": [float("nan"), 1.0], "mean_interval": (-float("inf"), 0.0)}
    monkeypatch.setattr(command_of_eval, "_configs", lambda *_: [OmegaConf.create({})])
    monkeypatch.setattr(command_of_eval, "_evaluate_run", lambda *_: [judged])
    evaluate(["run"], [], "last", 2, None, ["deterministic"], 0, trust=False, as_json=True)

    def refuse(token: str) -> None:
        raise AssertionError(token)

    (record,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert record == {"mean": "Infinity", "returns": ["NaN", 1.0], "mean_interval": ["-Infinity", 0.0]}
