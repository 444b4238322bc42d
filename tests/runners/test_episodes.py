"""Whole episodes: from their first step to their last, the same number from each environment."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pgx.trainer import Trainer
from tests.conftest import Make, parameters
from tests.environments import Counter

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
