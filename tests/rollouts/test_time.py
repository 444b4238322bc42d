"""Where the time of an iteration goes, by a clock that only moves where something is done."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pgx.algos.common.advantages import gae_batch
from pgx.compiler import Eager
from pgx.core.specs import Continuous, Discrete
from pgx.envs.vector import Step
from pgx.rollouts import collector
from pgx.rollouts.collector import RolloutBuffer, RolloutCollector
from pgx.training import health
from pgx.training import loop as iterations
from pgx.training.loop import iterate
from tests.algos.common import test_advantages
from tests.rollouts.test_collector import agent_for


class Clock:
    """Seconds that pass where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def after(self, seconds: float, result: Any) -> Any:
        """Give a result that took so long."""
        self.now += seconds
        return result


def test_shares_of_time_are_of_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting takes 30 s, of which 16 environments and 8 the policy; the look 5 s, the update 40, health 25."""
    clock, agent, rollout = (
        Clock(),
        test_advantages.agent_for(Continuous((3,))),
        test_advantages.rollout_with_ends(0),
    )
    batch = gae_batch(agent, rollout, 0.9, 0.8, normalize=False)
    learner: Any = SimpleNamespace(engine=Eager(), gradient_steps=0)
    envs = SimpleNamespace(action_spec=Discrete(2))
    monkeypatch.setattr(iterations, "time", clock)
    measure = health.measure
    monkeypatch.setattr(health, "measure", lambda *given: clock.after(25.0, measure(*given)))
    runner: Any = SimpleNamespace(env_seconds=100.0, policy_seconds=200.0, metrics=dict, envs=envs)

    def collect(agent: Any) -> Any:
        runner.env_seconds += 16.0
        runner.policy_seconds += 8.0
        return clock.after(30.0, rollout)

    runner.collect = collect
    rule: Any = SimpleNamespace(
        estimate=lambda agent, rollout: clock.after(5.0, batch),
        update=lambda *given: clock.after(40.0, {}),
    )
    _, metrics = iterate(agent, rule, learner, runner, 0.0, 0.2, None, lambda rollout: True)
    assert metrics is not None
    parts = ("environment_fraction", "policy_fraction", "update_fraction", "health_fraction")
    assert {key: metrics[key] for key in parts} == {
        "environment_fraction": 0.16,
        "policy_fraction": 0.08,
        "update_fraction": 0.40,
        "health_fraction": 0.30,
    }


class Slow:
    """Two environments: taking an action lasts 1 s, what it leads to 10 s more."""

    id, backend, num_envs = "Slow-v0", "test", 2
    obs_spec, action_spec = Continuous((3,)), Discrete(2)
    action_mask = success = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def reset(self, seed: int) -> np.ndarray:
        return np.zeros((2, 3), np.float32)

    def send(self, action: np.ndarray) -> None:
        self.clock.now += 1.0

    def receive(self) -> Step:
        never = np.zeros(2, dtype=bool)
        return self.clock.after(10.0, Step(np.zeros((2, 3), np.float32), np.zeros(2), never, never))  # type: ignore[no-any-return]

    def close(self) -> None:
        """Nothing was opened."""


def test_the_environments_and_the_policy_take_the_time_that_each_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(collector, "time", clock)
    envs: Any = Slow(clock)
    agent, taken = agent_for(envs, "mlp"), RolloutCollector(envs, None, 0, 0, torch.device("cpu"), Eager())
    taken.begin(0)
    taken.advance(agent, RolloutBuffer(room=9), 1)  # the first step also asks for the shape of the noise
    began = taken.env_seconds, taken.policy_seconds
    assert isinstance(agent.policy, torch.nn.Module)
    agent.policy.register_forward_hook(lambda module, given, result: clock.after(100.0, result))
    taken.advance(agent, RolloutBuffer(room=9), 3)
    assert (taken.env_seconds - began[0], taken.policy_seconds - began[1]) == (33.0, 300.0)
