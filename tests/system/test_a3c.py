"""A3C: concurrent workers lose no update and count none twice, and a killed worker is replaced."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pgx.cli.eval import evaluate
from pgx.config.compose import compose
from pgx.config.validate import problems_of
from pgx.core.errors import RunError, WorkersLost
from pgx.distributed.shared_memory import allocate
from pgx.runs.loggers.jsonl import read_rows
from pgx.runs.writer import PendingCheckpoint
from pgx.training.a3c import A3C, StartCommand, Worker
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters
from tests.processes import is_running, wait_until

CARTPOLE = ["env=CartPole-v1", "trainer.compile=false"]
AS_IT_COMES = [
    "env.normalize_obs=false",
    "env.scale_reward=false",
]  # workers receive statistics at varying times


def company(trainer: Trainer) -> A3C:
    assert isinstance(trainer.runner, A3C)
    return trainer.runner


def pids(trainer: Trainer) -> list[int]:
    workers = company(trainer).workers
    assert workers is not None
    return workers.pids


def at_iteration(trainer: Trainer, number: int, do: Callable[[], None]) -> None:
    """Call a function after a number of reported iterations."""
    original = trainer.loop.next

    def wrapped(counters: object) -> object:
        if trainer.counters.iterations == number:
            do()
        return original(counters)

    trainer.loop.next = wrapped


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=a2c", "optimizer.schedule=linear", "critic_optimizer.schedule=cosine"],
        pytest.param(
            ["algo=a2c", "optimizer=adam", "critic_optimizer=sgd", "critic_optimizer.momentum=0.9"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["algo=actor_critic", "algo.critic_steps=2"], marks=pytest.mark.slow),
        ["algo=vtrace"],
    ],
    ids=lambda o: " ".join(o[:2]),
)
def test_one_worker_equals_the_synchronous_run_to_the_bit(make: Make, overrides: list[str]) -> None:
    """Rollouts, gradients, annealed learning rates and steps are equal."""
    settings = [*overrides, *CARTPOLE, *AS_IT_COMES, "trainer.total_steps=600"]
    alone = make(*settings, "runner=sync", "runner.rollout_steps=5", name="sync")
    start = parameters(alone)
    alone.train()
    worker = make(*settings, "runner=a3c", "runner.rollout_steps=5", "runner.workers=1", name="a3c")
    worker.train()
    assert not torch.equal(start, parameters(alone))
    assert torch.equal(parameters(alone), parameters(worker))
    one, two = alone.learner.state_dict(), worker.learner.state_dict()
    for group in ("optimizer", "critic_optimizer"):
        assert all(map(torch.equal, one[group]["moments"], two[group]["moments"]))
    rows = [read_rows(trainer.run_dir / "metrics.jsonl") for trainer in (alone, worker)]
    own = {"rollout/policy_lag", "rollout/worker_restarts"}
    assert rows[1][0].keys() - rows[0][0].keys() == own
    assert all(row["rollout/policy_lag"] == 0 for row in rows[1])
    untimed = [
        [{k: v for k, v in row.items() if not k.startswith("time/") and k not in own} for row in run]
        for run in rows
    ]
    assert untimed[0] == untimed[1]


def test_no_update_is_lost_or_counted_twice(make: Make) -> None:
    warmup = "env.normalizer_warmup_steps=100"
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=3000", "trainer.checkpoint_every=700", warmup)
    trainer.train()
    counters, common = trainer.counters, company(trainer).shared
    assert int(common.steps.sum()) == counters.steps == int(trainer.agent.normalizer.moments.count)
    assert int(common.updates.sum()) == counters.iterations
    assert bool((common.updates > 0).all())
    assert counters.steps < 3000 + 2 * 2 * 5  # each worker may be in an update when another reaches the end
    # In CartPole the reward is 1 per step; scaled returns include every step.
    scaler = company(trainer).reward_scaler
    assert scaler is not None and float(scaler.moments.count) == counters.steps


def test_workers_pause_at_each_checkpoint(make: Make) -> None:
    settings = ["trainer.total_steps=2000", "trainer.checkpoint_every=700", "runner.workers=2"]
    trainer = make("algo=a3c", *CARTPOLE, *settings)
    following = trainer.loop.next

    def late(counters: object) -> object:
        time.sleep(0.01)  # workers make some updates meanwhile
        return following(counters)

    trainer.loop.next = late
    trainer.train()
    saved = sorted(int(name.split("_")[1]) for name in trainer.writer.checkpoints.names() if "step" in name)
    assert len(saved) == 3
    for steps, multiple in zip(saved, (700, 1400, 2000), strict=True):
        assert multiple <= steps < multiple + 2 * 2 * 5  # one update of each worker


@pytest.mark.slow
def test_workers_learn_from_different_episodes_at_once(make: Make) -> None:
    """All updates are logged; some used parameters that other workers had changed meanwhile."""
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=4000", "logger.every=1", "runner.workers=2")
    trainer.train()
    rows = read_rows(trainer.run_dir / "metrics.jsonl")
    assert len(rows) == trainer.counters.iterations
    lags = [row["rollout/policy_lag"] for row in rows]
    assert min(lags) >= 0 and sum(lags) > 0
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


@pytest.mark.slow
def test_the_rate_falls_with_the_steps_of_all(make: Make) -> None:
    """The rate is 1 - (steps of all workers) / budget; with the steps of one worker it would end near a half."""
    settings = ["trainer.total_steps=4000", "logger.every=1", "optimizer.schedule=linear"]
    trainer = make("algo=a3c", *CARTPOLE, *settings, "runner.workers=2")
    trainer.train()
    rows = read_rows(trainer.run_dir / "metrics.jsonl")
    full = 7e-4
    for row in rows:
        # A report arrives a little after its progress was read.
        done = 1 - row["algo/learning_rate"] / full
        assert -0.1 < row["step"] / 4000 - done < 0.1
    assert min(row["algo/learning_rate"] for row in rows) < 0.1 * full


def test_a_killed_worker_is_replaced_and_the_run_finishes(make: Make) -> None:
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=4000", "runner.max_restarts=2")
    killed: list[int] = []

    def kill() -> None:
        killed.append(pids(trainer)[len(killed)])
        os.kill(killed[-1], signal.SIGKILL)

    at_iteration(trainer, 30, kill)
    at_iteration(trainer, 90, kill)
    summary = trainer.train()
    assert summary["status"] == "finished" and len(killed) == 2
    common, counters = company(trainer).shared, trainer.counters
    assert int(common.steps.sum()) == counters.steps == int(trainer.agent.normalizer.moments.count)
    assert int(common.updates.sum()) == counters.iterations
    rows = read_rows(trainer.run_dir / "metrics.jsonl")
    assert rows[-1]["rollout/worker_restarts"] == 2
    assert not any(map(is_running, killed))


def test_without_restarts_left_the_run_fails_with_a_checkpoint_and_no_orphans(
    make: Make, tmp_path: Path
) -> None:
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=1000000", "runner.max_restarts=0")
    alive: list[int] = []

    def kill() -> None:
        alive.extend(pids(trainer))
        os.kill(alive[1], signal.SIGKILL)

    at_iteration(trainer, 40, kill)
    with pytest.raises(WorkersLost, match=r"signal 9.*no restarts left, runner\.max_restarts=0"):
        trainer.train()
    wait_until(lambda: not any(map(is_running, alive)))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and "WorkersLost" in summary["error"]
    state = trainer.writer.checkpoints.load("last")
    assert state["counters"]["steps"] == summary["steps"] == state["runner"]["steps"] > 0
    assert summary["iterations"] >= 40
    again = make("algo=a3c", *CARTPOLE, "trainer.total_steps=2000")
    again.load_state_dict(state)
    assert again.train()["status"] == "finished"


def test_a_resumed_run_starts_with_the_saved_parameters_of_the_workers(make: Make) -> None:
    settings = ["algo=a3c", *CARTPOLE, "trainer.checkpoint_every=500"]
    first = make(*settings, "trainer.total_steps=1000")
    first.train()
    state = first.writer.checkpoints.load("last")
    assert state["counters"]["steps"] == first.counters.steps
    second = make(*settings, "trainer.total_steps=2000")
    assert not torch.equal(parameters(first), parameters(second))
    second.load_state_dict(state)
    assert torch.equal(parameters(first), parameters(second))
    second.runner.begin(second.counters.iterations)
    second.loop.pause()
    begun = company(second).shared
    assert int(begun.steps.sum()) >= first.counters.steps
    second.runner.close()
    third = make(*settings, "trainer.total_steps=2000")
    third.load_state_dict(state)
    third.train()
    assert third.counters.steps >= 2000
    assert int(third.agent.normalizer.moments.count) == third.counters.steps
    steps = [row["step"] for row in read_rows(third.run_dir / "metrics.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] > 1000


def test_a_resumed_run_of_one_worker_ends_with_the_bits_of_an_uninterrupted_one(make: Make) -> None:
    settings = ["algo=a3c", *CARTPOLE, *AS_IT_COMES, "runner.workers=1", "trainer.checkpoint_every=300"]
    settings += ["trainer.total_steps=900"]
    whole = make(*settings, name="whole")
    whole.train()
    cut = make(*settings, name="cut")
    saved = cut.writer.write_checkpoint

    def save_and_stop(unwritten: PendingCheckpoint) -> None:
        saved(unwritten)
        raise KeyboardInterrupt

    cut.writer.write_checkpoint = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert cut.counters.steps < 400
    resumed = make(*settings, name="cut")
    resumed.load_state_dict(resumed.writer.checkpoints.load("last"))
    resumed.train()
    assert torch.equal(parameters(whole), parameters(resumed))


def test_episodes_after_each_checkpoint_use_new_random_numbers(make: Make) -> None:
    """Otherwise workers would repeat the same few episodes."""
    trainer = make("algo=a3c", *CARTPOLE)
    plan, worlds = company(trainer).spec, []
    memory = allocate()
    for index, begin in (
        (0, StartCommand(0, 0)),
        (1, StartCommand(0, 0)),
        (0, StartCommand(9, 0)),
        (0, StartCommand(0, 1)),
        (0, StartCommand(0, 0)),
    ):
        worker = Worker(plan, memory, index, np.zeros(1, np.int64))
        worker.begin(begin)
        rollout = worker.runner.collect(worker.agent)
        worlds.append((rollout.obs[0], rollout.action))
        worker.envs.close()
    trainer.runner.close()
    os.close(memory)
    for i, one in enumerate(worlds[:4]):
        for two in worlds[:i]:
            assert not torch.equal(one[0], two[0]) and not torch.equal(one[1], two[1])
    assert torch.equal(worlds[0][0], worlds[4][0]) and torch.equal(worlds[0][1], worlds[4][1])


def test_a_stop_request_ends_the_run_with_a_checkpoint_and_no_orphans(make: Make) -> None:
    far = ["trainer.total_steps=1000000", "trainer.checkpoint_every=50000"]
    trainer = make("algo=a3c", *CARTPOLE, *far)
    alive: list[int] = []

    def stop() -> None:
        alive.extend(pids(trainer))
        trainer.stop_requested = True

    at_iteration(trainer, 20, stop)
    summary = trainer.train()
    assert summary["status"] == "interrupted" and summary["steps"] == int(company(trainer).shared.steps.sum())
    assert trainer.writer.checkpoints.load("last")["counters"]["steps"] == summary["steps"] < 40000
    assert len(alive) == 2 and not any(map(is_running, alive))


def test_an_environment_that_hangs_ends_the_run_with_its_place(make: Make) -> None:
    env = [
        "env=tests.envs.troubles:Trouble-v0",
        "env.kwargs={at: step, what: sleep}",
        "env.backend=gymnasium",
    ]
    trainer = make("algo=a3c", *env, "runner.workers=2", "env.worker_timeout=2")
    with pytest.raises(
        RunError, match=r"\(number \d\) has been in one call .* for 2 s, in _meet \(troubles.py:\d+\)"
    ):
        trainer.train()
    assert company(trainer).workers is None  # closed


def test_nan_parameters_end_the_run_and_are_not_saved(make: Make, tmp_path: Path) -> None:
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=100000", "trainer.checkpoint_every=400")

    def poison() -> None:
        company(trainer).shared.weights[1].fill_(torch.nan)

    at_iteration(trainer, 60, poison)
    with pytest.raises(RunError, match=r"parameters of the (policy|critic) NaN"):
        trainer.train()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    state = trainer.writer.checkpoints.load("last")
    assert all(bool(v.isfinite().all()) for net in ("policy", "critic") for v in state["agent"][net].values())


def test_a_run_can_be_evaluated_like_any_other(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make("algo=a3c", *CARTPOLE, "trainer.total_steps=600", "trainer.eval_every=200")
    trainer.train()
    run = [str(tmp_path / "run")]
    assert evaluate(run, [], "last", 4, None, ["deterministic"], 0, trust=False, as_json=False) == 0
    assert "4 deterministic episodes" in capsys.readouterr().out
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert sum("eval/episode_return" in row for row in rows) == trainer.counters.steps // 200


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.num_envs=4", "runner.workers=5"], r"runner.workers=5: more than env.num_envs=4.*at most 4"),
        (
            ["env.num_envs=6", "runner.workers=4"],
            r"6 / 4 = 1.50 environments each; set one of 1, 2, 3, 6",
        ),
        (["runner.workers=0"], r"runner.workers: expected"),
        (["critic_optimizer=lbfgs"], r"critic_optimizer=lbfgs: with runner=a3c .*one of adam"),
        (["trainer.on_nan=skip_update"], r"trainer.on_nan=skip_update: runner=a3c .*trainer.on_nan=stop"),
        (["device=cuda"], r"device=cuda: runner=a3c shares.*device=cpu"),
        (["algo=ppo", "runner=a3c"], r"runner=a3c: other workers change.*ppo.*algo=a3c.*runner=sync"),
        (["algo=trpo", "runner=a3c"], r"runner=a3c: other workers change.*trpo"),
    ],
)
def test_unsupported_configs_are_refused_with_the_reason(overrides: list[str], message: str) -> None:
    found = problems_of(compose(["algo=a3c", "env=CartPole-v1", *overrides]))
    assert any(re.search(message, problem) for problem in found), found


def test_workers_are_as_many_as_cores_and_environments_allow(make: Make) -> None:
    trainer = make("algo=a3c", *CARTPOLE, "env.num_envs=1")
    assert str(trainer.runner) == "1 workers x 1 environments x 5 steps"
    trainer.runner.close()
