"""Actors of Ray's, on a real cluster of several nodes on this machine: the same steps, and what a lost node costs."""

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
from pgx.runs.loggers.jsonl import read
from pgx.training.trainer import Trainer
from tests.conftest import Make
from tests.processes import assert_only_stopping, is_running, wait_until
from tests.system.test_actor_learner import EAGER, ECHO, PROMPT, STEEP, actors_of, update
from tests.system.test_actor_processes import children, training
from tests.warm import pgx

with pytest.MonkeyPatch.context() as patch:
    patch.setenv(LOG_FILTER_VARIABLE, ".*")
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
slow = pytest.mark.slow  # all but one: a cluster takes a while to begin

MEMORY = 80 * 2**20  # bytes of a node's object store, near the least that Ray takes
ON_RAY = "runner.backend=ray"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and two nodes of one each: every actor has a node of its own."""
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
    """Trainers whose actors end with the test."""
    made: list[Trainer] = []

    def trainer(*overrides: str, name: str = "run") -> Trainer:
        sized = "runner.rollout_steps=16"
        made.append(make("algo=vtrace", "runner=actor_learner", sized, *overrides, name=name))
        return made[-1]

    yield trainer
    for each in made:
        each.runner.close()


def on(cluster: Any) -> list[str]:
    return [ON_RAY, f"runner.address={cluster.address}"]


def acting() -> set[int]:
    """Processes of actors below this one."""
    return {pid for pid in children(os.getpid()) if b"RayActor" in command(pid)}


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def keep(trainer: Trainer, before: Callable[[], None]) -> list[Rollout]:
    """All that the trainer collects from now on; `before` is called each time it is about to."""
    kept: list[Rollout] = []
    collect = trainer.runner.collect

    def collected(agent: Agent) -> Rollout:
        before()
        kept.append(collect(agent))
        return kept[-1]

    trainer.runner.collect = collected  # type: ignore[method-assign]
    return kept


# --- the same steps


@slow
@pytest.mark.parametrize(("workers", "env"), [(1, "CartPole-v1"), (2, "Pendulum-v1")])
def test_without_lag_they_equal_local_actors(
    cluster: Any, start: Callable[..., Trainer], workers: int, env: str
) -> None:
    """Over a new beginning too, which takes the streams along."""
    sized = [f"runner.{key}={workers}" for key in ("workers", "trajectories", "queue")]
    there = start(f"env={env}", *sized, *STEEP, *on(cluster), name="there")
    here = start(f"env={env}", *sized, *STEEP, name="here")
    for i in range(6):
        ours, theirs = here.runner.collect(here.agent), there.runner.collect(there.agent)
        for name, column in vars(ours).items():
            assert column is None or torch.equal(column, getattr(theirs, name)), (i, name)
        assert there.runner.metrics()["policy_lag_max"] == 0
        for trainer, rollout in ((here, ours), (there, theirs)):
            update(trainer, rollout)
            if i == 3:
                trainer.runner.begin(i)
    assert [str(e) for e in actors_of(here).episodes] == [str(e) for e in actors_of(there).episodes]


@slow
def test_the_lag_is_bounded_by_the_queue_and_reaches_its_bound(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start(*ECHO, *EAGER, *on(cluster))
    runner, lags = actors_of(trainer), []
    for _ in range(6):
        rollout = runner.collect(trainer.agent)
        lags.append(runner.metrics()["policy_lag_max"])
        wait_until(lambda: runner.actors.finished() == 4)
        update(trainer, rollout)
    assert max(lags) == lags[-1] == 2


# --- what is lost, and what is not


@pytest.mark.parametrize("steps", [16, pytest.param(1500, marks=slow)])
def test_a_node_removed_during_a_run_loses_and_repeats_no_step(
    cluster: Any, start: Callable[..., Trainer], steps: int, tmp_path: Path
) -> None:
    """Trajectories of 1500 steps lie in the store of the node that made them, and what nobody took is lost with it."""
    total = 12 * steps * 4
    length = [f"runner.rollout_steps={steps}", f"trainer.total_steps={total}", "logger.every=1"]
    patient = "runner.connect_seconds=300"  # other tests run meanwhile, and Ray takes its time
    trainer = start(*ECHO, *EAGER, *on(cluster), *length, patient, "trainer.checkpoint_every=null")
    first, began = next(iter(cluster.worker_nodes)), acting()

    def lose() -> None:
        if trainer.counters.iterations == 4:
            time.sleep(3)  # for the queue to fill
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            cluster.remove_node(first, allow_graceful=False)

    kept = keep(trainer, lose)
    summary = trainer.train()
    # An episode's number, the step's and the action: what two steps do not share.
    seen = [tuple(row.tolist()) for rollout in kept for row in rollout.next_obs[rollout.valid]]
    assert summary["status"] == "finished" and len(began) == 2
    assert summary["steps"] == sum(rollout.steps for rollout in kept) == len(seen) == len(set(seen))
    rows = read(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["rollout/worker_restarts"] == 1
    wait_until(lambda: not acting())  # Ray ends a process in its own time


@slow
def test_a_restarted_actor_uses_new_random_streams_and_others_continue(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start(*ECHO, *PROMPT, *on(cluster))
    runner = actors_of(trainer)
    first = runner.collect(trainer.agent)
    os.kill(min(acting()), signal.SIGKILL)
    second = runner.collect(trainer.agent)
    anew = [i for i in (0, 2) if int(second.time[0, i]) == 0]
    (i,) = anew
    assert not torch.equal(first.action[:, i : i + 2], second.action[:, i : i + 2])
    assert torch.equal(first.next_obs[-1, 2 - i : 4 - i], second.obs[0, 2 - i : 4 - i])


@slow
def test_without_restarts_left_the_run_ends_with_a_checkpoint(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    """Two actors that die once each are two deaths, though Ray counts them apart."""
    limits = ["runner.max_restarts=1", "trainer.total_steps=1000000", "trainer.checkpoint_every=null"]
    trainer = start("env=CartPole-v1", *EAGER, *on(cluster), *limits)
    began = sorted(acting())

    def unlucky() -> None:
        if trainer.counters.iterations in (3, 6):
            os.kill(began[trainer.counters.iterations // 3 - 1], signal.SIGKILL)

    keep(trainer, unlucky)
    with pytest.raises(WorkersLost, match=r"actors exited 2 times; no restarts left, runner.max_restarts=1"):
        trainer.train()
    state = trainer.checkpoints.load("last")
    assert state["counters"]["steps"] == trainer.counters.steps > 0
    wait_until(lambda: not acting())


@slow
def test_an_actor_that_must_not_be_restarted_ends_the_run(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start("env=CartPole-v1", *PROMPT, *on(cluster), "runner.max_restarts=0")
    trainer.runner.collect(trainer.agent)
    os.kill(min(acting()), signal.SIGKILL)
    with pytest.raises(WorkersLost, match=r"actor \d is lost: .*died; runner.max_restarts=0") as caught:
        trainer.runner.collect(trainer.agent)
    assert len(str(caught.value).splitlines()) == 1


@slow
def test_a_lost_node_without_replacement_ends_the_run_after_the_time_limit(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    trainer = start("env=CartPole-v1", *PROMPT, *on(cluster), "runner.connect_seconds=20")
    trainer.runner.collect(trainer.agent)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    try:
        said = r"no room for 2 actors in runner.connect_seconds=20; each takes 1 CPU .* the cluster has 1"
        with pytest.raises(WorkersLost, match=said):
            trainer.runner.collect(trainer.agent)
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)


@slow
def test_an_exception_of_an_environment_ends_the_run_with_its_traceback(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    kwargs = "env.kwargs={at: step, what: raise, number: 0}"
    trainer = start("env=tests.envs.troubles:Trouble-v0", kwargs, *PROMPT, *on(cluster))
    with pytest.raises(RunError, match=r"robot \d+ fell.*actor \d") as caught:
        trainer.runner.collect(trainer.agent)
    assert not isinstance(caught.value, WorkersLost)
    assert 'troubles.py", line' in str(caught.value.__cause__)


# --- where


@slow
def test_a_cluster_without_room_for_all_actors_is_refused_with_its_cpus(
    cluster: Any, start: Callable[..., Trainer]
) -> None:
    with pytest.raises(
        UserError, match=r"runner.workers=4: .*=15 Ray found room for 2; .* the cluster has 2"
    ):
        start("env=CartPole-v1", "runner.workers=4", *on(cluster), "runner.connect_seconds=15")
    wait_until(lambda: not acting())


@slow
@pytest.mark.parametrize("answers", [False, True])
def test_an_address_without_answer_is_one_error(tmp_path: Path, answers: bool) -> None:
    with socket.socket() as listener:  # it takes connections, and then says nothing
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if answers:
            listener.listen()
        where = [ON_RAY, f"runner.address=127.0.0.1:{port}", "runner.connect_seconds=5"]
        said = pgx("train", "algo=impala", "env=CartPole-v1", "run_dir=run", *where, cwd=tmp_path)
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith(f"pgx: error: runner.address=127.0.0.1:{port}: no Ray cluster answered")
    assert not (tmp_path / "run").exists()


@slow
def test_a_run_on_the_auto_cluster_prints_no_messages_of_ray(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when an actor dies: the metrics tell of it."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # as `ray start` notes it for its machine
    with training(tmp_path / "run", ON_RAY, "runner.address=auto", "logger.console=plain") as (process, _):
        os.kill(min(acting()), signal.SIGKILL)
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_until(lambda: read(metrics)[-1]["rollout/worker_restarts"] == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert_only_stopping(err)
    assert "raylet" not in out and "RayActor" not in out
    wait_until(lambda: not acting())


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
    """All at once but for Ray's agents, which look for a minute for those whom they could tell."""
    with training(tmp_path / "run", ON_RAY) as (process, below):
        agents = {pid for pid in below if b"Agent" in command(pid)}
        process.kill()
        wait_until(lambda: not any(is_running(pid) for pid in below if pid not in agents))
        for _ in range(3):
            with suppress(AssertionError):
                wait_until(lambda: not any(map(is_running, agents)))
        assert not any(map(is_running, below))
        assert process.stderr is not None and process.stderr.read() == ""
