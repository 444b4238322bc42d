"""Lanes of environments are the environments side by side, bit for bit, however they are parted."""

import numpy as np
import pytest

import tests.environments  # noqa: F401, registers ids
from pgx.envs.envpool_backend import EnvPoolVector
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.lanes import Lanes
from pgx.envs.make import BackendChoice, make_envs
from pgx.envs.vector import Array, Step, VectorEnv, step
from pgx.types import Continuous, Discrete, MultiDiscrete

STEPS = 250
PARTS = [[5], [3, 2], [1, 4], [2, 1, 2], [1, 1, 1, 1, 1]]
parted = pytest.mark.parametrize("sizes", PARTS, ids=str)


def allowed(envs: VectorEnv, rng: np.random.Generator) -> Array:
    """Random actions, among those that the environments allow."""
    n, spec, mask = envs.num_envs, envs.action_spec, envs.action_mask
    if isinstance(spec, Continuous):
        return rng.uniform(-1.2, 1.2, (n, *spec.shape)).astype(np.float32)
    sizes = [spec.n] if isinstance(spec, Discrete) else list(spec.sizes)
    preference = rng.uniform(size=(n, sum(sizes)))
    liked = np.where(True if mask is None else mask, preference, -1.0)
    parts = np.split(liked, np.cumsum(sizes)[:-1], axis=1)
    action = np.stack([part.argmax(axis=1) for part in parts], axis=1)
    return action if isinstance(spec, MultiDiscrete) else action[:, 0]


def assert_alike(whole: VectorEnv, lanes: VectorEnv, seed: int, steps: int) -> int:
    """Both show the same from this seed on, under the same actions; returns how many episodes ended."""
    one, two = whole.reset(seed), lanes.reset(seed)
    assert one.dtype == two.dtype and one.tobytes() == two.tobytes()
    rng, ended = np.random.default_rng(seed), 0
    for _ in range(steps):
        masks = whole.action_mask, lanes.action_mask
        assert (masks[0] is None) == (masks[1] is None)
        assert masks[0] is None or masks[1] is None or np.array_equal(*masks)
        action = allowed(whole, rng)
        moved: tuple[Step, Step] = step(whole, action), step(lanes, action)
        for a, b in zip(*moved, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        ended += int((moved[0].terminated | moved[0].truncated).sum())
    return ended


@parted
@pytest.mark.parametrize("env_id", ["Walker2d-v4", "CartPole-v1"])
def test_lanes_of_envpool_are_one_pool(env_id: str, sizes: list[int]) -> None:
    whole = EnvPoolVector(env_id, 5, {}, 2)
    lanes = Lanes([EnvPoolVector(env_id, size, {}, 1) for size in sizes])
    assert assert_alike(whole, lanes, 7, STEPS) > 20
    assert_alike(whole, lanes, 1234, 40)  # a second reset begins anew


GYMNASIUM = {
    "walker": ("Walker2d-v4", {}),
    "cartpole": ("CartPole-v1", {}),
    "masks": ("Masked-v0", {}),
    "masks of two choices": ("Masked-v0", {"several": True, "cut": True}),
    "masks at times": ("Masked-v0", {"shows": "even"}),
}


@parted
@pytest.mark.parametrize(("env_id", "kwargs"), GYMNASIUM.values(), ids=GYMNASIUM)
def test_lanes_of_gymnasium_are_one_vector(env_id: str, kwargs: dict[str, object], sizes: list[int]) -> None:
    whole = GymnasiumVector(env_id, 5, kwargs)
    lanes = Lanes([GymnasiumVector(env_id, size, kwargs) for size in sizes])
    assert assert_alike(whole, lanes, 7, STEPS) > 20
    assert_alike(whole, lanes, 1234, 40)


def test_lanes_tell_what_they_are_made_of() -> None:
    parts = [GymnasiumVector("Counter-v0", size, {}) for size in (2, 3)]
    lanes = Lanes(parts)
    assert lanes.num_envs == 5 and list(lanes.lanes) == parts
    assert (lanes.id, lanes.backend) == ("Counter-v0", "gymnasium")
    assert (lanes.obs_spec, lanes.action_spec) == (parts[0].obs_spec, parts[0].action_spec)
    assert [list(part.lanes) for part in parts] == [[part] for part in parts]


@pytest.mark.parametrize(("num_envs", "sizes"), [(1, [1]), (2, [1, 1]), (5, [3, 2]), (16, [8, 8])])
@pytest.mark.parametrize("threads", [1, 4])
def test_environments_of_envpool_come_in_two_lanes_whatever_the_threads(
    num_envs: int, sizes: list[int], threads: int
) -> None:
    envs = make_envs(BackendChoice("envpool", "test"), "CartPole-v1", num_envs, {}, threads)
    assert [lane.num_envs for lane in envs.lanes] == sizes and envs.num_envs == num_envs
    assert_alike(EnvPoolVector("CartPole-v1", num_envs, {}, 1), envs, seed=3, steps=60)


@pytest.mark.parametrize("env_id", ["Walker2d-v4", "CartPole-v1"])
def test_a_lane_moves_by_itself(env_id: str) -> None:
    """Whether others have been given their actions, or stand: what makes it worth having lanes."""
    rng = np.random.default_rng(0)
    lanes = [EnvPoolVector(env_id, 2, {}, 1) for _ in range(2)]
    alone = EnvPoolVector(env_id, 2, {}, 1)
    for lane, seed in zip(lanes, (5, 7), strict=True):
        lane.reset(seed)
    alone.reset(7)
    lanes[0].send(allowed(lanes[0], rng))
    for _ in range(20):
        action = allowed(alone, rng)
        lanes[1].send(action)
        alone.send(action)
        for a, b in zip(lanes[1].receive(), alone.receive(), strict=True):
            assert a.tobytes() == b.tobytes()
    assert lanes[0].receive().obs.shape == lanes[1].reset(0).shape
