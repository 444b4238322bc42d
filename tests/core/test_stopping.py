"""Runs that end within an iteration keep the last finished one, and go on from it as from any checkpoint."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pgx.core.errors import Preempted, RunError
from pgx.runs.writer import read_summary
from pgx.training.callbacks import TrainingState, as_callback
from pgx.training.trainer import Trainer
from tests.command import Command
from tests.conftest import Make, parameters
from tests.environments import Counter

SMALL = ["env=CartPole-v1", "env.backend=gymnasium", "algo.minibatch_size=64"]
WARM = "env.normalizer_warmup_steps=40"


def at_call(owner: Any, name: str, number: int, do: Callable[[], object]) -> None:
    """Do something after a method of an object was called so many times."""
    original, calls = getattr(owner, name), []

    def wrapped(*arguments: Any) -> Any:
        result = original(*arguments)
        calls.append(name)
        if len(calls) == number:
            do()
        return result

    setattr(owner, name, wrapped)


def kept(trainer: Trainer) -> dict[str, Any]:
    """A run's last checkpoint, but for what is measured by a clock."""
    state = trainer.writer.checkpoints.load("last")
    state["counters"]["seconds"] = 0.0
    return {key: state[key] for key in ("agent", "learner", "runner", "counters", "unlogged")}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def dropped(err: str) -> int:
    """The steps that a run says it dropped."""
    found = re.search(r"([\d,]+) steps are dropped", err)
    assert found
    return int(found[1].replace(",", ""))


def stopped_at_a_boundary(make: Make, *settings: str, after: int) -> Trainer:
    """A run that was asked to stop when so many iterations had finished."""
    trainer = make(*settings, name="boundary")

    def stop_after(state: TrainingState) -> None:
        trainer.stop_requested = state.iteration == after

    trainer.callbacks.append(as_callback(stop_after))
    trainer.train()
    return trainer


# Steps of environments: 10 of the warm-up, 64 of each rollout; each update sweeps the critic twice.
@pytest.mark.parametrize(
    ("rule", "place", "number", "after"),
    [("ppo", "rollout", 5, 0), ("ppg", "rollout", 10 + 64 + 20, 1), ("ppo", "update", 3, 1)],
)
def test_a_stop_within_an_iteration_is_a_stop_before_it(
    make: Make, rule: str, place: str, number: int, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = ["algo.epochs=2"] if rule == "ppo" else ["algo.policy_iterations=2", "algo.auxiliary_epochs=1"]
    settings = [*SMALL, f"algo={rule}", *epochs, WARM, "trainer.total_steps=600"]
    trainer = make(*settings, name="within")
    if place == "rollout":
        at_call(trainer.runner.envs, "receive", number, trainer.stop)
    else:
        at_call(trainer.learner.critic_optimizer, "step_minibatches", number, trainer.stop)
    summary = trainer.train()
    assert (summary["status"], summary["iterations"]) == ("interrupted", after)
    if rule == "ppg":  # 19 steps of four environments were noted before the twentieth was received
        assert 4 * 18 <= dropped(capsys.readouterr().err) <= 4 * 20
    assert same(kept(trainer), kept(stopped_at_a_boundary(make, *settings, after=after))) or after == 0
    assert summary["checkpoint_steps"] == summary["steps"]
    again = make(*settings, name="within")
    again.load_state_dict(again.writer.checkpoints.load("last"))
    assert again.train()["status"] == "finished"


@pytest.mark.parametrize("raised", [ValueError("the simulator crashed"), KeyboardInterrupt()])
def test_an_exception_of_the_environment_keeps_the_last_finished_iteration(
    make: Make, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    """So does a second Ctrl-C."""
    settings = ["algo=ppo", "env=tests.environments:Counter-v0", "env.backend=gymnasium", WARM]
    trainer, steps, step = make(*settings, name="within"), [], Counter.step

    def failing(env: Counter, action: Any) -> Any:
        steps.append(env)
        if len(steps) == 40 + 256 + 50:
            raise raised
        return step(env, action)

    monkeypatch.setattr(Counter, "step", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(raised, KeyboardInterrupt) else RunError):
        trainer.train()
    summary = read_summary(trainer.run_dir)
    assert summary["iterations"] == 1 and summary["checkpoint_steps"] == summary["steps"] > 0
    assert same(kept(trainer), kept(stopped_at_a_boundary(make, *settings, after=1)))
    again = make(*settings, name="within")
    again.load_state_dict(again.writer.checkpoints.load("last"))
    assert again.train()["status"] == "finished"
    assert not torch.equal(parameters(again), parameters(trainer))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_lost_terminal_ends_a_run_with_a_checkpoint(
    command: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    steps, step = [], Counter.step

    def cut_off(env: Counter, action: Any) -> Any:
        steps.append(env)
        if len(steps) == 1000:
            os.kill(os.getpid(), number)
        return step(env, action)

    monkeypatch.setattr(Counter, "step", cut_off)
    small = ["env=tests.environments:Counter-v0", "env.backend=gymnasium", "env.num_envs=4"]
    small += ["algo=a2c", "trainer.compile=false", "trainer.total_steps=2000", "logger.sinks=[]"]
    said = command("train", *small, "run_dir=run")
    assert said.code == Preempted.exit_code, said.err
    run = Path("run")
    summary = read_summary(run)
    assert summary["status"] == "interrupted" and 0 < summary["steps"] < 1000
    assert (run / "checkpoints" / "last.pt").is_file()


def test_a_run_that_ignores_a_lost_terminal_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under nohup."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        small = ["env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "trainer.compile=false"]
        original = Trainer.train

        def hung_up(trainer: Trainer) -> Any:
            os.kill(os.getpid(), signal.SIGHUP)
            return original(trainer)

        monkeypatch.setattr(Trainer, "train", hung_up)
        said = command("train", *small, "trainer.total_steps=300", "logger.sinks=[]", "run_dir=run")
        assert said.code == 0, said.err
    finally:
        signal.signal(signal.SIGHUP, previous)
