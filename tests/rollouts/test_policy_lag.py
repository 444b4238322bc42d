"""SyncRunner with policy lag: the behaviour policy of a rollout, and the queue of waiting rollouts."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pgx.algos.common.advantages import rollout_observations
from pgx.core.agent import Agent
from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters, resumed_run

SMALL = ["algo=a2c", "runner.rollout_steps=16", "optimizer.learning_rate=1e-2"]
LAGS = [0, 1, 3]


def log_prob(agent: Agent, rollout: Rollout) -> Tensor:
    distribution = agent.policy(rollout_observations(agent, rollout))
    return distribution.log_prob(rollout.action[rollout.valid]).detach()


def iterate(trainer: Trainer) -> Rollout:
    """Run one iteration as the trainer does, and return its rollout."""
    rollout = trainer.runner.collect(trainer.agent)
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    trainer.agent.normalizer.observe(rollout.obs[rollout.valid])
    return rollout


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("env", ["env=CartPole-v1", "env=Pendulum-v1"])
def test_a_rollout_is_from_the_agent_of_lag_updates_ago(make: Make, env: str, lag: int) -> None:
    """Both policy and normalizer; the first lag + 1 rollouts are from the initial agent."""
    trainer = make(*SMALL, env, f"runner.lag={lag}")
    agents: list[Agent] = []
    for i in range(7):
        agents.append(copy.deepcopy(trainer.agent))
        rollout = iterate(trainer)
        matches = [
            bool((log_prob(agent, rollout) - rollout.log_prob[rollout.valid]).abs().max() < 2e-5)
            for agent in agents
        ]
        assert [k for k, match in enumerate(matches) if match] == [max(0, i - lag)]


def test_a_lag_changes_nothing_before_the_first_update_and_loses_no_step(make: Make) -> None:
    no_lag, lagging = (make(*SMALL, "env=CartPole-v1", f"runner.lag={lag}", name=f"{lag}") for lag in (0, 3))
    first, same = (trainer.runner.collect(trainer.agent) for trainer in (no_lag, lagging))
    assert all(
        torch.equal(a, b)
        for a, b in zip(vars(first).values(), vars(same).values(), strict=True)
        if a is not None
    )
    for _ in range(6):
        following = lagging.runner.collect(lagging.agent)
        assert torch.equal(same.next_obs[-1], following.obs[0])
        same = following


@pytest.mark.parametrize("lag", LAGS)
def test_the_first_collection_fills_the_queue(make: Make, lag: int) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", f"runner.lag={lag}")
    taken, send = [0], trainer.runner.envs.send

    def counting(action: object) -> None:
        taken[0] += 1
        send(action)

    trainer.runner.envs.send = counting
    for expected in (16 * (lag + 1), 16, 16):
        taken[0] = 0
        trainer.runner.collect(trainer.agent)
        assert taken[0] == expected
        assert len(trainer.runner.state_dict()["waiting"]) == lag


@pytest.mark.parametrize("lag", LAGS)
def test_steps_count_when_they_are_learned_from(make: Make, tmp_path: Path, lag: int) -> None:
    trainer = make(*SMALL, "env=Pendulum-v1", f"runner.lag={lag}", "logger.every=1")
    returned, collect = [], trainer.runner.collect

    def keeping(agent: Agent) -> Rollout:
        returned.append(collect(agent))
        return returned[-1]

    trainer.runner.collect = keeping
    summary = trainer.train()
    assert summary["steps"] == sum(rollout.steps for rollout in returned)
    assert summary["iterations"] == len(returned) == 8  # 512 steps, 64 an iteration
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [
        64 * i for i in range(1, 9)
    ]
    assert float(trainer.agent.normalizer.moments.count) == summary["steps"]


@pytest.mark.parametrize("name", [pytest.param("vtrace", marks=pytest.mark.system), "a2c"])
def test_a_resumed_run_with_lag_ends_with_the_same_bits(make: Make, tmp_path: Path, name: str) -> None:
    settings = [
        f"algo={name}",
        "env=Hopper-v4",
        "runner.rollout_steps=16",
        "runner.lag=2",
        "trainer.total_steps=1500",
        "trainer.checkpoint_every=500",
        "logger.every=1",
    ]
    whole = make(*settings, name="whole")
    whole.train()
    again = resumed_run(make, *settings, at=500)
    assert len(again.writer.checkpoints.load("last")["runner"]["waiting"]) == 2
    assert torch.equal(parameters(whole), parameters(again))
    rows = [read_rows(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut")]
    stripped = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in run] for run in rows]
    assert stripped[0] == stripped[1]


def test_waiting_rollouts_of_older_checkpoints_have_their_recurrent_state(make: Make) -> None:
    """pgx 0.1 stored `recurrent_state` and `shard` under the names `memory` and `share`."""
    settings = ["algo=vtrace", *SMALL[1:2], "env=CartPole-v1", "runner.lag=1", "policy=gru"]
    trainer = make(*settings, "policy.sequence_length=16")
    trainer.runner.collect(trainer.agent)
    state = trainer.runner.state_dict()
    (waiting,) = state["waiting"]
    old = {"recurrent_state": "memory", "shard": "share"}
    renamed = {old.get(name, name): x for name, x in waiting.items()}
    trainer.runner.load_state_dict(state | {"waiting": [renamed]})
    loaded = trainer.runner.collect(trainer.agent).recurrent_state
    assert waiting["recurrent_state"] is not None and torch.equal(loaded, waiting["recurrent_state"])


def test_a_negative_or_fractional_lag_is_refused(make: Make) -> None:
    for wrong in ("-1", "1.5"):
        with pytest.raises(UserError, match=r"runner\.lag"):
            make(*SMALL, "env=CartPole-v1", f"runner.lag={wrong}")
