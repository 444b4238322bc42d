"""Shaped rewards are the weighted sum of their terms on every backend, and 0 in reset rows."""

from typing import Any

import numpy as np
import pytest

import tests.environments  # noqa: F401, registers ids
from pgx.core.errors import RunError, UserError
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.make import BackendChoice, choose_backend, make_envs
from pgx.envs.rewards.spec import RewardSpec
from pgx.envs.vector import Step, VectorEnv, step

PROCESSES = pytest.param("processes", marks=pytest.mark.system)
BACKENDS = ["gymnasium", PROCESSES, "envpool"]
OWN_TERMS = "tests.envs.rewards.own_terms"
N, STEPS = 3, 120


def spec(environment: float = 0.0, **terms: Any) -> RewardSpec:
    return RewardSpec("test", environment, terms)


def make(backend: Any, reward: RewardSpec, env_id: str = "Walker2d-v5", **kwargs: Any) -> VectorEnv:
    return make_envs(BackendChoice(backend, "test"), env_id, N, kwargs, 2, 60.0, reward)


def actions(size: int = 6) -> np.ndarray[Any, Any]:
    """Return random actions, some beyond the bounds of -1 and 1."""
    return np.random.default_rng(1).normal(0.0, 0.8, (STEPS, N, size)).astype(np.float32)


def played(envs: VectorEnv, seed: int = 7) -> list[Step]:
    envs.reset(seed)
    try:
        return [step(envs, action) for action in actions()]
    finally:
        envs.close()


def resets(steps: list[Step]) -> np.ndarray[Any, Any]:
    """Return [T, N] whether a step only reset its environment."""
    done = np.array([s.terminated | s.truncated for s in steps])
    return np.concatenate([np.zeros((1, N), bool), done[:-1]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_terms_reproduce_the_walker_s_own_reward(backend: str) -> None:
    """Walker2d's reward is its forward velocity, plus 1 if healthy, minus 0.001 times the squared action."""
    reward = spec(forward_velocity={"weight": 1}, alive={"weight": 1}, energy={"weight": -0.001})
    steps = played(make(backend, reward))
    only_reset = resets(steps)
    assert only_reset.sum() > 5
    for took, idle in zip(steps, only_reset, strict=True):
        assert took.reward_parts is not None
        assert np.allclose(took.reward, took.reward_parts.unshaped, atol=2e-6)
        assert (took.reward[idle] == 0).all() and (took.reward[~idle] != 0).all()
        assert (took.reward == np.sum([*took.reward_parts.parts.values()], axis=0)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reward_changes_nothing_else_in_a_step(backend: str) -> None:
    plain = played(make(backend, spec(1.0)))
    other = played(make(backend, spec(0.5, upright={"weight": 2}, height={"weight": 1, "above": 1.0})))
    for one, two in zip(plain, other, strict=True):
        assert one.reward_parts is None and two.reward_parts is not None
        assert all(
            (one.columns[name] == two.columns[name]).all() for name in ("obs", "terminated", "truncated")
        )
        assert (two.reward_parts.unshaped == one.reward).all()
        assert (two.reward_parts.parts["environment"] == 0.5 * one.reward).all()


@pytest.mark.system
def test_rewards_of_worker_processes_equal_those_of_one_process() -> None:
    reward = spec(
        1.0,
        air_time={"weight": 1, "longest": 0.2},
        smoothness={"weight": 1},
        forward={"function": f"{OWN_TERMS}.forward", "weight": 1},
        simulated={"function": f"{OWN_TERMS}.simulated_forward", "weight": 1},
    )
    for one, two in zip(*(played(make(b, reward)) for b in ("gymnasium", "processes")), strict=True):
        assert one.reward_parts is not None and two.reward_parts is not None
        for name, paid in one.reward_parts.parts.items():
            assert (paid == two.reward_parts.parts[name]).all(), name


def test_state_of_terms_ends_with_the_episode() -> None:
    """Smoothness and time in the air equal values computed here from each environment alone."""
    steps = played(make("gymnasium", spec(smoothness={"weight": 1}, air_time={"weight": 1, "longest": 100})))
    flown = 0.0
    for i in range(N):
        env: Any = make_single("Walker2d-v5", {})
        env.reset(seed=7 + i)
        ended, before, air = False, None, 0.0
        for took, action in zip(steps, np.clip(actions()[:, i], -1, 1).astype(np.float64), strict=True):
            assert took.reward_parts is not None
            paid = {name: part[i] for name, part in took.reward_parts.parts.items()}
            if ended:
                env.reset()
                ended, before, air = False, None, 0.0
                assert paid == {"smoothness": 0.0, "air_time": 0.0}
                continue
            _, _, terminated, truncated, _ = env.step(action)
            changed = 0.0 if before is None else -float(((action - before) ** 2).sum())
            data, floor = env.unwrapped.data, env.unwrapped.model.geom("floor").id
            touches = any(floor in data.contact[k].geom for k in range(data.ncon))
            air = 0.0 if touches else air + 0.008  # four steps of 2 ms
            assert np.isclose(paid["smoothness"], changed) and np.isclose(paid["air_time"], air / 100)
            ended, before, flown = terminated or truncated, action, max(flown, air)
        env.close()
    assert flown >= 0.024, "no environment was in the air for several steps"


def test_a_reset_discards_the_state_of_terms() -> None:
    envs = make("gymnasium", spec(smoothness={"weight": 1}, air_time={"weight": 1, "longest": 100}))
    rewards = []
    for _ in range(2):
        envs.reset(3)
        rewards.append([step(envs, action).reward for action in actions()[5:25]])
    envs.close()
    assert np.array_equal(*rewards)


def test_a_term_may_use_discrete_actions() -> None:
    envs = make("gymnasium", spec(pressed={"function": f"{OWN_TERMS}.pressed", "weight": 2}), "CartPole-v1")
    envs.reset(0)
    assert (step(envs, np.array([0, 1, 1])).reward == [0.0, 2.0, 2.0]).all()
    envs.close()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("one_number", r"reward.terms.mine returned the shape \[\]; expected \[3\]"),
        ("no_number", "reward.terms.mine of environment . is not a finite number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in log:RuntimeWarning")
def test_the_error_of_a_term_without_numbers_names_it(function: str, said: str) -> None:
    envs = make("gymnasium", spec(mine={"function": f"{OWN_TERMS}.{function}", "weight": 1}))
    envs.reset(0)
    with pytest.raises(RunError, match=said):
        step(envs, actions()[0])
    envs.close()


def chosen(reward: RewardSpec, env_id: str = "Walker2d-v4", backend: Any = "auto") -> BackendChoice:
    return choose_backend(env_id, backend, {}, 4, 1, reward)


def test_envpool_is_not_used_if_it_lacks_a_quantity() -> None:
    assert chosen(spec(backward_velocity={"weight": 1}, height={"weight": 1, "above": 1})).name == "envpool"
    hop = spec(air_time={"weight": 1, "longest": 0.3})
    choice = chosen(hop)
    assert choice.name != "envpool" and "EnvPool does not return the simulator's flight" in choice.reason
    assert chosen(spec(air_time={"weight": 0, "longest": 0.3})).name == "envpool", "what weighs nothing"
    with pytest.raises(
        UserError, match=r"env\.backend=envpool: EnvPool does not return the simulator's flight"
    ):
        chosen(hop, backend="envpool")


@pytest.mark.parametrize(
    ("env_id", "terms", "said"),
    [
        ("CartPole-v1", {"air_time": {"weight": 1, "longest": 1}}, "air_time: .*not a MuJoCo environment"),
        ("CartPole-v1", {"forward_velocity": {"weight": 1}}, "no 'x_velocity'; it has: nothing"),
        ("Pendulum-v1", {"target_speed": {"weight": 1, "speed": 1, "tolerance": 1}}, "has no 'x_velocity'"),
    ],
)
def test_a_missing_quantity_is_refused_before_a_run(env_id: str, terms: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        chosen(spec(**terms), env_id)


def test_a_term_of_continuous_actions_is_refused_for_discrete_ones() -> None:
    with pytest.raises(UserError, match=r"reward\.terms\.energy: needs continuous actions.*takes action"):
        make("gymnasium", spec(energy={"weight": 1}), "CartPole-v1")
