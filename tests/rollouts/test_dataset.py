"""DatasetRunner: passes, random streams and rewards of rollouts of recorded episodes."""

import copy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.seeding import generator
from pgx.envs.normalizers import RewardScaler
from pgx.rollouts.dataset import DatasetRunner
from pgx.rollouts.dataset_files import RecordedEpisode
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.build import build
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters

SETTINGS = ["algo=off_policy_reinforce", "env=CartPole-v1", "runner.episodes=4"]


def runner_of(trainer: Trainer) -> DatasetRunner:
    assert isinstance(trainer.runner, DatasetRunner)
    return trainer.runner


def first_observations(rollout: Rollout) -> list[tuple[float, ...]]:
    """Return the first observation of each episode, which identifies it."""
    return [tuple(x.tolist()) for x in rollout.obs[0]]


@pytest.mark.parametrize("episodes_per_rollout", [4, 5, 16])
def test_a_pass_gives_every_episode_once(make: Make, episodes_per_rollout: int) -> None:
    trainer = make(*SETTINGS, f"runner.episodes={episodes_per_rollout}")
    runner = runner_of(trainer)
    assert len(runner.recorded) == 16
    passes = 5
    seen: Counter[tuple[float, ...]] = Counter()
    order = []
    for _ in range(16 * passes // episodes_per_rollout):
        order += first_observations(runner.collect(trainer.agent))
    seen.update(order[: 16 * passes])
    assert len(seen) == 16 and set(seen.values()) == {passes}
    assert order[:16] != order[16:32]


def test_a_rollout_has_the_recorded_policy_s_probabilities_and_raw_rewards_when_unscaled(make: Make) -> None:
    trainer = make(*SETTINGS, "env.scale_reward=false")
    runner = runner_of(trainer)
    rollout = runner.collect(trainer.agent)
    by_start = {tuple(e.obs[0].tolist()): e for e in runner.recorded}
    for i, start in enumerate(first_observations(rollout)):
        episode = by_start[start]
        own = rollout.valid[:, i]
        assert torch.equal(rollout.log_prob[own, i], episode.log_prob)
        assert torch.equal(rollout.reward[own, i], episode.reward)
    assert runner.episodes == []  # recorded returns are not those of the learner


def test_rewards_are_scaled_by_the_deviation_of_recorded_returns(make: Make) -> None:
    trainer = make(*SETTINGS, "env.scale_reward=true", "env.reward_clip=null", "runner.episodes=16")
    rollout = runner_of(trainer).collect(trainer.agent)
    discount = trainer.algorithm.discount
    running = [
        sum(discount**k for k in range(t + 1))
        for e in range(16)
        for t in range(int(rollout.valid[:, e].sum()))
    ]
    deviation = torch.tensor(running, dtype=torch.float64).std(correction=0)
    assert torch.allclose(rollout.reward[rollout.valid].double(), 1 / deviation, rtol=1e-4)


def recorded(length: int, reward: float, seed: int) -> RecordedEpisode:
    """Return an episode with equal rewards at all steps."""
    generator = torch.Generator().manual_seed(seed)
    return RecordedEpisode(
        obs=torch.randn(length + 1, 2, generator=generator),
        action=torch.randint(2, (length,), generator=generator),
        log_prob=torch.full((length,), -0.7),
        reward=torch.full((length,), reward),
        terminated=True,
        truncated=False,
    )


def test_returns_do_not_continue_in_the_next_rollout() -> None:
    """Rollouts with four and two columns, padded to the longest: discounted returns restart in each episode."""
    episodes = [recorded(length, float(length), seed=length) for length in (3, 9, 2, 7, 5, 4)]
    scaler, discount = RewardScaler(0.9, float("inf")), 0.9
    runner = DatasetRunner(SimpleNamespace(), scaler, episodes, 4, 0, torch.device("cpu"))  # type: ignore[arg-type]
    first, last = runner.warm_up(SimpleNamespace(), 0)  # type: ignore[arg-type]
    assert (first.valid.shape, last.valid.shape) == ((9, 4), (5, 2))
    returns = [len(e) * sum(discount**k for k in range(t + 1)) for e in episodes for t in range(len(e))]
    expected = torch.tensor(returns, dtype=torch.float64)
    state = scaler.state_dict()
    assert int(state["count"]) == len(returns)
    assert torch.allclose(state["mean"], expected.mean())
    assert torch.allclose(state["squares"], (expected - expected.mean()).square().sum())
    # The last rollout is scaled by the deviation over all; each reward is the length of its episode.
    raw = last.valid.sum(0) / expected.std(correction=0)
    assert torch.allclose(last.reward.double(), torch.where(last.valid, raw, 0.0), rtol=1e-4)
    assert runner.collect(SimpleNamespace()).valid.shape[1] == 4  # type: ignore[arg-type]


def test_shuffles_have_a_separate_stream() -> None:
    episodes = [recorded(2, 1.0, seed) for seed in range(40)]
    runner = DatasetRunner(SimpleNamespace(), None, episodes, 40, 7, torch.device("cpu"))  # type: ignore[arg-type]
    first = runner.collect(SimpleNamespace()).obs  # type: ignore[arg-type]
    for other in ("minibatches", "actions", "environments", "weights"):
        order = torch.randperm(40, generator=generator(7, other))
        assert not torch.equal(first[0], torch.stack([episodes[i].obs[0] for i in order]))


def test_shuffles_depend_on_the_seed_and_are_restored(make: Make) -> None:
    one, two = make(*SETTINGS), make(*SETTINGS, "seed=1", name="two")
    first = [first_observations(t.runner.collect(t.agent)) for t in (one, two)]
    assert first[0] != first[1]
    two.runner.load_state_dict(copy.deepcopy(one.runner.state_dict()))
    for _ in range(6):
        rollouts = [t.runner.collect(t.agent) for t in (one, two)]
        assert torch.equal(rollouts[0].obs, rollouts[1].obs) and torch.equal(
            rollouts[0].reward, rollouts[1].reward
        )


def test_only_the_learned_policy_has_reported_returns(make: Make, tmp_path: Path) -> None:
    trainer = make(*SETTINGS, "trainer.eval_every=100", "trainer.eval_episodes=2")
    summary = trainer.train()
    assert summary["final_return"] is None and summary["best_return"] is None
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert not any("rollout/episode_return" in row for row in rows)
    assert any("eval/episode_return" in row for row in rows)
    assert all(0 < row["algo/weight_ess"] <= 1 and row["algo/weight_max"] > 0 for row in rows)


def test_more_episodes_than_recorded_are_refused(make: Make) -> None:
    with pytest.raises(
        UserError, match=r"runner.episodes=17: the dataset .* has 16 episodes; set at most 16"
    ):
        make(*SETTINGS, "runner.episodes=17")


def test_a_missing_dataset_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        build(validate(compose([*SETTINGS, f"dataset={tmp_path / 'none'}", f"run_dir={tmp_path / 'run'}"])))
    assert list(tmp_path.iterdir()) == []


def test_initial_weights_do_not_depend_on_the_dataset(make: Make) -> None:
    one, two = (
        make(*SETTINGS),
        make("algo=off_policy_reinforce", "env=CartPole-v1", "runner=episodes", name="two"),
    )
    assert torch.equal(parameters(one), parameters(two))
