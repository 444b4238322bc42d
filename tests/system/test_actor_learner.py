"""ActorLearner: behaviour policies, policy lag, restarts, and that no step is learned from twice."""

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pgx.algos.common.advantages import rollout_observations
from pgx.config.compose import compose
from pgx.config.validate import problems_of
from pgx.core.agent import Agent
from pgx.core.data import Rollout
from pgx.core.errors import RunError, WorkersLost
from pgx.rollouts.actor_learner import ActorLearner
from pgx.rollouts.shared_parameters import inference_tensors
from pgx.rollouts.sizes import resolve_sizes, size_problems
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters
from tests.processes import is_running, wait_until

ACTORS = ["algo=vtrace", "runner=actor_learner"]
NO_LAG = ["runner.workers=2", "runner.trajectories=2", "runner.queue=2"]  # policy lag 0
LAGGING = ["runner.workers=2", "runner.trajectories=2", "runner.queue=6"]  # policy lag of at most 2
LARGE_STEPS = ["optimizer.learning_rate=1e-2"]  # so that every update changes log-probabilities visibly


@pytest.fixture
def start(make: Make) -> Iterator[Callable[..., Trainer]]:
    """Make trainers whose actors are stopped after the test."""
    trainers: list[Trainer] = []

    def trainer(*overrides: str, name: str = "run") -> Trainer:
        trainers.append(make(*ACTORS, "runner.rollout_steps=16", *overrides, name=name))
        return trainers[-1]

    yield trainer
    for started in trainers:
        started.runner.close()


def actors_of(trainer: Trainer) -> ActorLearner:
    assert isinstance(trainer.runner, ActorLearner)
    return trainer.runner


def log_prob(agent: Agent, rollout: Rollout) -> Tensor:
    distribution = agent.policy(rollout_observations(agent, rollout))
    return distribution.log_prob(rollout.action[rollout.valid]).detach()


def acted(agent: Agent, rollout: Rollout, column: int = 0, width: int | None = None) -> bool:
    """Return whether some columns of a rollout have the log-probabilities of the agent."""
    names = [n for n, c in vars(rollout).items() if c is not None]
    columns = {n: getattr(rollout, n)[:, column : column + (width or rollout.reward.shape[1])] for n in names}
    part = Rollout(**columns)
    return bool((log_prob(agent, part) - part.log_prob[part.valid]).abs().max() < 2e-5)


def update(trainer: Trainer, rollout: Rollout) -> None:
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    trainer.agent.normalizer.observe(rollout.obs[rollout.valid])


# --- behaviour policies


def test_one_number_divides_all_rewards_of_a_rollout(start: Callable[..., Trainer]) -> None:
    """In CartPole every step of every actor has reward 1."""
    trainer = start("env=CartPole-v1", *NO_LAG)
    for _ in range(2):
        rollout = trainer.runner.collect(trainer.agent)
        assert len(rollout.reward[rollout.valid].unique()) == 1


@pytest.mark.parametrize(
    "env", ["env=CartPole-v1", "env=Pendulum-v1", pytest.param("env=Hopper-v4", marks=pytest.mark.slow)]
)
def test_one_actor_without_lag_equals_the_sync_runner(
    make: Make, start: Callable[..., Trainer], env: str
) -> None:
    """After a warm-up of 64 steps, and over checkpoints, where environments are reset."""
    shared = [
        env,
        "env.normalizer_warmup_steps=64",
        "trainer.total_steps=640",
        "trainer.checkpoint_every=200",
        "logger.every=1",
    ]
    one = ["runner.workers=1", "runner.trajectories=1", "runner.queue=1"]
    there = start(*shared, *one, name="there")
    here = make("algo=vtrace", "runner.rollout_steps=16", *shared, name="here")
    assert there.train()["final_return"] == here.train()["final_return"]
    assert torch.equal(parameters(there), parameters(here))


def test_without_lag_and_with_clips_of_one_it_equals_a2c(make: Make, start: Callable[..., Trainer]) -> None:
    settings = ["env=CartPole-v1", "algo.entropy_coefficient=0.01"]
    settings += ["optimizer=rmsprop", "critic_optimizer=rmsprop"]
    one = ["runner.workers=1", "runner.trajectories=1", "runner.queue=1"]
    there = start(*settings, *one, "algo.rho_clip=1.0", "algo.c_clip=1.0", name="there")
    here = make("algo=a2c", "algo.gae_lambda=1.0", "runner.rollout_steps=16", *settings, name="here")
    for trainer in (there, here):
        for _ in range(8):
            update(trainer, trainer.runner.collect(trainer.agent))
    assert torch.allclose(parameters(there), parameters(here), atol=1e-5)


@pytest.mark.parametrize(
    ("inference", "setting"),
    [
        ("actor", ["env=CartPole-v1", "policy=gru", "policy.sequence_length=8"]),
        pytest.param("actor", ["env=tests.environments:Masked-v0"], marks=pytest.mark.slow),
        pytest.param("actor", ["env=tests.environments:TwoButtons-v0"], marks=pytest.mark.slow),
        pytest.param(
            "actor", ["env=Pendulum-v1", "policy.continuous=squashed_gaussian"], marks=pytest.mark.slow
        ),
        ("actor", ["env=tests.environments:Catch-v0", "policy=cnn", "critic=cnn"]),
        pytest.param(
            "learner", ["env=CartPole-v1", "policy=gru", "policy.sequence_length=8"], marks=pytest.mark.slow
        ),
        ("learner", ["env=tests.environments:Masked-v0", "env.kwargs={several: true, shows: even}"]),
        ("learner", ["env=Pendulum-v1", "policy.continuous=squashed_gaussian"]),
    ],
    ids=str,
)
def test_without_lag_every_step_is_of_the_current_policy(
    start: Callable[..., Trainer], inference: str, setting: list[str]
) -> None:
    trainer = start(*setting, *NO_LAG, *LARGE_STEPS, f"runner.inference={inference}")
    before = copy.deepcopy(trainer.agent)
    for i in range(3):
        rollout = trainer.runner.collect(trainer.agent)
        assert rollout.reward.shape == (16, 4)
        assert acted(trainer.agent, rollout) and (i == 0 or not acted(before, rollout))
        assert trainer.runner.metrics()["policy_lag_max"] == 0
        update(trainer, rollout)


def test_several_actors_without_lag_give_the_same_bits_again(start: Callable[..., Trainer]) -> None:
    runs = [start("env=Pendulum-v1", *NO_LAG, name=str(i)) for i in range(2)]
    for trainer in runs:
        trainer.train()
    assert torch.equal(*map(parameters, runs))


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["actor", "learner"])
def test_compiled_actors_act_as_the_policy_does(
    start: Callable[..., Trainer], inference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One environment per actor is the smallest batch. Actors load the learner's programs and compile nothing."""
    monkeypatch.setenv("PGX_CACHE", str(tmp_path / "programs"))
    few = ["env.num_envs=2", "trainer.compile=true", f"runner.inference={inference}"]
    trainer = start("env=CartPole-v1", *NO_LAG, *LARGE_STEPS, *few)
    for _ in range(3):
        rollout = trainer.runner.collect(trainer.agent)
        assert acted(trainer.agent, rollout)
        assert len(list((tmp_path / "programs").glob("*.so"))) in (1, 3)  # respond; the two steps
        update(trainer, rollout)


# --- policy lag


@pytest.mark.parametrize(
    ("trajectories", "queue", "most", "inference"),
    [
        (2, 4, 1, "learner"),
        (1, 4, 3, "actor"),
        pytest.param(2, 4, 1, "actor", marks=pytest.mark.slow),
        pytest.param(1, 4, 3, "learner", marks=pytest.mark.slow),
    ],
)
def test_the_lag_is_measured_and_bounded_by_the_queue(
    start: Callable[..., Trainer], trajectories: int, queue: int, most: int, inference: str
) -> None:
    """If the learner is slower than its actors, the queue is always full and the bound is reached."""
    sized = ["runner.workers=2", f"runner.trajectories={trajectories}", f"runner.queue={queue}"]
    trainer = start("env=Pendulum-v1", *sized, *LARGE_STEPS, f"runner.inference={inference}")
    runner, agents, largest = actors_of(trainer), [], 0
    for _ in range(10):
        agents.append(copy.deepcopy(trainer.agent))
        rollout = runner.collect(trainer.agent)
        lags = [int(lag) for lag in runner._lags]
        assert len(lags) == trajectories and min(lags) >= 0 and max(lags) <= most
        measured = runner.metrics()
        assert measured["policy_lag"] == sum(lags) / trajectories and measured["policy_lag_max"] == max(lags)
        for i, lag in enumerate(lags):
            matches = [acted(agent, rollout, 2 * i, 2) for agent in agents]
            if inference == "actor":
                assert [k for k, match in enumerate(matches) if match] == [len(agents) - 1 - lag]
        largest = max(largest, *lags)
        wait_until(lambda: runner.actors.finished() == queue - trajectories)
        update(trainer, rollout)
    assert largest == most


def test_the_inference_server_uses_the_latest_parameters_within_a_trajectory(
    start: Callable[..., Trainer],
) -> None:
    """Each step has the log-probability of some version; the lag is that of the first step."""
    trainer = start("env=tests.envs.troubles:Slow-v0", *LAGGING, *LARGE_STEPS, "runner.inference=learner")
    runner, agents, mixed = actors_of(trainer), [], 0
    for _ in range(8):
        agents.append(copy.deepcopy(trainer.agent))
        rollout = runner.collect(trainer.agent)
        close = torch.stack(
            [(log_prob(a, rollout) - rollout.log_prob[rollout.valid]).abs() < 2e-5 for a in agents]
        )
        assert bool(close.any(0).all())
        oldest = [int(row.nonzero().max()) for row in close.T]
        assert min(oldest) >= len(agents) - 1 - max(runner._lags)
        mixed += len(set(oldest)) > 1
        update(trainer, rollout)
    assert mixed


# --- no step twice


def steps_of(rollouts: list[Rollout]) -> list[tuple[float, ...]]:
    """Return the steps of Echo in rollouts, as (episode, step)."""
    return [tuple(row.tolist()) for r in rollouts for row in r.next_obs[r.valid][:, :2]]


ECHO = ["env=tests.environments:Echo-v0", "env.normalize_obs=false", "env.scale_reward=false"]


def test_trajectories_follow_each_other_without_a_gap(start: Callable[..., Trainer]) -> None:
    trainer = start(*ECHO, *LAGGING)
    rollouts = [trainer.runner.collect(trainer.agent) for _ in range(5)]
    for one, next_one in pairwise(rollouts):
        assert torch.equal(one.next_obs[-1], next_one.obs[0])
    seen = steps_of(rollouts)
    assert len(seen) == len(set(seen)) == sum(rollout.steps for rollout in rollouts)


@pytest.mark.parametrize("inference", ["actor", "learner"])
def test_a_killed_actor_is_restarted_and_no_step_is_returned_twice(
    start: Callable[..., Trainer], inference: str
) -> None:
    """The actor is suspended, requested to continue, and killed, so at least one trajectory is unfinished."""
    trainer = start(*ECHO, *LAGGING, f"runner.inference={inference}")
    runner = actors_of(trainer)
    rollouts = [runner.collect(trainer.agent) for _ in range(2)]
    pid = runner.actors.pids[1]
    wait_until(lambda: runner.actors.finished() == 4)
    os.kill(pid, signal.SIGSTOP)
    rollouts.append(runner.collect(trainer.agent))
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: runner.actors.finished() > 0 and runner.actors.restarts == 1
    )  # the restarted actor has finished a trajectory
    rollouts += [runner.collect(trainer.agent) for _ in range(5)]
    continues = [(one.next_obs[-1] == two.obs[0]).all(-1) for one, two in pairwise(rollouts)]
    assert all(bool(row[:2].all()) for row in continues)  # actor 0, without a gap
    restarts = [i for i, row in enumerate(continues) if not row[2:].any()]  # actor 1
    assert len(restarts) == 1
    assert (
        int(rollouts[restarts[0] + 1].time[0, 2:].max()) == 0
    )  # the restarted actor first repeats the unfinished request
    assert sum(bool(row[2:].all()) for row in continues) == len(continues) - 1
    assert runner.metrics()["worker_restarts"] == 1 and not is_running(pid)
    assert all(bool(rollout.valid.any(0).all()) for rollout in rollouts)
    seen = steps_of(rollouts)
    assert len(seen) == len(set(seen)) == sum(rollout.steps for rollout in rollouts)


def test_a_restarted_actor_uses_new_random_streams(start: Callable[..., Trainer]) -> None:
    trainer = start(*ECHO, *NO_LAG)
    runner = actors_of(trainer)
    first = runner.collect(trainer.agent)
    os.kill(runner.actors.pids[0], signal.SIGKILL)
    second = runner.collect(trainer.agent)
    assert not torch.equal(first.action[:, :2], first.action[:, 2:])  # actors have different streams
    assert not torch.equal(first.action[:, :2], second.action[:, :2])
    assert torch.equal(first.next_obs[-1, 2:], second.obs[0, 2:])  # actor 1 continues
    assert int(second.time[0, :2].max()) == 0  # actor 0 starts new episodes


def test_a_reset_drops_unfinished_trajectories(start: Callable[..., Trainer]) -> None:
    """Streams continue from the last returned trajectories, in a run that resumes as in one that continues."""
    trainer = start(*ECHO, *LAGGING)
    runner = actors_of(trainer)
    for _ in range(3):
        runner.collect(trainer.agent)
    state = copy.deepcopy(runner.state_dict())
    runner.begin(7)
    continued = runner.collect(trainer.agent)
    assert int(continued.time[0].max()) == 0 and runner.metrics()["policy_lag_max"] == 0
    other = start(*ECHO, *LAGGING, name="other")
    other.runner.load_state_dict(state)
    other.runner.begin(7)
    resumed = other.runner.collect(trainer.agent)
    assert torch.equal(continued.obs, resumed.obs) and torch.equal(continued.action, resumed.action)


# --- how runs end


def test_without_restarts_left_the_run_ends_with_a_checkpoint_and_no_actors(
    start: Callable[..., Trainer], tmp_path: Path
) -> None:
    settings = ["env=CartPole-v1", *LAGGING, "runner.max_restarts=1", "trainer.total_steps=1000000"]
    trainer = start(*settings, "trainer.checkpoint_every=null", "logger.every=1")
    runner, pids = actors_of(trainer), []
    collect = runner.collect

    def kill_and_collect(agent: Agent) -> Rollout:
        if trainer.counters.iterations in (3, 6):
            pids.extend(runner.actors.pids)
            os.kill(runner.actors.pids[1], signal.SIGKILL)
        return collect(agent)

    runner.collect = kill_and_collect  # type: ignore[method-assign]
    with pytest.raises(WorkersLost, match=r"signal 9 \(Killed\).*max_restarts=1"):
        trainer.train()
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["rollout/worker_restarts"] == 1
    state = trainer.writer.checkpoints.load("last")
    assert state["counters"]["steps"] == trainer.counters.steps == rows[-1]["step"] > 0
    assert not any(map(is_running, pids))
    trainer.load_state_dict(state)  # it can be loaded


def test_an_exception_of_an_environment_ends_the_run_with_its_traceback(
    start: Callable[..., Trainer],
) -> None:
    kwargs = "env.kwargs={at: step, what: raise, number: 0}"
    trainer = start("env=tests.envs.troubles:Trouble-v0", kwargs, *NO_LAG)
    with pytest.raises(RunError, match=r"robot \d+ fell.*actor \d") as caught:
        trainer.runner.collect(trainer.agent)
    assert 'troubles.py", line' in str(caught.value.__cause__)


@pytest.mark.parametrize("inference", [pytest.param("actor", marks=pytest.mark.slow), "learner"])
def test_a_hanging_environment_ends_the_run_with_its_location_and_no_actors(
    start: Callable[..., Trainer], inference: str
) -> None:
    env = ["env=tests.envs.troubles:Trouble-v0", "env.kwargs={at: step, what: hold}", "env.backend=gymnasium"]
    trainer = start(*env, *NO_LAG, "env.worker_timeout=2", f"runner.inference={inference}")
    pattern = r"worker process \d+ \(number \d\) has been in one call .* for 2 s, in _meet \(troubles.py:\d+\); .*=2$"
    with pytest.raises(RunError, match=pattern) as caught:
        trainer.runner.collect(trainer.agent)
    assert 'troubles.py", line' in str(caught.value.__cause__)
    pids = actors_of(trainer).actors.pids
    trainer.runner.close()
    assert len(pids) == 2 and not any(map(is_running, pids))


def open_files() -> set[str]:
    """Return open descriptors except those of shared memory, which is released with its tensors."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing
            found |= {path.name} if "memfd" not in str(path.readlink()) else set()
    return found


def test_closing_leaves_no_process_and_no_open_file(start: Callable[..., Trainer]) -> None:
    for inference in ("actor", "learner"):
        before = open_files()
        trainer = start("env=CartPole-v1", *LAGGING, f"runner.inference={inference}", name=inference)
        trainer.runner.collect(trainer.agent)
        pids = actors_of(trainer).actors.pids
        trainer.runner.close()
        trainer.runner.close()
        assert not any(map(is_running, pids))
        assert open_files() <= before


# --- sizes


@pytest.mark.parametrize(
    ("num_envs", "cores", "workers"), [(16, 2, 2), (16, 7, 4), (6, 4, 3), (7, 4, 1), (1, 8, 1)]
)
def test_auto_is_the_largest_divisor_within_the_cores(num_envs: int, cores: int, workers: int) -> None:
    chosen = resolve_sizes(num_envs, "auto", "auto", "auto", cores)
    assert (chosen.workers, chosen.trajectories, chosen.queue) == (workers, workers, 2 * workers)
    assert chosen.trajectories * chosen.envs_per_actor == num_envs and size_problems(chosen) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runner.workers=32"], "more than env.num_envs=16"),
        (["runner.workers=3"], "16 / 3 = 5.33 environments each; set one of 1, 2, 4, 8, 16"),
        (
            ["runner.workers=2", "runner.trajectories=4", "runner.queue=3"],
            "only 3 would be requested; set at least 4",
        ),
        (
            ["runner.workers=4", "runner.trajectories=2", "runner.queue=2"],
            "2 of runner.workers=4 actors would always be idle; set at least 4",
        ),
        (
            ["algo=ppo", "runner=actor_learner"],
            "ppo learns from steps of the current policy only; set algo=impala",
        ),
        (["runner.backend=rai"], "runner.backend"),
        (["runner.address=auto"], "is unused with runner.backend=local; remove it or set runner.backend=ray"),
        (["runner.connect_seconds=0"], "runner.connect_seconds"),
        (["runner.inference=nobody"], "expected one of actor, learner"),
        (["runner.workers=0"], "runner.workers"),
    ],
)
def test_conflicting_sizes_are_refused_in_one_message(overrides: list[str], message: str) -> None:
    algo = [] if overrides[0].startswith("algo=") else ["algo=impala"]
    (problem,) = problems_of(compose([*algo, "env.num_envs=16", *overrides]))
    assert message in problem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("runner.inference=learner", "which runner.backend=ray does not have; set runner.inference=actor"),
        ("runner.address=head", "runner.address=head: not an address; set host:port, auto or null"),
        ("runner.address=ray://head:10001", "not an address; set host:port, auto or null"),
    ],
)
def test_unsupported_options_of_ray_actors_are_refused(override: str, message: str) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed, which is another problem")
    (problem,) = problems_of(compose(["algo=impala", "runner.backend=ray", override]))
    assert message in problem


def test_a_missing_ray_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # makes the import fail
    (problem,) = problems_of(compose(["algo=impala", "runner.backend=ray"]))
    assert problem == "runner.backend=ray: the package ray is not installed; pip install 'pgx-rl[ray]'"


def test_ray_is_imported_only_on_request() -> None:
    script = "import sys; import pgx.cli.train, pgx.rollouts.actor_learner; print('ray' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"False\n"
    )


def test_inference_tensors_are_those_of_policy_and_normalizer(start: Callable[..., Trainer]) -> None:
    named = inference_tensors(start("env=Pendulum-v1", *NO_LAG).agent)
    assert {name.split(".")[0] for name in named} == {"policy", "normalizer"}
    assert {"normalizer.mean", "normalizer.scale"} <= named.keys()
