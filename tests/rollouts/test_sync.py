"""SyncRunner: rollouts contain what happened in the environments."""

import pytest
import torch

from pgx.core.data import Batch, Rollout
from pgx.ops.stats import explained_variance
from tests.conftest import Make, as_observations

COUNTER = ["env=tests.environments:Counter-v0", "env.normalize_obs=false", "env.scale_reward=false"]
SMALL = ["algo=trpo", "algo.critic_minibatch_size=64"]
BACKENDS = ["env.backend=gymnasium", "env.backend=envpool"]


def rows(rollout: Rollout, n: int) -> list[tuple[float, ...]]:
    """Return (obs, reward, next_obs, terminated, truncated) of the valid rows of environment n."""
    columns = (
        rollout.obs[..., 0],
        rollout.reward,
        rollout.next_obs[..., 0],
        rollout.terminated,
        rollout.truncated,
    )
    return [tuple(float(c[t, n]) for c in columns) for t in range(len(rollout.reward)) if rollout.valid[t, n]]


@pytest.mark.parametrize("cut", ["false", "true"])
def test_valid_rows_are_the_steps_of_the_episodes_and_nothing_else(make: Make, cut: str) -> None:
    """Counter observes k, and its next step has reward k + 1 and observes k + 1; resets must not be rows."""
    trainer = make(*SMALL, *COUNTER, f"env.kwargs.cut={cut}")
    ended = 0
    for _ in range(2):
        rollout = trainer.runner.collect(trainer.agent)
        for n in range(4):
            for now, reward, after, terminated, truncated in rows(rollout, n):
                assert reward == now + 1 == after
                assert not (terminated and truncated)
                ended += terminated or truncated
        assert (rollout.terminated.any(), rollout.truncated.any()) == (cut == "false", cut == "true")
        assert not (rollout.terminated | rollout.truncated)[~rollout.valid].any()
        assert int((~rollout.valid).sum()) > 0
    assert len(trainer.runner.episodes) == ended


@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_rows_never_reach_a_batch(make: Make, backend: str) -> None:
    trainer = make(*SMALL, "env=Walker2d-v4", backend, "env.scale_reward=false")
    rollout = trainer.runner.collect(trainer.agent)
    ended = rollout.terminated | rollout.truncated
    resets = torch.cat([torch.zeros(1, 4, dtype=torch.bool), ended[:-1]])
    assert int(resets.sum()) > 5
    assert torch.equal(rollout.valid, ~resets)
    assert bool((rollout.reward[resets] == 0).all())
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    assert len(batch) == rollout.steps == 256 - int(resets.sum())
    forbidden = {tuple(row) for row in rollout.action[resets].tolist()}
    assert not forbidden & {tuple(row) for row in batch.action.tolist()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_resets_do_not_influence_any_estimate(make: Make, backend: str) -> None:
    trainer = make(*SMALL, "env=Walker2d-v4", backend)
    rollout = trainer.runner.collect(trainer.agent)
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    rollout.reward[~rollout.valid] = 1e6
    rollout.log_prob[~rollout.valid] = -50.0
    again = trainer.algorithm.estimate(trainer.agent, rollout)
    assert torch.equal(batch.advantage, again.advantage) and torch.equal(
        batch.value_target, again.value_target
    )


def test_rollouts_continue_each_other(make: Make) -> None:
    trainer = make(*SMALL, *COUNTER)
    first, second = (trainer.runner.collect(trainer.agent) for _ in range(2))
    assert torch.equal(first.next_obs[-1], second.obs[0])


def test_episode_returns_are_raw_and_whole(make: Make) -> None:
    """An episode of Counter that ends at k returns 1 + 2 + ... + k, without scaling, also over several rollouts."""
    trainer = make(*SMALL, COUNTER[0], "env.scale_reward=true", "runner.rollout_steps=16")
    for _ in range(5):
        trainer.runner.collect(trainer.agent)
    episodes = trainer.runner.episodes
    assert len(episodes) > 20
    assert all(e.episode_return == e.length * (e.length + 1) / 2 for e in episodes)
    assert {e.length for e in episodes} <= set(range(3, 9))


def test_scaled_rewards_are_the_raw_ones_times_one_number(make: Make) -> None:
    raw, scaled = (
        trainer.runner.collect(trainer.agent)
        for trainer in (
            make(*SMALL, COUNTER[0], f"env.scale_reward={on}", name=on) for on in ("false", "true")
        )
    )
    assert torch.equal(raw.valid, scaled.valid)
    ratio = scaled.reward[raw.valid] / raw.reward[raw.valid]
    assert torch.allclose(ratio, ratio[0].expand_as(ratio)) and 0 < float(ratio[0]) < 0.9


def test_stored_actions_are_the_samples_and_their_log_probs_belong_to_them(make: Make) -> None:
    trainer = make(*SMALL, *COUNTER, "policy.log_std_init=1.5")
    rollout = trainer.runner.collect(trainer.agent)
    assert float(rollout.action.max()) > 2.0 and float(rollout.action.min()) < -0.5  # beyond the bounds
    policy = trainer.agent.policy(as_observations(rollout.obs.flatten(0, 1)))
    log_prob = policy.log_prob(rollout.action.flatten(0, 1)).detach().view(64, 4)
    assert torch.allclose(log_prob, rollout.log_prob, atol=1e-5)


@pytest.mark.parametrize("handled", [True, pytest.param(False, marks=pytest.mark.system)])
def test_values_of_an_endless_task_need_the_true_successor_at_the_time_limit(
    make: Make, handled: bool
) -> None:
    """Reward 1 forever, cut every 16 steps, discount 0.9: V = 1 / (1 - 0.9) = 10 with bootstrapping at the cut.

    Two-sided: if the cut is treated as a termination, a critic that does not observe time cannot approach 10.
    """
    trainer = make(
        *SMALL,
        "env=tests.environments:Endless-v0",
        "env.discount=0.9",
        "env.scale_reward=false",
        "critic_optimizer.learning_rate=3e-2",
        "critic_optimizer.max_grad_norm=null",
        "algo.critic_epochs=4",
    )
    for _ in range(60):
        rollout = trainer.runner.collect(trainer.agent)
        if not handled:
            ended = rollout.terminated | rollout.truncated
            rollout = Rollout(**{**vars(rollout), "terminated": ended, "truncated": torch.zeros_like(ended)})
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    value = float(trainer.agent.critic(as_observations(torch.zeros(1, 2))).detach())
    assert value == pytest.approx(10, abs=0.3) if handled else value < 8


def test_the_normalizer_is_constant_within_a_rollout(make: Make) -> None:
    trainer = make(*SMALL, "env=Walker2d-v4")
    for _ in range(2):
        before = trainer.agent.normalizer(torch.ones(1, 17))
        rollout = trainer.runner.collect(trainer.agent)
        assert torch.equal(before, trainer.agent.normalizer(torch.ones(1, 17)))
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        assert torch.equal(before, trainer.agent.normalizer(torch.ones(1, 17)))
        trainer.agent.normalizer.observe(rollout.obs[rollout.valid])
        assert not torch.equal(before, trainer.agent.normalizer(torch.ones(1, 17)))


def test_a_boundary_does_not_depend_on_earlier_rollouts(make: Make) -> None:
    one, two = make(*SMALL, "env=Walker2d-v4"), make(*SMALL, "env=Walker2d-v4")
    one.runner.collect(one.agent)
    state = one.runner.state_dict()
    two.runner.load_state_dict(state)
    for trainer in (one, two):
        trainer.runner.begin(iteration=5)
    a, b = (trainer.runner.collect(trainer.agent) for trainer in (one, two))
    assert all(
        x is y is None or torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def test_each_boundary_starts_different_episodes(make: Make) -> None:
    """Otherwise a run with checkpoints would see the same few initial states again and again."""
    trainer = make(*SMALL, "env=Walker2d-v4")
    starts = []
    for iteration in (0, 5, 5):
        trainer.runner.begin(iteration)
        starts.append(trainer.runner.collect(trainer.agent).obs[0])
    assert torch.equal(starts[1], starts[2]) and not torch.equal(starts[0], starts[1])


def test_errors_of_rollouts_name_the_column() -> None:
    good = {
        "obs": torch.zeros(2, 3, 4),
        "action": torch.zeros(2, 3),
        "log_prob": torch.zeros(2, 3),
        "reward": torch.zeros(2, 3),
        "next_obs": torch.zeros(2, 3, 4),
        "terminated": torch.zeros(2, 3, dtype=torch.bool),
        "truncated": torch.zeros(2, 3, dtype=torch.bool),
        "valid": torch.ones(2, 3, dtype=torch.bool),
        "time": torch.zeros(2, 3, dtype=torch.int64),
    }
    Rollout(**good)
    wrong = {
        "obs": torch.zeros(3, 2, 4),
        "action": torch.zeros(2),
        "reward": torch.zeros(2, 3, dtype=torch.int64),
        "next_obs": torch.zeros(2, 3, 5),
        "terminated": torch.zeros(2, 3),
        "valid": torch.ones(2, 3, 1, dtype=torch.bool),
        "time": torch.zeros(2, 3),
        "action_mask": torch.ones(3, 2, 4, dtype=torch.bool),
        "recurrent_state": torch.zeros(3, 2, 4),
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"Rollout.{name}"):
            Rollout(**{**good, name: value})


def test_training_a_critic_raises_explained_variance(make: Make) -> None:
    trainer = make(
        *SMALL,
        *COUNTER,
        "critic_optimizer.max_grad_norm=null",
        "critic_optimizer.learning_rate=1e-2",
        "algo.critic_epochs=50",
    )
    rollout = trainer.runner.collect(trainer.agent)
    batch: Batch = trainer.algorithm.estimate(trainer.agent, rollout)
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    after = explained_variance(trainer.agent.critic(batch.obs).detach(), batch.value_target)
    assert after > explained_variance(batch.value, batch.value_target)


ONE_STEP = ["env=tests.environments:CoinFlip-v0", "env.backend=gymnasium", "env.kwargs.long=1"]


@pytest.mark.parametrize(
    "settings",
    [
        ["algo=trpo", "algo.critic_minibatch_size=4", *ONE_STEP],
        ["algo=ppo", "algo.minibatch_size=4", *ONE_STEP],
        ["algo=a2c", "env.num_envs=1", *ONE_STEP],
        ["algo=vtrace", "runner.lag=1", *ONE_STEP],
        ["algo=a2c", "env=tests.environments:Endless-v0", "env.backend=gymnasium"],  # all are cut at step 16
    ],
    ids=lambda s: " ".join(s[:2]),
)
def test_rollouts_of_resets_only_are_skipped(make: Make, settings: list[str]) -> None:
    """Every update uses at least one row, and reset rows are not counted."""
    trainer = make(*settings, "runner.rollout_steps=1", "trainer.total_steps=80", "logger.every=1")
    num_envs = trainer.runner.envs.num_envs
    summary = trainer.train()
    assert summary["status"] == "finished"
    assert summary["steps"] == summary["iterations"] * num_envs == 80
