"""Backend `processes`: results and messages equal those of `gymnasium`, and no process or file is left."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import tests.envs.troubles
from pgx.core.errors import RunError, UserError
from pgx.core.specs import Continuous, choice_sizes
from pgx.distributed.shared_memory import allocate
from pgx.distributed.worker_process import stop
from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.envs.make import choose_backend
from pgx.envs.process_backend import ProcessVector, _env_slices, _request_close, _start
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import AnyArray, VectorEnv, step
from tests.conftest import Make, parameters
from tests.processes import file_names, is_running, wait_until

ROOT = Path(__file__).parents[2]
TROUBLE = "tests.envs.troubles:Trouble-v0"
TIMEOUT = 60.0  # seconds, for workers that answer


@contextmanager
def processes(env_id: str, n: int, workers: int, **kwargs: Any) -> Iterator[ProcessVector]:
    envs = ProcessVector(env_id, n, kwargs, workers, TIMEOUT)
    try:
        yield envs
    finally:
        envs.close()


def pids(envs: ProcessVector) -> list[int]:
    return [worker.process.pid for worker in envs._workers]


def zero_actions(envs: VectorEnv) -> AnyArray:
    return np.zeros(envs.num_envs, np.int64)


def random_actions(rng: np.random.Generator, envs: VectorEnv) -> AnyArray:
    """Return random allowed actions; continuous ones exceed their bounds."""
    if isinstance(envs.action_spec, Continuous):
        return rng.uniform(-3, 3, (envs.num_envs, *envs.action_spec.shape)).astype(np.float32)
    sizes = choice_sizes(envs.action_spec)
    mask = envs.action_mask
    allowed = np.ones((envs.num_envs, sum(sizes)), bool) if mask is None else mask
    parts = np.split(allowed, np.cumsum(sizes)[:-1], axis=1)
    action = np.array([[rng.choice(np.flatnonzero(row)) for row in part] for part in parts]).T
    return action if len(sizes) > 1 else action[:, 0]


def equal(one: Any, two: Any) -> bool:
    if one is None or two is None:
        return one is two
    return bool(one.dtype == two.dtype and one.shape == two.shape and (one == two).all())


@pytest.mark.parametrize(
    ("env_id", "kwargs", "n", "workers"),
    [
        ("Walker2d-v5", {}, 5, 2),
        ("tests.environments:Counter-v0", {"cut": True}, 7, 3),
        ("tests.environments:TwoButtons-v0", {}, 2, 4),
        ("tests.environments:Catch-v0", {}, 3, 2),
        ("tests.environments:Masked-v0", {"several": True}, 4, 3),
        ("tests.environments:Masked-v0", {"shows": "even"}, 5, 2),
        ("tests.environments:Masked-v0", {"shows": "even"}, 1, 1),
        ("FrozenLake-v1", {}, 4, 2),
    ],
)
def test_results_equal_those_of_gymnasium_vector_to_the_bit(
    env_id: str, kwargs: dict[str, Any], n: int, workers: int
) -> None:
    here, rng, ends = GymnasiumVector(env_id, n, kwargs, first_index=0), np.random.default_rng(1), 0
    with processes(env_id, n, workers, **kwargs) as there:
        assert len(set(pids(there))) == min(n, workers)
        assert (there.obs_spec, there.action_spec) == (here.obs_spec, here.action_spec)
        for seed in (3, 8):
            first = there.reset(seed)
            kept = first.copy()
            assert equal(first, here.reset(seed)) and equal(there.action_mask, here.action_mask)
            for _ in range(300):
                action = random_actions(rng, here)
                one, two = step(there, action), step(here, action)
                assert all(equal(a, b) for a, b in zip(one, two, strict=True))
                assert equal(there.action_mask, here.action_mask)
                ends += int((two.terminated | two.truncated).sum())
            assert equal(first, kept)  # returned arrays are not overwritten
    assert ends > 10


@pytest.mark.parametrize("env", ["Walker2d-v5", "tests.environments:Masked-v0", "FrozenLake-v1"])
def test_a_run_has_the_same_parameters_with_both_backends(make: Make, env: str) -> None:
    learned = []
    for number, where in enumerate(
        (["env.backend=gymnasium"], ["env.backend=processes", "env.num_threads=2"])
    ):
        trainer = make("algo=ppo", f"env={env}", *where, "trainer.eval_every=256", name=f"run{number}")
        trainer.train()
        learned.append(parameters(trainer))
    assert torch.equal(*learned)


@pytest.mark.parametrize(("at", "what"), [("reset", "raise"), ("step", "raise"), ("step", "mask")])
def test_a_failing_environment_has_the_same_message_with_both_backends(at: str, what: str) -> None:
    """Environments 3 and 4 fail, in different workers; the message names 3."""
    messages = []
    kwargs = {"at": at, "what": what, "number": 3}
    with processes(TROUBLE, 5, 5, **kwargs) as there:
        for envs in (GymnasiumVector(TROUBLE, 5, kwargs, first_index=0), there):
            with pytest.raises(RunError) as caught:
                envs.reset(100)
                step(envs, zero_actions(envs))
            messages.append(str(caught.value))
            if what == "raise":
                assert envs is not there or 'troubles.py", line' in str(caught.value.__cause__)
                assert "robot 3 fell" in str(caught.value.__cause__)
    assert messages[0] == messages[1]
    assert "3" in messages[0]


def test_a_reset_after_a_failed_step_restarts_all_environments() -> None:
    with processes(TROUBLE, 3, 2, at="step", number=2) as envs:
        for _ in range(2):
            envs.reset(0)
            with pytest.raises(RunError, match="robot 2 fell"):
                step(envs, zero_actions(envs))


def test_a_failing_constructor_has_the_same_message_with_both_backends() -> None:
    messages = []
    for make_them in (
        lambda: GymnasiumVector(TROUBLE, 3, {"at": "constructor"}, first_index=0),
        lambda: ProcessVector(TROUBLE, 3, {"at": "constructor"}, 2, TIMEOUT),
    ):
        with pytest.raises(UserError) as caught:
            make_them()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "robot 0 fell" in messages[0]
    assert 'troubles.py", line' in str(caught.value.__cause__)


def test_a_worker_that_cannot_create_environments_stays_until_its_message_is_read() -> None:
    memory = allocate()
    (share,) = _env_slices(TROUBLE, {"at": "constructor"}, 1, 1, ())
    worker = _start(share, memory)
    try:
        worker.wait(TIMEOUT, group=[worker])
        with pytest.raises(subprocess.TimeoutExpired):  # an exited worker would be reported as crashed
            worker.process.wait(0.5)
        assert "robot 0 fell" in worker.receive().problem
    finally:
        stop([worker], _request_close)
        os.close(memory)
    assert worker.process.returncode == 0


def test_different_environments_are_refused_and_all_workers_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one environment has .*, another ") as caught:
        ProcessVector("tests.envs.troubles:Fickle-v0", 2, {"path": str(tmp_path / "made")}, 2, TIMEOUT)
    frame = caught.traceback[-2].frame.f_locals["self"]  # keeps it from being garbage-collected
    assert len(pids(frame)) == 2 and not any(map(is_running, pids(frame)))


@pytest.mark.parametrize("at", ["constructor", "reset", "step"])
def test_an_exit_of_a_worker_is_reported_with_its_environments_and_exit_code(at: str) -> None:
    with (
        pytest.raises(RunError, match=r"worker process \d+ \(environments? .*2\) ended with exit code 3$"),
        processes(TROUBLE, 3, 3 if at == "reset" else 1, at=at, what="exit", number=2) as envs,
    ):
        envs.reset(0)
        step(envs, zero_actions(envs))


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_killed_worker_is_reported_while_another_hangs(moment: str) -> None:
    """The first of two workers sleeps in its step; the second is killed."""
    with processes(TROUBLE, 2, 2, at="step", what="sleep", number=0) as envs:
        envs.reset(0)
        envs.send(zero_actions(envs)) if moment == "during" else None
        os.kill(pids(envs)[1], signal.SIGKILL)
        if moment == "before":
            wait_until(lambda: not is_running(pids(envs)[1]))
            envs.send(zero_actions(envs))
        with pytest.raises(RunError, match=rf"{pids(envs)[1]} \(environment 1\) was ended by signal 9 "):
            envs.receive()


def line_of(code: str) -> int:
    """Return the line number of code in troubles.py."""
    assert tests.envs.troubles.__file__ is not None
    return Path(tests.envs.troubles.__file__).read_text().partition(code)[0].count("\n") + 1


@pytest.mark.parametrize(
    ("at", "what", "code"),
    [("reset", "sleep", "time.sleep(1e6)"), ("step", "hold", "ctypes.PyDLL(None).pause()")],
)
def test_a_worker_that_hangs_is_killed_and_its_line_reported(at: str, what: str, code: str) -> None:
    """The first worker answers; the second sleeps, or holds the interpreter's lock."""
    with processes(TROUBLE, 3, 2, at=at, what=what, number=1) as envs:
        envs._timeout = 0.5
        hung = pids(envs)[1]
        with pytest.raises(RunError) as caught:
            envs.reset(0)
            step(envs, zero_actions(envs))
        assert not is_running(hung)
        assert str(caught.value) == (
            f"{TROUBLE}: worker process {hung} (environments 1 to 2) has not answered for 0.5 s, in _meet "
            f"(troubles.py:{line_of(code)}); if it needs more time, raise env.worker_timeout=0.5"
        )
        trace = str(caught.value.__cause__)
        assert f'troubles.py", line {line_of(code)} in _meet\n' in trace and f" in {at}\n" in trace
    assert not any(map(is_running, pids(envs)))


def test_a_constructor_that_hangs_is_reported_and_all_workers_end() -> None:
    with pytest.raises(
        RunError, match=r"\(environments 0 to 1\) has not .*, in _meet \(troubles.py:\d+\)"
    ) as caught:
        ProcessVector(TROUBLE, 4, {"at": "constructor", "what": "sleep"}, 2, timeout=5.0)
    frame = next(e.frame.f_locals["self"] for e in caught.traceback if "_ready" in str(e.frame.code.name))
    assert len(pids(frame)) == 2 and not any(map(is_running, pids(frame)))


def test_the_timeout_applies_to_all_workers_together() -> None:
    """Three workers that answer one after another do not triple it."""
    with processes(TROUBLE, 1, 1) as envs:
        (worker,) = envs._workers
        with pytest.raises(RunError, match="has not answered for 1 s"):
            worker.wait(1.0, waited=0.75, group=[worker])
        assert worker.process.returncode == -signal.SIGKILL


def test_time_spent_waiting_for_one_worker_counts_for_the_next() -> None:
    """The first worker answers after 1.9 s, the second would after 3.8 s; the timeout is 2 s."""
    with processes(TROUBLE, 2, 2, at="step", what="nap") as envs:
        envs._timeout = 2.0
        envs.reset(0)
        with pytest.raises(RunError, match=r"\(environment 1\) has not answered for 2 s"):
            step(envs, zero_actions(envs))


PARENT = """
import sys, threading, time
from pgx.envs.process_backend import ProcessVector
def work():
    envs = ProcessVector("tests.envs.troubles:Trouble-v0", 2, {"at": "step", "what": WHAT, "number": 1}, 2, 60.0)
    envs.reset(0)
    envs.send(envs.reset(0)[:, 0].astype(int))
    print(*[worker.process.pid for worker in envs._workers], flush=True)
    time.sleep(1e6)
"""


@pytest.mark.parametrize(
    ("start", "what"),
    [("work()", "sleep"), ("work()", "hold"), ("threading.Thread(target=work).start()", "sleep")],
)
def test_workers_exit_when_their_parent_is_killed(start: str, what: str) -> None:
    """One worker is idle, the other within a step. The script has no `if __name__ == "__main__"`."""
    before = file_names("/dev/shm")  # workers have no semaphores; those of other tests are ignored below
    parent = subprocess.Popen(
        [sys.executable, "-c", f"WHAT = {what!r}\n{PARENT}{start}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stderr is not None
    workers = list(map(int, parent.stdout.readline().split()))
    assert len(workers) == 2 and all(map(is_running, workers))
    parent.kill()
    try:
        wait_until(lambda: not any(map(is_running, workers)))
    finally:  # end the workers even if the test fails
        for pid in filter(is_running, workers):
            os.kill(pid, signal.SIGKILL)
    assert parent.stderr.read() == ""
    parent.communicate()
    assert {name for name in file_names("/dev/shm") - before if not name.startswith("sem.")} == set()


def test_workers_continue_after_the_thread_that_started_them_ends() -> None:
    made: list[ProcessVector] = []
    thread = threading.Thread(target=lambda: made.append(ProcessVector(TROUBLE, 2, {}, 2, TIMEOUT)))
    thread.start()
    thread.join()
    for _ in range(20):  # the kernel ends a thread with a delay
        time.sleep(0.01)
        made[0].reset(0)
    assert all(map(is_running, pids(made[0])))
    made[0].close()


def test_close_ends_busy_workers_and_may_be_called_twice() -> None:
    gc.collect()
    open_files = file_names("/proc/self/fd")
    envs = ProcessVector(TROUBLE, 2, {"at": "step", "what": "sleep", "number": 1}, 2, TIMEOUT)
    envs.reset(0)
    envs.send(zero_actions(envs))
    envs.close()
    assert not any(map(is_running, pids(envs)))
    envs.close()
    del envs
    gc.collect()
    assert file_names("/proc/self/fd") <= open_files


def test_closed_workers_exit_with_code_zero() -> None:
    envs = ProcessVector(TROUBLE, 3, {}, 2, TIMEOUT)
    envs.close()
    assert [worker.process.returncode for worker in envs._workers] == [0, 0]


def test_workers_end_when_their_environments_are_garbage_collected() -> None:
    envs = ProcessVector(TROUBLE, 2, {}, 2, TIMEOUT)
    left = pids(envs)
    assert all(map(is_running, left))
    del envs
    gc.collect()
    assert not any(map(is_running, left))


def test_workers_ignore_interrupts() -> None:
    with processes(TROUBLE, 4, 2) as envs:
        envs.reset(0)
        for pid in pids(envs):
            assert os.getpgid(pid) != os.getpgid(0)  # a terminal sends Ctrl-C to a process group
            os.kill(pid, signal.SIGINT)
        assert list(step(envs, zero_actions(envs)).obs[:, 0]) == [0, 1, 2, 3]


def test_send_returns_before_the_step_ends(tmp_path: Path) -> None:
    """The environment waits for a file that the caller creates after `send`."""
    path = tmp_path / "here"
    with processes(TROUBLE, 2, 2, at="step", what="wait", path=str(path)) as envs:
        envs.reset(0)
        envs.send(zero_actions(envs))
        path.touch()
        assert (envs.receive().reward == 1).all()


def test_workers_do_not_import_torch() -> None:
    with processes(TROUBLE, 2, 2) as envs:
        assert (envs.reset(0)[:, 1] == 0).all()
    assert "torch" in sys.modules


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_workers_have_the_optimization_level_of_their_parent(flags: list[str]) -> None:
    script = (
        "from pgx.envs.process_backend import ProcessVector\n"
        f"print(ProcessVector({TROUBLE!r}, 2, {{}}, 2, 60.0).reset(0)[:, 2].tolist())"
    )
    command = [sys.executable, *flags, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{2 * [float(len(flags))]}\n"


def test_workers_use_the_registration_of_their_parent() -> None:
    """Only this process registered the id with this time limit."""
    was = gymnasium.registry["CartPole-v1"]
    gymnasium.registry["CartPole-v1"] = replace(was, max_episode_steps=4)
    try:
        with processes("CartPole-v1", 2, 2) as envs:
            envs.reset(0)
            assert [bool(step(envs, zero_actions(envs)).truncated.all()) for _ in range(4)] == [
                False,
                False,
                False,
                True,
            ]
    finally:
        gymnasium.registry["CartPole-v1"] = was


def test_an_environment_that_cannot_be_pickled_is_refused_and_runs_with_gymnasium() -> None:
    lock = threading.Lock()

    def make() -> Any:
        with lock:
            return tests.envs.troubles.Trouble()

    gymnasium.register("Local-v0", make)
    try:
        with pytest.raises(
            UserError, match=r"cannot be sent.*env\.id=module:Local-v0; set env\.backend=gymnasium"
        ):
            choose_backend("Local-v0", "processes", {}, 2, 2, NO_SHAPING)
        assert choose_backend("Local-v0", "auto", {}, 2, 2, NO_SHAPING).name == "gymnasium"
    finally:
        del gymnasium.registry["Local-v0"]


@pytest.mark.parametrize(
    ("env_id", "n", "threads", "name"),
    [
        ("tests.envs.troubles:Slow-v0", 4, 2, "processes"),
        ("tests.envs.troubles:Slow-v0", 4, 1, "gymnasium"),
        ("tests.envs.troubles:Slow-v0", 1, 2, "gymnasium"),
        ("tests.environments:Counter-v0", 4, 2, "gymnasium"),
        ("tests.environments:Unmakeable-v0", 4, 2, "gymnasium"),
    ],
)
def test_auto_uses_processes_for_slow_steps(env_id: str, n: int, threads: int, name: str) -> None:
    choice = choose_backend(env_id, "auto", {}, n, threads, NO_SHAPING)
    assert choice.name == name and "EnvPool has no" in choice.reason
    assert ("a step takes" in choice.reason) == (name == "processes")


def test_the_command_line_trains_with_worker_processes(tmp_path: Path) -> None:
    small = ["env.num_envs=4", "runner.rollout_steps=32", "algo.minibatch_size=32", "trainer.total_steps=256"]
    command = [sys.executable, "-m", "pgx", "train", "algo=ppo", f"env={TROUBLE}", "env.backend=processes"]
    done = subprocess.run(
        [*command, *small, "env.num_threads=2", f"run_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "backend processes (as configured)" in done.stdout and done.stderr == ""


def test_the_command_line_reports_where_an_environment_hangs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgx", "train", "algo=ppo", f"env={TROUBLE}", "env.backend=processes"]
    small = ["env.num_envs=2", "runner.rollout_steps=32", "algo.minibatch_size=32", "trainer.compile=false"]
    trouble = ["env.kwargs.at=step", "env.kwargs.what=sleep", "env.kwargs.number=1", "env.worker_timeout=3"]
    done = subprocess.run(
        [*command, *small, *trouble, f"run_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PGX_DEBUG": "1"},
    )
    place = f"troubles.py:{line_of('time.sleep(1e6)')}"
    assert done.returncode == 1
    assert f"has not answered for 3 s, in _meet ({place})" in done.stderr.splitlines()[-1]
    assert "WorkerTraceback: in a worker process:\nThread" in done.stderr.replace("Current thread", "Thread")
    assert "has not answered" in (tmp_path / "run" / "summary.json").read_text()
