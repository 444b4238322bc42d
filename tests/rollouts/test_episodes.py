"""Whole episodes: from their first step to their last, the same number from each environment."""

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
    """Lengths of the episodes of each environment, reset rows left out."""
    found = []
    for column, ends in zip(valid.T, ended.T, strict=True):
        count, mine = 0, []
        for row, end in zip(column.tolist(), ends.tolist(), strict=True):
            count += row
            if row and end:
                mine.append(count)
                count = 0
        assert count == 0, "rows after the last end"
        found.append(mine)
    return found


@pytest.mark.parametrize("share", [1, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_every_environment_gives_its_share_of_whole_episodes(make: Make, share: int, cut: bool) -> None:
    trainer = make(*WHOLE, *COUNTER, f"env.kwargs.cut={cut}", f"runner.episodes_per_env={share}")
    for _ in range(3):
        rollout = trainer.runner.collect(trainer.agent)
        found = lengths(rollout.valid, rollout.done)
        assert [len(mine) for mine in found] == [share] * 4
        assert all(3 <= length < 9 for mine in found for length in mine)  # as long as the task has them
        # Counter shows its own step: rows of an episode are its steps 0, 1, 2, ... in order.
        assert torch.equal(rollout.obs[..., 0][rollout.valid].long(), rollout.time[rollout.valid])
        assert rollout.valid[0].all() and (rollout.time[0] == 0).all()
        assert [e.length for e in trainer.runner.episodes] and len(trainer.runner.episodes) == 4 * share
        assert sorted(e.length for e in trainer.runner.episodes) == sorted(n for mine in found for n in mine)
        trainer.runner.episodes.clear()


def test_rows_beyond_the_share_are_not_data(make: Make) -> None:
    trainer = make(*WHOLE, *COUNTER)
    rollout = trainer.runner.collect(trainer.agent)
    assert not rollout.valid.all()  # the episodes' lengths differ, and the slowest decides how long it takes
    assert rollout.steps == sum(e.length for e in trainer.runner.episodes)


def test_all_simulated_steps_are_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too that an environment takes after its share, while others still play theirs."""
    trainer = make(*WHOLE, *COUNTER, "trainer.total_steps=100")
    calls, step = [], Counter.step
    monkeypatch.setattr(Counter, "step", lambda env, action: calls.append(env) or step(env, action))
    assert trainer.train()["steps"] == len(calls)


def test_short_episodes_are_not_favoured(make: Make) -> None:
    """Of episodes of 1 or 60 steps, with equal odds, half are long: whoever ends first does not count twice."""
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


def test_each_rollout_has_starts_of_its_own_and_the_same_seed_the_same_ones(make: Make) -> None:
    one, two = (make(*WHOLE, "env=CartPole-v1", name=name) for name in ("one", "two"))
    starts = [[t.runner.collect(t.agent).obs[0] for _ in range(2)] for t in (one, two)]
    assert not torch.equal(starts[0][0], starts[0][1])
    assert all(torch.equal(a, b) for a, b in zip(*starts, strict=True))


COIN = ["env=tests.environments:Coin-v0", "env.backend=gymnasium", "env.num_envs=16"]


def test_an_episode_without_an_end_is_truncated_at_the_limit(make: Make) -> None:
    """Coin ends after 5 steps or never: the share of an environment ends with the episode that is cut."""
    trainer = make(*WHOLE, *COIN, "runner.episodes_per_env=3", "runner.max_episode_steps=7")
    rollout = trainer.runner.collect(trainer.agent)
    found = lengths(rollout.valid, rollout.done)
    assert {tuple(mine) for mine in found} <= {(5, 5, 5), (5, 5, 7), (5, 7), (7,)}
    assert {mine[-1] for mine in found} == {5, 7}
    # The limit is no termination: V goes on from the true successor.
    assert torch.equal(rollout.truncated & rollout.valid, rollout.valid & (rollout.time == 6))
    assert not (rollout.terminated & (rollout.time == 6)).any()
    episodes = trainer.runner.episodes
    assert sorted((e.length, e.cut) for e in episodes) == sorted((n, n == 7) for mine in found for n in mine)
    assert all(e.episode_return == e.length for e in episodes)
    whole = make(
        "algo=reinforce", *COIN, "runner.max_episode_steps=7", "trainer.total_steps=300", name="whole"
    )
    assert whole.train()["status"] == "finished"  # a rule that refuses parts of episodes takes it


def test_an_episode_that_ends_at_the_limit_is_not_cut(make: Make) -> None:
    trainer = make(*WHOLE, *COIN, "runner.max_episode_steps=5")
    trainer.runner.collect(trainer.agent)
    assert {(e.length, e.cut) for e in trainer.runner.episodes} == {(5, False), (5, True)}


def test_a_run_says_once_that_episodes_were_cut_and_counts_them(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = ["env.kwargs.endless=true", "env.num_envs=4", "runner.max_episode_steps=8"]
    make(*WHOLE, *COIN, *endless, "trainer.total_steps=64").train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/episodes_cut"] for row in rows] == [4.0, 4.0]
    assert capsys.readouterr().err.count("4 of 4 episodes were cut at runner.max_episode_steps") == 1


def test_a_request_to_stop_ends_an_episode_that_would_not_end(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_run_of_an_earlier_version_has_the_limit_too(tmp_path: Path) -> None:
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
    state = first.checkpoints.load("last")
    again = make(
        *WHOLE, "env=CartPole-v1", "trainer.checkpoint_every=300", "trainer.total_steps=900", name="again"
    )
    again.load_state_dict(state)
    again.train()
    assert again.counters.steps == straight.counters.steps
    assert torch.equal(parameters(again), parameters(straight))
