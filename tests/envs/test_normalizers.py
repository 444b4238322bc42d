"""Running moments against all data at once, and the scale of rewards against its definition."""

import pytest
import torch

from pgx.envs.normalizers import ObservationNormalizer, RewardScaler, RunningMoments

CPU = torch.device("cpu")


def test_moments_of_batches_are_those_of_all_rows_in_any_order() -> None:
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).double() * 5 + 100
    for sizes in ([1000], [1, 999], [400, 0, 350, 250]):
        moments = RunningMoments((3,))
        for part in rows.split(sizes):
            moments.observe(part)
        assert torch.allclose(moments.mean, rows.mean(0))
        assert torch.allclose(moments.variance, rows.var(0, correction=0))


def test_normalised_observations_have_mean_zero_and_variance_one() -> None:
    obs = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1, 10, 0]) + 3
    normalizer = ObservationNormalizer((4,), 100.0, CPU)
    assert torch.equal(normalizer(obs), obs)  # before anything was seen
    normalizer.observe(obs)
    seen = normalizer(obs)
    assert torch.allclose(seen.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(seen.std(0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-2)


def test_normalised_observations_are_clipped() -> None:
    normalizer = ObservationNormalizer((1,), 2.0, CPU)
    normalizer.observe(torch.randn(100, 1, generator=torch.Generator().manual_seed(0)))
    assert normalizer(torch.tensor([[1e9], [-1e9]])).tolist() == [[2.0], [-2.0]]


def test_who_holds_the_lens_sees_as_the_normaliser_does_whenever_it_moves() -> None:
    normalizer, saved = ObservationNormalizer((2,), 10.0, CPU), ObservationNormalizer((2,), 10.0, CPU)
    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    saved.observe(9.0 * rows - 2.0)
    lens, seen = normalizer.lens, []
    for move in (
        lambda: None,
        lambda: normalizer.observe(rows * 3.0 + 1.0),
        lambda: normalizer.load_state_dict(saved.state_dict()),
    ):
        move()
        assert torch.equal(lens(rows), normalizer(rows))
        seen.append(lens(rows))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], saved(rows))


def test_a_saved_normaliser_is_the_same_to_the_bit() -> None:
    one, two = ObservationNormalizer((2,), 10.0, CPU), ObservationNormalizer((2,), 10.0, CPU)
    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    one.observe(rows)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(rows), two(rows))
    for normalizer in (one, two):
        normalizer.observe(rows * 2)
    assert torch.equal(one(rows), two(rows))


def test_rewards_are_divided_by_the_deviation_of_the_running_return() -> None:
    generator = torch.Generator().manual_seed(0)
    steps, envs, discount = 40, 3, 0.9
    scaler = RewardScaler(discount, clip=1e9)
    running, seen = [0.0] * envs, []
    for _ in range(3):  # rollouts; an episode goes on from one to the next
        reward = torch.randn(steps, envs, generator=generator) * 20
        done = torch.rand(steps, envs, generator=generator) < 0.1
        done[-1] = torch.tensor([True, False, False])  # an episode may end with the rollout
        valid = torch.rand(steps, envs, generator=generator) < 0.95
        scaled = scaler.scale(reward, done, valid)
        for t in range(steps):
            for n in range(envs):
                running[n] = discount * running[n] + float(reward[t, n])
                if valid[t, n]:
                    seen.append(running[n])
                if done[t, n]:
                    running[n] = 0.0
        deviation = float(torch.tensor(seen).double().std(correction=0))
        assert torch.allclose(scaled, reward / deviation, rtol=1e-4)


def test_scaling_knows_no_unit_of_reward() -> None:
    reward = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    never = torch.zeros(30, 2, dtype=torch.bool)
    small, large = (RewardScaler(0.99, 10.0).scale(unit * reward, never, ~never) for unit in (1.0, 1000.0))
    assert torch.allclose(small, large, rtol=1e-4)


def test_scaled_rewards_are_clipped() -> None:
    reward = torch.zeros(1000, 1)
    reward[500] = 1e6
    never = torch.zeros(1000, 1, dtype=torch.bool)
    assert float(RewardScaler(0.0, 5.0).scale(reward, never, ~never).max()) == pytest.approx(5.0)
