"""Contract of the backends, tested with real simulators."""

import copy
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import MultiDiscrete as ChoiceGrid
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import Autoreset, RecordEpisodeStatistics

import tests.environments  # noqa: F401, registers ids
from pgx.core.errors import RunError, UserError
from pgx.core.specs import Continuous, Discrete, MultiDiscrete
from pgx.envs import spaces
from pgx.envs.envpool_backend import EnvPoolVector, envpool_problem
from pgx.envs.gymnasium_backend import GymnasiumVector, suppressed_warnings
from pgx.envs.make import BackendChoice, choose_backend, make_envs
from pgx.envs.registry import id_problem
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import VectorEnv, step
from tests.envs.odd import Fast

PROCESSES = pytest.param("processes", marks=pytest.mark.system)
BACKENDS = ["gymnasium", PROCESSES, "envpool"]
OURS = ["gymnasium", PROCESSES]


def make(backend: Any, env_id: str = "Walker2d-v4", n: int = 3, threads: int = 2, **kwargs: Any) -> VectorEnv:
    return make_envs(BackendChoice(backend, "test"), env_id, n, kwargs, threads, 60.0, NO_SHAPING)


def choose(env_id: str, backend: Any, kwargs: dict[str, Any], n: int = 1, threads: int = 1) -> BackendChoice:
    return choose_backend(env_id, backend, kwargs, n, threads, NO_SHAPING)


def play(envs: VectorEnv, seed: int, steps: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    assert isinstance(envs.action_spec, Continuous)
    rows = [envs.reset(seed)]
    for _ in range(steps):
        rows.append(
            step(envs, rng.uniform(-1, 1, (envs.num_envs, *envs.action_spec.shape)).astype(np.float32)).obs
        )
    return rows


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_step_after_an_end_only_resets(backend: str) -> None:
    envs = make(backend)
    envs.reset(0)
    ended, resets = np.zeros(3, dtype=bool), 0
    rng = np.random.default_rng(0)
    for _ in range(80):
        took = step(envs, rng.uniform(-1, 1, (3, 6)).astype(np.float32))
        assert (took.reward[ended] == 0).all()
        assert not (took.terminated | took.truncated)[ended].any()
        # A walker that was just reset stands: its height is 1.25 up to the reset noise of 0.005.
        assert (abs(took.obs[ended, 0] - 1.25) < 0.01).all()
        resets += ended.sum()
        ended = took.terminated | took.truncated
    assert resets > 5


@pytest.mark.parametrize("env_id", ["Walker2d-v4", "CartPole-v1"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_returned_arrays_are_not_overwritten(backend: str, env_id: str) -> None:
    """Arrays are compared after the next step was sent."""
    envs = make(backend, env_id)
    envs.reset(0)
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(60):
        continuous = isinstance(envs.action_spec, Continuous)
        took = step(
            envs, rng.uniform(-1, 1, (3, 6)).astype(np.float32) if continuous else rng.integers(2, size=3)
        )
        kept += [(column, column.copy()) for column in took.columns.values()]
    assert all((column == then).all() for column, then in kept)
    assert not any(
        np.shares_memory(a, b) for a, b in itertools.combinations([column for column, _ in kept], 2)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(backend: str) -> None:
    envs = make(backend)
    first, again, other = play(envs, 5), play(envs, 5), play(envs, 6)
    fresh = play(make(backend, threads=1), 5)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all((a == b).all() for a, b in zip(first, fresh, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_limits_are_truncations_and_falls_are_terminations(backend: str) -> None:
    envs = make(backend, max_episode_steps=4, terminate_when_unhealthy=False)
    envs.reset(0)
    steps = [step(envs, np.zeros((3, 6), np.float32)) for _ in range(4)]
    assert not any(took.terminated.any() for took in steps)
    assert [bool(took.truncated.all()) for took in steps] == [False, False, False, True]
    falling = make(backend)
    falling.reset(0)
    ends = [step(falling, -np.ones((3, 6), np.float32)) for _ in range(20)]
    assert any(took.terminated.any() for took in ends) and not any(took.truncated.any() for took in ends)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [7, 210])  # Pendulum-v1 is registered with 200
def test_a_time_limit_may_be_shorter_and_longer_than_the_registered_one(backend: str, limit: int) -> None:
    assert choose("Pendulum-v1", backend, {"max_episode_steps": limit}).name == backend
    envs = make(backend, "Pendulum-v1", n=1, max_episode_steps=limit)
    envs.reset(0)
    cut = [bool(step(envs, np.zeros((1, 1), np.float32)).truncated[0]) for _ in range(limit)]
    assert cut == [False] * (limit - 1) + [True]
    envs.close()


def test_gymnasiums_statistics_wrapper_counts_the_same_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> "gymnasium.Env[Any, Any]":
        return RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))

    monkeypatch.setitem(gymnasium.registry, "Counted-v0", EnvSpec("Counted-v0", entry_point=made))
    envs = GymnasiumVector("Counted-v0", 1, {}, first_index=0)
    envs.reset(0)
    lengths, returns, length = [], [], 0
    for _ in range(100):
        took = step(envs, np.ones(1, np.int64))
        length += 1
        if took.terminated[0]:
            lengths.append(length)
            returns.append(float(length))
            length = -1  # the step that only resets
    wrapper = envs.first_env
    while not isinstance(wrapper, RecordEpisodeStatistics):
        assert isinstance(wrapper, gymnasium.Wrapper)
        wrapper = wrapper.env
    assert len(lengths) > 5
    assert (list(wrapper.length_queue), list(wrapper.return_queue)) == (lengths, returns)


def test_gymnasiums_autoreset_wrapper_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last observation is that of the ended episode, and pgx's reset replaces its own."""

    def made() -> "gymnasium.Env[Any, Any]":
        return Autoreset(gymnasium.make("Walker2d-v4"))

    monkeypatch.setitem(gymnasium.registry, "Resetting-v0", EnvSpec("Resetting-v0", entry_point=made))
    wrapped, plain = make("gymnasium", "Resetting-v0"), make("gymnasium")
    assert all((a == b).all() for a, b in zip(play(wrapped, 5), play(plain, 5), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_kwargs_reach_the_simulator(backend: str) -> None:
    lengths = []
    for low in (0.8, 1.2):
        kwargs = {"healthy_z_min": low} if backend == "envpool" else {"healthy_z_range": (low, 2.0)}
        envs = make(backend, n=1, **kwargs)
        envs.reset(0)
        steps = 0
        while not step(envs, np.zeros((1, 6), np.float32)).terminated.any():
            steps += 1
        lengths.append(steps)
    assert lengths[1] < lengths[0]


def test_envpool_simulates_the_same_walker_as_gymnasium() -> None:
    """From the same state under the same torques both libraries give the same observations and rewards."""
    ours, theirs = (make(backend, n=1, reset_noise_scale=0.0) for backend in ("gymnasium", "envpool"))
    assert np.allclose(ours.reset(0), theirs.reset(0), atol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(12):
        action = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
        one, two = step(ours, action), step(theirs, action)
        assert np.allclose(one.obs, two.obs, atol=1e-5) and np.allclose(one.reward, two.reward, atol=1e-5)
        assert (one.terminated == two.terminated).all()


@pytest.mark.parametrize("env_id", ["Humanoid-v4", "Humanoid-v5"])
def test_a_humanoid_observes_the_same_contact_forces_in_both_libraries(env_id: str) -> None:
    ours, theirs = (make(backend, env_id, n=1, reset_noise_scale=0.0) for backend in ("gymnasium", "envpool"))
    ours.reset(0)
    theirs.reset(0)
    rng, forces = np.random.default_rng(0), []
    for _ in range(14):  # its feet touch the ground at the 11th
        action = rng.uniform(-0.4, 0.4, (1, 17)).astype(np.float32)
        one, two = step(ours, action), step(theirs, action)
        assert np.allclose(one.obs, two.obs, rtol=2e-3, atol=1e-3)
        assert np.allclose(one.reward, two.reward, atol=1e-3)
        forces.append(abs(one.obs[0, -84:]).max())
    assert max(forces) > 100


def test_multidiscrete_actions_have_the_shape_of_their_space() -> None:
    spec, write = spaces.action_spec("Grid-v0", ChoiceGrid([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]))
    assert spec == MultiDiscrete((2, 3, 4, 5))
    assert write(np.array([[0, 1, 2, 3], [1, 0, 3, 4]])).tolist() == [[[0, 2], [4, 6]], [[1, 1], [5, 7]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_actions_are_clipped_to_their_bounds(backend: str) -> None:
    ends = []
    for size in (1.0, 7.0):
        envs = make(backend)
        envs.reset(3)
        ends.append([step(envs, np.full((3, 6), size, np.float32)).obs for _ in range(5)])
    assert all((a == b).all() for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("backend", OURS)
def test_observations_and_actions_of_every_supported_kind(backend: str) -> None:
    assert make(backend, "FrozenLake-v1").obs_spec == Discrete(16)
    buttons = make(backend, "TwoButtons-v0")
    assert buttons.obs_spec == Discrete(3)
    assert buttons.action_spec == MultiDiscrete((3, 2))
    assert set(buttons.reset(0)) <= {0, 1, 2}  # the space starts at 5
    assert make("envpool", "CartPole-v1").action_spec == Discrete(2)
    assert make(backend, "Counter-v0").action_spec == Continuous((2,), low=(-0.5, -0.5), high=(2.0, 2.0))


@pytest.mark.parametrize("backend", OURS)
def test_unsupported_spaces_say_what_is_supported(backend: str) -> None:
    with pytest.raises(UserError, match="supported are Box and Discrete"):
        make(backend, "Blackjack-v1")


def test_auto_uses_envpool_only_for_the_same_task() -> None:
    assert choose("Walker2d-v4", "auto", {}).name == "envpool"
    assert choose("Walker2d-v4", "auto", {"healthy_z_min": 0.7}).name == "envpool"
    assert choose("Walker2d-v4", "gymnasium", {}).name == "gymnasium"
    for env_id, kwargs, reason in (
        ("TwoButtons-v0", {}, "EnvPool has no TwoButtons-v0"),
        ("Walker2d-v4", {"camera_name": "track"}, "does not take these env.kwargs"),
        ("Blackjack-v1", {}, "has observations"),
    ):
        choice = choose(env_id, "auto", kwargs)
        assert choice.name == "gymnasium" and reason in choice.reason
        with pytest.raises(UserError, match=r"set env\.backend=gymnasium"):
            choose(env_id, "envpool", kwargs)
    assert envpool_problem("Walker2d-v4", {"max_episode_steps": 50}) is None


def test_an_id_with_a_module_uses_envpool_if_it_is_the_same_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose("gymnasium:Walker2d-v4", "auto", {}).name == "envpool"
    one, two = make("envpool", "gymnasium:Walker2d-v4"), make("envpool", "Walker2d-v4")
    assert all(np.array_equal(a, b) for a, b in zip(play(one, 3, 5), play(two, 3, 5), strict=True))
    spec = EnvSpec("highway-fast-v0", entry_point=Fast, max_episode_steps=30)
    monkeypatch.setitem(gymnasium.registry, "highway-fast-v0", spec)
    choice = choose("tests.envs.odd:highway-fast-v0", "auto", {})  # with the spaces and limit of EnvPool's
    assert choice.name == "gymnasium" and "is registered by tests.envs.odd" in choice.reason


def test_an_id_with_another_time_limit_does_not_use_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another time limit for CartPole-v1, EnvPool would end episodes at other steps."""
    assert envpool_problem("CartPole-v1", {}) is None
    spec = copy.deepcopy(gymnasium.registry["CartPole-v1"])
    spec.max_episode_steps = 123
    monkeypatch.setitem(gymnasium.registry, "CartPole-v1", spec)
    assert (
        envpool_problem("CartPole-v1", {})
        == "EnvPool's CartPole-v1 has a time limit of 500 steps, Gymnasium's 123"
    )


def test_messages_suggest_only_backends_that_can_run_the_environment() -> None:
    with pytest.raises(UserError, match=r"mujoco<3.*; choose a later version: env=Pusher-v5$"):
        choose("Pusher-v4", "envpool", {})
    with pytest.raises(UserError, match=r"mujoco<3.*; choose a later version: env=Pusher-v5$"):
        make("gymnasium", "Pusher-v4")


def test_invalid_kwargs_of_an_old_version_do_not_suggest_a_later_one() -> None:
    with pytest.raises(UserError, match=r"cannot be created with .*bogus") as refused:
        make("gymnasium", "Hopper-v4", bogus=1)
    assert "later version" not in str(refused.value)


def test_an_unknown_id_suggests_a_similar_one() -> None:
    assert id_problem("Walker2d-v4") is None
    assert id_problem("tests.environments:Endless-v0") is None
    assert "did you mean 'Walker2d-v" in str(id_problem("Walker3d-v4"))
    assert "module 'nowhere' cannot be imported" in str(id_problem("nowhere:X-v0"))


@pytest.mark.parametrize("backend", OURS)
def test_invalid_kwargs_are_a_user_error(backend: str) -> None:
    with pytest.raises(
        UserError, match=r"^env\.id=CartPole-v1: cannot be created with env\.kwargs=.*bogus.*[^\n]*$"
    ):
        make(backend, "CartPole-v1", bogus=1)


def test_an_environment_that_raises_is_named() -> None:
    envs = make("gymnasium", "Counter-v0")
    envs.reset(0)
    with pytest.raises(RunError, match=r"Counter-v0: step\(\) raised"):
        envs._convert_action = lambda action: action  # no clipping, so that the environment's check fails
        step(envs, np.full((3, 2), 99.0, np.float32))


@pytest.mark.parametrize("env_id", ["Walker2d-v5", "FrozenLake-v1", "tests.environments:Endless-v0"])
def test_gymnasium_vector_equals_sync_vector_env(env_id: str) -> None:
    ours = make("gymnasium", env_id, n=4)
    theirs = SyncVectorEnv([lambda: gymnasium.make(env_id, disable_env_checker=True)] * 4)
    theirs.action_space.seed(0)
    first = ours.reset(7)
    same = [(first == theirs.reset(seed=7)[0].astype(first.dtype)).all()]
    ends = 0
    for _ in range(200):
        action = theirs.action_space.sample()
        took, (obs, *others, _) = step(ours, action), theirs.step(action)
        same.append((took.obs == obs.astype(took.obs.dtype)).all())
        same += [(a == b).all() for a, b in zip([*took.columns.values()][1:], others, strict=True)]
        ends += (took.terminated | took.truncated).sum()
    assert all(same) and ends > 8


@pytest.mark.parametrize("env_id", ["Walker2d-v4", "CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_internal_calls_of_envpool_equal_its_public_calls(env_id: str) -> None:
    """Results are equal to the bit, including resets and reset rows."""
    import envpool

    ours = EnvPoolVector(env_id, 3, {}, num_threads=2)
    with suppressed_warnings():
        theirs = envpool.make(env_id, env_type="gymnasium", num_envs=3, num_threads=2, seed=7)
        seen, (shown, _) = ours.reset(7), theirs.reset()
    assert np.array_equal(seen, ours._convert_obs(shown))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(300):
        if isinstance(ours.action_spec, Discrete):
            action = rng.integers(ours.action_spec.n, size=3)
        else:
            action = rng.uniform(-1, 1, (3, *ours.action_spec.shape))
        took = step(ours, action)
        with suppressed_warnings():
            obs, reward, terminated, truncated, _ = theirs.step(ours._convert_action(action))
        expected = ours._convert_obs(obs), reward.astype(np.float64), terminated, truncated
        for one, other in zip(
            (took.obs, took.reward, took.terminated, took.truncated), expected, strict=True
        ):
            assert np.array_equal(one, other) and one.dtype == other.dtype
        ends += int((terminated | truncated).sum())
    assert ends > 0
