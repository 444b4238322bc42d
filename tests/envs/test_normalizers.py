"""Running moments compared with those of all data at once, and the scale of rewards with its definition."""

import numpy as np
import pytest
import torch
from gymnasium import spaces as gym_spaces

from pgx.core.specs import Continuous
from pgx.envs import spaces
from pgx.envs.normalizers import Identity, ObservationNormalizer, RewardScaler, RunningMoments

CPU = torch.device("cpu")
DOUBLE = Continuous((3,), dtype="float64")


def rollouts(seed: int = 0) -> list[torch.Tensor]:
    """Return observations [T, 3] float64 of three rollouts; components differ in mean and deviation."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    return [*(rows * torch.tensor([0.1, 1.0, 20.0]) + torch.tensor([3.0, 0.0, -1.0])).split(100)]


def normalized(obs: list[torch.Tensor], spec: Continuous = DOUBLE) -> torch.Tensor:
    """Return the last rollout, normalized with the statistics of all rollouts."""
    normalizer = ObservationNormalizer(spec, 5.0, CPU)
    for rows in obs:
        normalizer.observe(rows)
    return normalizer(obs[-1])


def test_moments_of_batches_are_those_of_all_rows_in_any_order() -> None:
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).double() * 5 + 100
    for sizes in ([1000], [1, 999], [400, 0, 350, 250]):
        moments = RunningMoments((3,))
        for part in rows.split(sizes):
            moments.observe(part)
        assert torch.allclose(moments.mean, rows.mean(0))
        assert torch.allclose(moments.variance, rows.var(0, correction=0))


def test_normalized_observations_have_mean_zero_and_variance_one() -> None:
    obs = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1, 10, 0]) + 3
    normalizer = ObservationNormalizer(Continuous((4,)), 100.0, CPU)
    assert torch.equal(normalizer(obs), obs)  # without statistics
    normalizer.observe(obs)
    seen = normalizer(obs)
    assert torch.allclose(seen.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(seen.std(0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-2)


def test_normalized_observations_are_clipped() -> None:
    normalizer = ObservationNormalizer(Continuous((1,)), 2.0, CPU)
    normalizer.observe(torch.randn(100, 1, generator=torch.Generator().manual_seed(0)))
    assert normalizer(torch.tensor([[1e9], [-1e9]])).tolist() == [[2.0], [-2.0]]


def test_references_to_normalize_fn_follow_the_normalizer() -> None:
    normalizer, saved = (
        ObservationNormalizer(Continuous((2,)), 10.0, CPU),
        ObservationNormalizer(Continuous((2,)), 10.0, CPU),
    )
    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    saved.observe(9.0 * rows - 2.0)
    normalize_fn, seen = normalizer.normalize_fn, []
    for move in (
        lambda: None,
        lambda: normalizer.observe(rows * 3.0 + 1.0),
        lambda: normalizer.load_state_dict(saved.state_dict()),
    ):
        move()
        assert torch.equal(normalize_fn(rows), normalizer(rows))
        seen.append(normalize_fn(rows))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], saved(rows))


def test_a_saved_normalizer_is_restored_to_the_bit() -> None:
    one, two = (
        ObservationNormalizer(Continuous((2,)), 10.0, CPU),
        ObservationNormalizer(Continuous((2,)), 10.0, CPU),
    )
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
    for _ in range(3):  # rollouts; episodes continue from one to the next
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


def test_the_scale_does_not_depend_on_the_unit_of_rewards() -> None:
    reward = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    never = torch.zeros(30, 2, dtype=torch.bool)
    small, large = (RewardScaler(0.99, 10.0).scale(unit * reward, never, ~never) for unit in (1.0, 1000.0))
    assert torch.allclose(small, large, rtol=1e-4)


def test_scaled_rewards_are_clipped() -> None:
    reward = torch.zeros(1000, 1)
    reward[500] = 1e6
    never = torch.zeros(1000, 1, dtype=torch.bool)
    for sign in (1.0, -1.0):
        scaled_reward = RewardScaler(0.0, 5.0).scale(sign * reward, never, ~never)
        assert float(scaled_reward[500]) == sign * 5.0 and not scaled_reward[:500].any()


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1e-6, 0.0), (1e-5, 0.0), (1e6, 0.0), (-2.0, 7.0), (1.0, 1e8), (1.0, -1e8), (1e6, 1e12)],
)
def test_normalized_observations_depend_on_neither_unit_nor_offset(scale: float, offset: float) -> None:
    obs = rollouts()
    moved = normalized([scale * rows + offset for rows in obs])
    assert moved.dtype == torch.float32
    # Rounding of x + offset, relative to the smallest deviation.
    tolerance = 1e-6 + 4 * np.finfo(float).eps * abs(offset / scale) / 0.1
    torch.testing.assert_close(moved, np.sign(scale) * normalized(obs), rtol=0.0, atol=tolerance)


def test_an_observation_keeps_its_digits_from_the_space_to_the_network() -> None:
    _, read = spaces.observation_spec("test", gym_spaces.Box(-np.inf, np.inf, (3,), np.float64))
    obs = [torch.from_numpy(read(rows.numpy() + 1e8)) for rows in rollouts()]
    torch.testing.assert_close(normalized(obs), normalized(rollouts()), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64]
)
def test_distinct_numbers_of_a_space_are_distinct_in_a_rollout(dtype: type[np.number]) -> None:
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    high = min(int(limits.max), 2**40)
    spec, read = spaces.observation_spec("test", gym_spaces.Box(0, high, (2,), dtype))
    # Two of the largest numbers, which differ in the last digit.
    top = dtype(high if np.issubdtype(dtype, np.integer) else 1.0)
    below = top - dtype(1) if np.issubdtype(dtype, np.integer) else np.nextafter(top, dtype(0))
    seen = read(np.array([[top, below]], dtype))
    assert isinstance(spec, Continuous) and seen.dtype == spec.dtype and seen[0, 0] > seen[0, 1]
    assert Identity()(torch.from_numpy(seen)).dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-300, -1e8, 1.0])
def test_a_constant_component_becomes_zero(constant: float, dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    kind: torch.dtype = getattr(torch, dtype)
    normalizer = ObservationNormalizer(Continuous((2,), dtype=dtype), 10.0, CPU)  # type: ignore[arg-type]
    for size in (7, 1, 1000):
        rows = torch.randn(size, 2, generator=generator).to(kind)
        rows[:, 0] = constant
        normalizer.observe(rows)
        seen = normalizer(rows)
        assert torch.equal(seen[:, 0], torch.zeros(size))
    assert float(seen[:, 1].std()) == pytest.approx(1.0, abs=0.1)


def test_a_component_that_differs_only_by_rounding_is_constant() -> None:
    angle = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6.28
    ones = angle.sin().square() + angle.cos().square()
    assert ones.unique().numel() > 1
    assert not normalized([ones], Continuous((1,), dtype="float64")).any()


def scaled(unit: float, kind: torch.dtype = torch.float64) -> torch.Tensor:
    """Return scaled rewards of two rollouts, given in some unit."""
    generator = torch.Generator().manual_seed(0)
    scaler, found = RewardScaler(0.99, 10.0), []
    for _ in range(2):
        reward = torch.randn(30, 2, generator=generator, dtype=kind) + 0.5
        done = torch.rand(30, 2, generator=generator) < 0.1
        found.append(scaler.scale((unit * reward).to(kind), done, torch.ones_like(done)))
    return torch.cat(found)


@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1e6, 1e30])
def test_scaled_rewards_do_not_depend_on_the_unit(unit: float) -> None:
    assert torch.allclose(scaled(unit), scaled(1.0), rtol=1e-5)
    assert scaled(unit).dtype == torch.float32


@pytest.mark.parametrize("reward", [0.0, 1e-9, -3.0, 1e9])
def test_equal_rewards_of_one_step_episodes_become_their_sign(reward: float) -> None:
    always = torch.ones(5, 2, dtype=torch.bool)
    scaler = RewardScaler(0.99, 10.0)
    for _ in range(2):
        seen = scaler.scale(torch.full((5, 2), reward), always, always)
        assert seen.tolist() == [[np.sign(reward)] * 2] * 5


def test_moments_are_finite_after_a_very_large_reward() -> None:
    never = torch.zeros(100, 1, dtype=torch.bool)
    reward = torch.ones(100, 1, dtype=torch.float64)
    reward[0] = 1e9
    scaler = RewardScaler(0.9, 10.0)
    for _ in range(3):
        assert scaler.scale(reward, never, ~never).isfinite().all()
