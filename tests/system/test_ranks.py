"""Two ranks with N environments each train like one process with 2 N; torchrun with gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgx.core.agent import State
from pgx.core.seeding import derive

TIMEOUT = 900  # seconds; commands take about twenty
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
HERE = Path(__file__).parents[2]

CARTPOLE = ["env=CartPole-v1", "env.num_envs=8", "trainer.total_steps=1500", "runner.rollout_steps=32"]
PENDULUM = ["env=Pendulum-v1", "env.num_envs=4", "trainer.total_steps=1600", "runner.rollout_steps=100"]
# Conjugate gradient amplifies rounding errors with every step.
FIT = ["algo.critic_epochs=2", "algo.critic_minibatch_size=8", "algo.cg_steps=4"]
JOBS = {
    "a2c": ["algo=a2c", *CARTPOLE, "env.backend=envpool", "algo.normalize_advantage=true"],
    "a2c_continuous": ["algo=a2c", *PENDULUM, "env.backend=gymnasium"],
    # Minibatches so small that a rank has no rows of some.
    "ppo": ["algo=ppo", *CARTPOLE, "env.backend=gymnasium", "algo.minibatch_size=4", "algo.epochs=2"],
    "ppo_continuous": [
        "algo=ppo", *PENDULUM, "env.backend=envpool", "algo.minibatch_size=40", "algo.epochs=12",
        "algo.normalize_advantage=batch", "algo.target_kl=0.003", "algo.recompute_advantages=true",
        "policy.continuous=squashed_gaussian",
    ],
    "trpo": ["algo=trpo", *CARTPOLE, "env.backend=envpool", *FIT],
    "trpo_continuous": [
        "algo=trpo", *PENDULUM, "env.backend=gymnasium", "algo.fisher=kl_hessian", "algo.critic_minibatch_size=400",
        "critic_optimizer=lbfgs", "algo.critic_epochs=1", "algo.cg_steps=4",
    ],
    "npg": ["algo=npg", *CARTPOLE, "env.backend=gymnasium", *FIT],
    "npg_empirical": ["algo=npg", *PENDULUM, "env.backend=envpool", *FIT, "algo.fisher=empirical"],
    "npg_exact": ["algo=npg", *CARTPOLE, "env.backend=processes", *FIT, "algo.solver=exact", "policy=linear"],
    "ppo_kl": ["algo=ppo_kl", *CARTPOLE, "algo.minibatch_size=64", "algo.epochs=2"],
    "mdpo": ["algo=mdpo", *PENDULUM, "algo.critic_minibatch_size=80"],
    "actor_critic": ["algo=actor_critic", *CARTPOLE, "algo.normalize_advantage=true"],
    # Rollouts of one step, so that a rank often has reset rows only.
    "one_step": [
        "algo=trpo", "env=tests.environments:Echo-v0", "env.num_envs=2", "runner.rollout_steps=1",
        "trainer.total_steps=16", "algo.critic_epochs=1", "algo.critic_minibatch_size=2", "algo.cg_steps=2",
        "algo.normalize_advantage=false", "env.normalizer_warmup_steps=1",
    ],
}  # fmt: skip
QUIET = [
    "logger.console=off",
    "logger.sinks=[]",
    "logger.every=1",
    "env.num_threads=1",
    "trainer.compile=false",
]


def ended(command: list[str], cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command; its processes import the same modules as this one."""
    variables = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def made_in(folder: Path, names: Iterable[str], *more: str) -> tuple[Path, Path]:
    """Train jobs in one process and on two ranks, with the overrides `more`; return both folders."""
    folders = folder / "one", folder / "two"
    for launcher, own in zip(([sys.executable], [*TORCHRUN, "2"]), folders, strict=True):
        own.mkdir()
        (own / "jobs.json").write_text(json.dumps({name: [*QUIET, *JOBS[name], *more] for name in names}))
        result = ended([*launcher, str(HERE / "tests" / "system" / "rank_jobs.py"), str(own)])
        assert result.returncode == 0, result.stderr
    return folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made_in(tmp_path_factory.mktemp("jobs"), JOBS)


def held(folder: Path, name: str, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{name}.{rank}.pt", weights_only=True)
    return found


def weights(state: State) -> Tensor:
    return torch.cat([w.reshape(-1) for part in ("policy", "critic") for w in state["agent"][part].values()])


def lines(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_of_ppo_and_trpo_learn_what_one_process_learns(tmp_path: Path) -> None:
    """Short version of the next test. Only the last update of each run is logged."""
    names = ["ppo", "trpo", "one_step"]
    one, two = made_in(tmp_path, names, "logger.every=1000")
    assert all(0 in held(two, "one_step", rank)["rows"] for rank in (0, 1))
    for name in names:
        (ours,), (theirs,) = lines(two, name), lines(one, name)
        assert ours["step"] == theirs["step"] == held(one, name, 0)["counters"]["steps"]
        assert ours["health/kl"] == pytest.approx(theirs["health/kl"], rel=1e-5)
        assert torch.allclose(weights(held(one, name, 0)), weights(held(two, name, 0)), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_learn_what_one_process_learns(made: tuple[Path, Path], name: str) -> None:
    one, two = held(made[0], name, 0), held(made[1], name, 0)
    start = torch.cat([w.reshape(-1) for w in one["before"]])
    policy = [torch.cat([w.reshape(-1) for w in s["agent"]["policy"].values()]) for s in (one, two)]
    assert float((policy[0] - start).norm()) > 0.01
    assert float((policy[1] - policy[0]).norm()) < 1e-6 * float((policy[0] - start).norm())
    assert torch.allclose(weights(one), weights(two), atol=1e-6)
    for moments in (lambda s: s["agent"]["normalizer"], lambda s: s["runner"]["reward_scaler"]):
        ours, theirs = moments(two), moments(one)
        assert ours["count"] == theirs["count"]
        assert torch.allclose(ours["mean"], theirs["mean"], rtol=1e-6, atol=1e-8)
        assert torch.allclose(ours["squares"], theirs["squares"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_every_rank_holds_the_same_bits_and_the_streams_of_one_process(
    made: tuple[Path, Path], name: str
) -> None:
    one, first, second = held(made[0], name, 0), held(made[1], name, 0), held(made[1], name, 1)
    assert torch.equal(weights(first), weights(second))
    for stream in (lambda s: s["runner"]["sampling"], lambda s: s["learner"]["generator"]):
        assert torch.equal(stream(first), stream(second))
        assert torch.equal(stream(first), stream(one))
    counters = one["counters"]
    for state in (first, second):
        assert state["counters"] | {"recent": [], "best_return": None} == counters | {
            "recent": [],
            "best_return": None,
        }
        assert state["counters"]["recent"] == pytest.approx(counters["recent"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_report_what_one_process_reports(made: tuple[Path, Path], name: str) -> None:
    one, two = (lines(folder, name) for folder in made)
    assert len(one) == len(two) >= 3
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for tag in ours.keys() - {tag for tag in ours if tag.startswith("time/")}:
            assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5, abs=1e-7, nan_ok=True), tag


@pytest.mark.slow
def test_ranks_had_batches_of_different_lengths(made: tuple[Path, Path]) -> None:
    """Otherwise the tests above do not test the weights of means."""
    shares = [held(made[1], "trpo", rank)["rows"] for rank in (0, 1)]
    whole = held(made[0], "trpo", 0)["rows"]
    assert [sum(pair) for pair in zip(*shares, strict=True)] == whole
    assert any(a != b for a, b in zip(*shares, strict=True))


@pytest.mark.slow
def test_rank_0_alone_writes(made: tuple[Path, Path]) -> None:
    one, two = ({p.name for p in (folder / "trpo").rglob("*")} for folder in made)
    assert one == two
    assert len(lines(made[1], "trpo")) == len({line["step"] for line in lines(made[1], "trpo")})


# With the command line.

SMALL = [
    "logger.sinks=[]", "logger.every=1", "algo=a2c", "env=CartPole-v1", "env.num_envs=4",
    "env.backend=gymnasium",
]  # fmt: skip


def command(ranks: int, *arguments: str) -> list[str]:
    launcher = [sys.executable] if ranks == 1 else [*TORCHRUN, str(ranks)]
    return [*launcher, "-m", "pgx", "train", *arguments]


def final(run: Path) -> State:
    found: State = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_a_run_of_two_ranks_resumes_on_one_and_on_four(tmp_path: Path) -> None:
    settings = [*SMALL, "trainer.checkpoint_every=400"]
    whole, two = tmp_path / "whole", tmp_path / "two"
    result = ended(command(1, *settings, "trainer.total_steps=1200", f"run_dir={whole}"))
    assert result.returncode == 0, result.stderr
    for ranks, arguments in (
        (2, [*settings, "trainer.total_steps=400", f"run_dir={two}"]),
        (4, ["--resume", str(two), "trainer.total_steps=800"]),
        (1, ["--resume", str(two), "trainer.total_steps=1200"]),
    ):
        result = ended(command(ranks, *arguments))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("finished at") == 1
        assert ranks == 1 or f"4 environments x 5 steps on {ranks} ranks" in result.stdout
        assert ranks == 1 or f"not compiled (auto: {ranks} ranks average every gradient" in result.stdout
    there, here = final(whole), final(two)
    assert here["counters"]["steps"] == there["counters"]["steps"]
    assert torch.allclose(weights(here), weights(there), atol=1e-4)
    assert torch.equal(here["learner"]["generator"], there["learner"]["generator"])
    steps = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_unsupported_configs_of_ranks_are_refused_once_with_the_arithmetic(tmp_path: Path) -> None:
    wrong = ["algo=vtrace", "env=CartPole-v1", "env.num_envs=5", "runner.rollout_steps=32", "runner.lag=1"]
    wrong += [
        "policy=gru",
        "policy.sequence_length=32",
        "trainer.compile=true",
        f"run_dir={tmp_path / 'run'}",
    ]
    result = ended(command(2, *SMALL[:2], *wrong))
    assert result.returncode != 0
    assert result.stderr.count("pgx: ") == 1
    assert "5 / 2 = 2.5 each; expected a multiple of 2: 4 or 6" in result.stderr
    for key in ("algo=vtrace", "runner.lag=1", "policy=gru", "trainer.compile=true"):
        assert f"  {key}: " in result.stderr, key
    assert not (tmp_path / "run").exists()


def started(tmp_path: Path) -> "subprocess.Popen[str]":
    """Start two ranks of an endless run; yield them after the first update."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(2, *SMALL, "trainer.total_steps=100_000_000", f"run_dir={run}"),
        env=os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + TIMEOUT
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    return process


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    """Return the processes that torchrun started, rank 0 first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if "pgx" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_with_one_message(tmp_path: Path) -> None:
    process = started(tmp_path)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    assert err.count("pgx: error: ") == 1
    assert "pgx: error: another rank exited or does not answer (" in err
    assert "third_party" not in err.partition("pgx: error: ")[2].partition("\n")[0]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "another rank exited" in summary["error"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_ends_all_ranks_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = started(tmp_path)
    pids = ranks_of(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "pgx: error" not in err
    assert "pgx/" not in err  # torchrun prints its own traceback, the ranks print none
    assert out.count("interrupted at") == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert final(tmp_path / "run")["counters"]["steps"] > 0


BRITTLE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Brittle(CartPoleEnv):
    def __init__(self, seed):
        super().__init__()
        self.fatal, self.fails, self.taken = seed, False, 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.fails = seed == self.fatal
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.taken += 1
        if self.fails and self.taken == 12:
            raise ValueError("the pole is broken")
        return super().step(action)

gymnasium.register("Brittle-v0", Brittle)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_of_one_rank_ends_all_with_one_message(tmp_path: Path, rank: int) -> None:
    (tmp_path / "brittle.py").write_text(BRITTLE)
    fatal = derive(0, "environments", 0) + 2 * rank + 1  # of environment 1 or 3, of four
    environment = ["env=brittle:Brittle-v0", f"env.kwargs.seed={fatal}", *SMALL[-2:]]
    result = ended(command(2, *SMALL[:3], *environment, f"run_dir={tmp_path / 'run'}"), cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count("pgx: ") == 1, result.stderr
    who = "" if rank == 0 else "rank 1: "
    assert (
        f"pgx: error: {who}brittle:Brittle-v0: step() raised ValueError: the pole is broken" in result.stderr
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert f"{who}brittle:Brittle-v0: step() raised ValueError: the pole is broken, in " in summary["error"]
