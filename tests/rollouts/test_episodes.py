"""EpisodeRunner: whole episodes, the same number in each environment."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from pgx.config.stored import read_config
from pgx.training.trainer import Trainer
from tests.conftest import Make, composed, parameters
from tests.environments import Coin, Counter

COUNTER = ["env=tests.environments:Counter-v0", "env.backend=gymnasium", "env.normalize_obs=false"]
WHOLE = ["algo=a2c", "runner=episodes", "logger.every=1"]


def lengths(valid: Tensor, ended: Tensor) -> list[list[int]]:
    """Return the lengths of the episodes of each environment, without reset rows."""
    found = []
    for column, ends in zip(valid.T, ended.T, strict=True):
        count, own = 0, []
        for row, end in zip(column.tolist(), ends.tolist(), strict=True):
            count += row
            if row and end:
                own.append(count)
                count = 0
        assert count == 0, "rows after the last end"
        found.append(own)
    return found


@pytest.mark.parametrize("episodes_per_env", [1, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_every_environment_plays_the_same_number_of_whole_episodes(
    make: Make, episodes_per_env: int, cut: bool
) -> None:
    trainer = make(*WHOLE, *COUNTER, f"env.kwargs.cut={cut}", f"runner.episodes_per_env={episodes_per_env}")
    for _ in range(3):
        rollout = trainer.runner.collect(trainer.agent)
        found = lengths(rollout.valid, rollout.done)
        assert [len(own) for own in found] == [episodes_per_env] * 4
        assert all(3 <= length < 9 for own in found for length in own)  # lengths that occur in the task
        # Counter observes its step: rows of an episode are its steps 0, 1, 2, ... in order.
        assert torch.equal(rollout.obs[..., 0][rollout.valid].long(), rollout.time[rollout.valid])
        assert rollout.valid[0].all() and (rollout.time[0] == 0).all()
        assert [e.length for e in trainer.runner.episodes] and len(
            trainer.runner.episodes
        ) == 4 * episodes_per_env
        assert sorted(e.length for e in trainer.runner.episodes) == sorted(n for own in found for n in own)
        trainer.runner.episodes.clear()


def test_rows_after_the_last_episode_are_not_data(make: Make) -> None:
    trainer = make(*WHOLE, *COUNTER)
    rollout = trainer.runner.collect(trainer.agent)
    assert not rollout.valid.all()  # lengths differ, and the slowest environment determines T
    assert rollout.steps == sum(e.length for e in trainer.runner.episodes)


def test_all_simulated_steps_are_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Includes steps that an environment takes after its last episode, while others still play."""
    trainer = make(*WHOLE, *COUNTER, "trainer.total_steps=100")
    calls, step = [], Counter.step
    monkeypatch.setattr(Counter, "step", lambda env, action: calls.append(env) or step(env, action))
    assert trainer.train()["steps"] == len(calls)


def test_short_episodes_are_not_overrepresented(make: Make) -> None:
    """Episodes have 1 or 60 steps with equal probability, so half of them are long."""
    coin = ["env=tests.environments:CoinFlip-v0", "env.backend=gymnasium", "env.num_envs=64"]
    trainer = make("algo=reinforce", *coin, "env.normalize_obs=false")
    lengths = []
    for _ in range(4):
        rollout = trainer.runner.collect(trainer.agent)
        assert int(rollout.done[rollout.valid].sum()) == 64
        lengths += [episode.length for episode in trainer.runner.episodes]
        trainer.runner.episodes.clear()
    assert set(lengths) == {1, 60} and len(lengths) == 256
    assert abs(lengths.count(60) / 256 - 0.5) < 4 * 0.5 / 16  # standard deviations of a fair coin


def test_starts_differ_between_rollouts_and_agree_between_equal_seeds(make: Make) -> None:
    one, two = (make(*WHOLE, "env=CartPole-v1", name=name) for name in ("one", "two"))
    starts = [[t.runner.collect(t.agent).obs[0] for _ in range(2)] for t in (one, two)]
    assert not torch.equal(starts[0][0], starts[0][1])
    assert all(torch.equal(a, b) for a, b in zip(*starts, strict=True))


COIN = ["env=tests.environments:Coin-v0", "env.backend=gymnasium", "env.num_envs=16"]


def test_an_episode_without_an_end_is_truncated_at_the_limit(make: Make) -> None:
    """Coin ends after 5 steps or never; an environment plays no further episode after a cut."""
    trainer = make(*WHOLE, *COIN, "runner.episodes_per_env=3", "runner.max_episode_steps=7")
    rollout = trainer.runner.collect(trainer.agent)
    found = lengths(rollout.valid, rollout.done)
    assert {tuple(own) for own in found} <= {(5, 5, 5), (5, 5, 7), (5, 7), (7,)}
    assert {own[-1] for own in found} == {5, 7}
    # The limit is not a termination: the value of the true successor is bootstrapped.
    assert torch.equal(rollout.truncated & rollout.valid, rollout.valid & (rollout.time == 6))
    assert not (rollout.terminated & (rollout.time == 6)).any()
    episodes = trainer.runner.episodes
    assert sorted((e.length, e.cut) for e in episodes) == sorted((n, n == 7) for own in found for n in own)
    assert all(e.episode_return == e.length for e in episodes)
    whole = make(
        "algo=reinforce", *COIN, "runner.max_episode_steps=7", "trainer.total_steps=300", name="whole"
    )
    assert whole.train()["status"] == "finished"  # accepted by a rule that refuses parts of episodes


def test_an_episode_that_ends_at_the_limit_is_not_cut(make: Make) -> None:
    trainer = make(*WHOLE, *COIN, "runner.max_episode_steps=5")
    trainer.runner.collect(trainer.agent)
    assert {(e.length, e.cut) for e in trainer.runner.episodes} == {(5, False), (5, True)}


def test_cut_episodes_are_counted_and_reported_once(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = ["env.kwargs.endless=true", "env.num_envs=4", "runner.max_episode_steps=8"]
    make(*WHOLE, *COIN, *endless, "trainer.total_steps=64").train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/episodes_cut"] for row in rows] == [4.0, 4.0]
    assert capsys.readouterr().err.count("4 of 4 episodes were cut at runner.max_episode_steps") == 1


def test_a_stop_request_ends_an_endless_episode(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(*WHOLE, *COIN, "env.kwargs.endless=true", "runner.max_episode_steps=1_000_000_000")
    steps, step = [], Coin.step

    def stopping(env: Coin, action: object) -> object:
        steps.append(env)
        if len(steps) == 100:
            trainer.stop()
        return step(env, action)

    monkeypatch.setattr(Coin, "step", stopping)
    assert trainer.train()["status"] == "interrupted"
    assert len(steps) == 100


def test_configs_of_earlier_versions_get_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    written = OmegaConf.to_yaml(composed(*WHOLE, *COIN, "run_dir=x"), resolve=True)
    path.write_text(written.replace("  max_episode_steps: 30000\n", ""))
    assert "max_episode_steps" not in path.read_text()
    assert read_config(path).runner.max_episode_steps == 30_000


def trained(make: Make, name: str, *more: str) -> Trainer:
    trainer = make(*WHOLE, "env=CartPole-v1", "trainer.checkpoint_every=300", *more, name=name)
    trainer.train()
    return trainer


def test_a_resumed_run_of_whole_episodes_ends_with_the_same_bits(make: Make, tmp_path: Path) -> None:
    straight = trained(make, "straight", "trainer.total_steps=900")
    first = trained(make, "first", "trainer.total_steps=500")
    state = first.writer.checkpoints.load("last")
    again = make(
        *WHOLE, "env=CartPole-v1", "trainer.checkpoint_every=300", "trainer.total_steps=900", name="again"
    )
    again.load_state_dict(state)
    again.train()
    assert again.counters.steps == straight.counters.steps
    assert torch.equal(parameters(again), parameters(straight))
