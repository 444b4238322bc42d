"""Actors of Ray on a cluster of several nodes on this machine: equal steps, and the effects of lost nodes."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from pgx.core.agent import Agent
from pgx.core.data import Rollout
from pgx.core.errors import RunError, UserError, WorkersLost
from pgx.distributed.ray_cluster import LOG_FILTER_VARIABLE
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.trainer import Trainer
from tests.conftest import Make
from tests.processes import assert_only_stopping, is_running, wait_until
from tests.system.test_actor_learner import ECHO, LAGGING, LARGE_STEPS, NO_LAG, actors_of, update
from tests.system.test_actor_processes import children, training
from tests.warm import pgx

with pytest.MonkeyPatch.context() as patch:
    patch.setenv(LOG_FILTER_VARIABLE, ".*")
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
slow = pytest.mark.slow  # all but one test, since a cluster starts slowly

MEMORY = 80 * 2**20  # bytes of a node's object store, close to Ray's minimum
ON_RAY = "runner.backend=ray"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a head node without CPUs and two nodes with one each, so that every actor has its own node."""
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "object_store_memory": MEMORY, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def start(make: Make) -> Iterator[Callable[..., Trainer]]:
    """Make trainers whose actors are stopped after the test."""
    trainers: list[Trainer] = []

    def trainer(*overrides: str, name: str = "run") -> Trainer:
        sized = "runner.rollout_steps=16"
        trainers.append(make("algo=vtrace", "runner=actor_learner", sized, *overrides, name=name))
        return trainers[-1]

    yield trainer
    for started in trainers:
        started.runner.close()


def on(cluster: Any) -> list[str]:
    return [ON_RAY, f"runner.address={cluster.address}"]


def actor_processes() -> set[int]:
    """Return the processes of actors among the descendants of this process."""
    return {pid for pid in children(os.getpid()) if b"RayActor" in command(pid)}


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def keep(trainer: Trainer, before: Callable[[], None]) -> list[Rollout]:
    """Return a list of all later rollouts of the trainer; `before` is called before each."""
    rollouts: list[Rollout] = []
    collect = trainer.runner.collect

    def collected(agent: Agent) -> Rollout:
        before()
        rollouts.append(collect(agent))
        return rollouts[-1]

    trainer.runner.collect = collected  # type: ignore[method-assign]
    return rollouts


# --- equal steps


@slow
@pytest.mark.parametrize(("workers", "env"), [(1, "CartPole-v1"), (2, "Pendulum-v1")])
def test_without_lag_they_equal_local_actors(
    cluster: Any, start: Callable[..., Trainer], workers: int, env: str
) -> None:
    """Also after a reset, which keeps the random streams."""
    sized = [f"runner.{key}={workers}" for key in ("workers", "trajectories", "queue")]
    there = start(f"env={env}", *sized, *LARGE_STEPS, *on(cluster), name="there")
    here = start(f"env={env}", *sized, *LARGE_STEPS, name="here")
    for i in range(6):
        local, remote = here.runner.collect(here.agent), there.runner.collect(there.agent)
        for name, column in vars(local).items():
            assert column is None or torch.equal(column, getattr(remote, name)), (i, name)
        assert there.runner.metrics()["policy_lag_max"] == 0
        for trainer, rollout in ((here, local), (there, remote)):
            update(trainer, rollout)
            if i == 3:
                trainer.runner.begin(i)
    assert [str(e) for e in actors_of(here).episodes] == [str(e) for e in actors_of(there).episodes]


@slow
def test_the_lag_is_bounded_by_the_queue_and_reaches_its_bound(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start(*ECHO, *LAGGING, *on(cluster))
    runner, lags = actors_of(trainer), []
    for _ in range(6):
        rollout = runner.collect(trainer.agent)
        lags.append(runner.metrics()["policy_lag_max"])
        wait_until(lambda: runner.actors.finished() == 4)
        update(trainer, rollout)
    assert max(lags) == lags[-1] == 2


# --- lost actors and nodes


@pytest.mark.parametrize("steps", [16, pytest.param(1500, marks=slow)])
def test_a_node_removed_during_a_run_loses_and_repeats_no_step(
    cluster: Any, start: Callable[..., Trainer], steps: int, tmp_path: Path
) -> None:
    """Trajectories of 1500 steps are stored on the node of their actor, and are lost with it if not yet taken."""
    total = 12 * steps * 4
    length = [f"runner.rollout_steps={steps}", f"trainer.total_steps={total}", "logger.every=1"]
    patient = "runner.connect_seconds=300"  # Ray is slow while other tests run
    trainer = start(*ECHO, *LAGGING, *on(cluster), *length, patient, "trainer.checkpoint_every=null")
    first, first_actors = next(iter(cluster.worker_nodes)), actor_processes()

    def lose() -> None:
        if trainer.counters.iterations == 4:
            time.sleep(3)  # until the queue is full
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            cluster.remove_node(first, allow_graceful=False)

    rollouts = keep(trainer, lose)
    summary = trainer.train()
    # Number of the episode, step and action identify a step.
    seen = [tuple(row.tolist()) for rollout in rollouts for row in rollout.next_obs[rollout.valid]]
    assert summary["status"] == "finished" and len(first_actors) == 2
    assert summary["steps"] == sum(rollout.steps for rollout in rollouts) == len(seen) == len(set(seen))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["rollout/worker_restarts"] == 1
    wait_until(lambda: not actor_processes())  # Ray stops processes with a delay


@slow
def test_a_restarted_actor_uses_new_random_streams_and_others_continue(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start(*ECHO, *NO_LAG, *on(cluster))
    runner = actors_of(trainer)
    first = runner.collect(trainer.agent)
    os.kill(min(actor_processes()), signal.SIGKILL)
    second = runner.collect(trainer.agent)
    anew = [i for i in (0, 2) if int(second.time[0, i]) == 0]
    (i,) = anew
    assert not torch.equal(first.action[:, i : i + 2], second.action[:, i : i + 2])
    assert torch.equal(first.next_obs[-1, 2 - i : 4 - i], second.obs[0, 2 - i : 4 - i])


@slow
def test_without_restarts_left_the_run_ends_with_a_checkpoint(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    """Two actors that exit once each are two restarts, although Ray counts per actor."""
    limits = ["runner.max_restarts=1", "trainer.total_steps=1000000", "trainer.checkpoint_every=null"]
    trainer = start("env=CartPole-v1", *LAGGING, *on(cluster), *limits)
    first_actors = sorted(actor_processes())

    def kill_one() -> None:
        if trainer.counters.iterations in (3, 6):
            os.kill(first_actors[trainer.counters.iterations // 3 - 1], signal.SIGKILL)

    keep(trainer, kill_one)
    with pytest.raises(WorkersLost, match=r"actors exited 2 times; no restarts left, runner.max_restarts=1"):
        trainer.train()
    state = trainer.writer.checkpoints.load("last")
    assert state["counters"]["steps"] == trainer.counters.steps > 0
    wait_until(lambda: not actor_processes())


@slow
def test_an_actor_that_must_not_be_restarted_ends_the_run(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start("env=CartPole-v1", *NO_LAG, *on(cluster), "runner.max_restarts=0")
    trainer.runner.collect(trainer.agent)
    os.kill(min(actor_processes()), signal.SIGKILL)
    with pytest.raises(WorkersLost, match=r"actor \d is lost: .*died; runner.max_restarts=0") as caught:
        trainer.runner.collect(trainer.agent)
    assert len(str(caught.value).splitlines()) == 1


@slow
def test_a_lost_node_without_replacement_ends_the_run_after_the_time_limit(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start("env=CartPole-v1", *NO_LAG, *on(cluster), "runner.connect_seconds=20")
    trainer.runner.collect(trainer.agent)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    try:
        pattern = r"no room for 2 actors in runner.connect_seconds=20; each takes 1 CPU .* the cluster has 1"
        with pytest.raises(WorkersLost, match=pattern):
            trainer.runner.collect(trainer.agent)
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)


@slow
def test_an_exception_of_an_environment_ends_the_run_with_its_traceback(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    kwargs = "env.kwargs={at: step, what: raise, number: 0}"
    trainer = start("env=tests.envs.troubles:Trouble-v0", kwargs, *NO_LAG, *on(cluster))
    with pytest.raises(RunError, match=r"robot \d+ fell.*actor \d") as caught:
        trainer.runner.collect(trainer.agent)
    assert not isinstance(caught.value, WorkersLost)
    assert 'troubles.py", line' in str(caught.value.__cause__)


# --- addresses and resources


@slow
def test_a_cluster_without_room_for_all_actors_is_refused_with_its_cpus(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    with pytest.raises(
        UserError, match=r"runner.workers=4: .*=15 Ray found room for 2; .* the cluster has 2"
    ):
        start("env=CartPole-v1", "runner.workers=4", *on(cluster), "runner.connect_seconds=15")
    wait_until(lambda: not actor_processes())


@slow
@pytest.mark.parametrize("answers", [False, True])
def test_an_address_without_answer_is_one_error(tmp_path: Path, answers: bool) -> None:
    with socket.socket() as listener:  # accepts connections and does not answer
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if answers:
            listener.listen()
        where = [ON_RAY, f"runner.address=127.0.0.1:{port}", "runner.connect_seconds=5"]
        result = pgx("train", "algo=impala", "env=CartPole-v1", "run_dir=run", *where, cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"pgx: error: runner.address=127.0.0.1:{port}: no Ray cluster answered")
    assert not (tmp_path / "run").exists()


@slow
def test_a_run_on_the_auto_cluster_prints_no_messages_of_ray(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when an actor exits, which the metrics show."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # as `ray start` sets it on its machine
    with training(tmp_path / "run", ON_RAY, "runner.address=auto", "logger.console=plain") as (process, _):
        os.kill(min(actor_processes()), signal.SIGKILL)
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_until(lambda: read_rows(metrics)[-1]["rollout/worker_restarts"] == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert_only_stopping(err)
    assert "raylet" not in out and "RayActor" not in out
    wait_until(lambda: not actor_processes())


@slow
def test_ctrl_c_stops_a_ray_that_the_run_started(tmp_path: Path) -> None:
    with training(tmp_path / "run", ON_RAY) as (process, below):
        assert sum(b"RayActor" in command(pid) for pid in below) == 2
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr is not None
        assert_only_stopping(process.stderr.read())
        wait_until(lambda: not any(map(is_running, below)))
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


@slow
def test_a_ray_that_the_run_started_stops_with_a_killed_learner(tmp_path: Path) -> None:
    """All at once, except Ray's agents, which try to report for a minute."""
    with training(tmp_path / "run", ON_RAY) as (process, below):
        agents = {pid for pid in below if b"Agent" in command(pid)}
        process.kill()
        wait_until(lambda: not any(is_running(pid) for pid in below if pid not in agents))
        for _ in range(3):
            with suppress(AssertionError):
                wait_until(lambda: not any(map(is_running, agents)))
        assert not any(map(is_running, below))
        assert process.stderr is not None and process.stderr.read() == ""
