"""Numbers that are not finite: named, explained, kept as they were, and made again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest
import torch
from torch import Tensor

from pgx.algos.ppo import PPO
from pgx.cli.main import main
from pgx.core.agent import Policy
from pgx.core.data import Batch, Rollout
from pgx.core.errors import RunError
from pgx.core.nonfinite import NotFiniteError
from pgx.runs.checkpoints import read_state, serialize, snapshot
from pgx.runs.loggers.jsonl import read_rows
from pgx.training.nan_debug.post_mortem import FAILURE_FILE, learned_state, read_attempt
from tests.conftest import Make, parameters, small

BROKEN = 3  # the iteration whose update fails
SETTINGS = [*small("ppo"), "env=CartPole-v1", "trainer.total_steps=2000", "trainer.checkpoint_every=300"]


def breaking(what: str) -> Callable[[Policy, Batch], Tensor]:
    """PPO's loss of the policy, but for one that fails where the batch has a telltale in it."""
    whole = PPO._policy_loss

    def loss(self: PPO, policy: Policy, batch: Batch) -> Tensor:
        value = whole(self, policy, batch)
        telltale = batch.advantage.max()  # a number of the batch, so that the same batch fails again
        if float(telltale.detach()) < 1e6:
            return value
        if what == "loss":
            return value * ((telltale - telltale).log() - (telltale - telltale).log())
        return value * (value - value.detach()).sqrt()  # 0, of which the slope is infinite

    return loss  # type: ignore[return-value]


def poison(rollout: Rollout) -> Rollout:
    """A reward that makes every advantage large."""
    rollout.reward[0, 0] = 1e9
    return rollout


def fail(trainer: object, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Have the update of one iteration fail."""
    monkeypatch.setattr(PPO, "_policy_loss", breaking(what))
    collect = trainer.runner.collect

    def collected(agent: object) -> Rollout:
        rollout = collect(agent)
        return poison(rollout) if trainer.counters.iterations == BROKEN - 1 else rollout

    trainer.runner.collect = collected


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_that_fails_names_the_tensor_and_the_line_and_fails_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    trainer = make(*SETTINGS, "algo.normalize_advantage=off", "trainer.compile=false")
    fail(trainer, monkeypatch, what)
    with pytest.raises(
        RunError, match=f"iteration {BROKEN}: the update made parameters of the policy NaN"
    ) as e:
        trainer.train()
    assert isinstance(e.value.__cause__, NotFiniteError)
    assert f" {what}: " in str(e.value) and "test_faults" not in str(e.value)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and f" {what}: " in summary["error"]
    assert all(
        bool(v.isfinite().all()) for v in trainer.writer.checkpoints.load("last")["agent"]["policy"].values()
    )
    (bundle,) = (tmp_path / "run" / "post_mortem").iterdir()
    assert json.loads((bundle / FAILURE_FILE).read_text())["iteration"] == BROKEN
    attempt = read_attempt(bundle)
    assert float(attempt.rollout.reward.max()) == 1e9
    again = make(*SETTINGS, "algo.normalize_advantage=off", name="other")
    found = again.diagnose(attempt)
    assert found is not None and found in str(e.value)


def test_the_bundle_of_an_update_is_of_the_moment_before_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(*SETTINGS, "algo.normalize_advantage=off")
    fail(trainer, monkeypatch, "loss")
    moments = []
    update = trainer.algorithm.update

    def watched(agent: object, learner: object, rollout: Rollout, progress: float) -> dict[str, float]:
        moments.append(
            (snapshot(learned_state(trainer.agent, trainer.learner)), snapshot(rollout.action), progress)
        )
        return update(agent, learner, rollout, progress)

    trainer.algorithm.update = watched
    with pytest.raises(RunError):
        trainer.train()
    (bundle,) = (tmp_path / "run" / "post_mortem").iterdir()
    attempt, (before, action, progress) = read_attempt(bundle), moments[BROKEN - 1]
    assert torch.equal(attempt.rollout.action, action) and attempt.progress == progress
    for network in ("policy", "critic"):
        for name, value in before["agent"][network].items():
            assert torch.equal(attempt.before["agent"][network][name], value)
    assert torch.equal(attempt.before["learner"]["generator"], before["learner"]["generator"])
    # Bundles of pgx 0.1 have `memory` instead of `recurrent_state`.
    columns = read_state(bundle / "batch.pt")
    state = columns["memory"] = torch.ones(*columns["log_prob"].shape, 2)
    del columns["recurrent_state"]
    (bundle / "batch.pt").write_bytes(serialize(columns))
    assert torch.equal(read_attempt(bundle).rollout.recurrent_state, state)


def test_an_update_that_fails_can_be_skipped_as_if_it_had_not_been_made(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(*SETTINGS, "algo.normalize_advantage=off", "trainer.on_nan=skip_update")
    fail(trainer, monkeypatch, "loss")
    moments = []
    undone = trainer.loop._undo_if_nonfinite

    def watched(attempt: object, iteration: int) -> bool:
        skipped = undone(attempt, iteration)
        moments.append((attempt, skipped, parameters(trainer)))
        return skipped

    trainer.loop._undo_if_nonfinite = watched
    summary = trainer.train()
    assert summary["status"] == "finished" and bool(parameters(trainer).isfinite().all())
    assert [skipped for _, skipped, _ in moments] == [n == BROKEN for n in range(1, len(moments) + 1)]
    assert torch.equal(moments[BROKEN - 1][2], moments[BROKEN - 2][2])
    assert not torch.equal(moments[BROKEN][2], moments[BROKEN - 1][2])
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [n for n, row in enumerate(rows, 1) if "algo/updates_skipped" in row] == [BROKEN]
    assert "health/kl" not in rows[BROKEN - 1] and trainer.counters.skipped == 1
    assert trainer.counters.steps == sum(attempt.rollout.steps for attempt, _, _ in moments)


ENVIRONMENT = '''
import gymnasium
import numpy as np


class Faulty(gymnasium.Env):
    """Twenty-step episodes; in the third of each environment something is no number."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault):
        self.fault, self.steps, self.episodes = fault, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, 0 if seed is not None else self.episodes + 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        bad = self.episodes == 2 and self.steps == 7
        if bad and self.fault == "observation":
            obs[1] = np.inf
        return obs, np.nan if bad and self.fault == "reward" else float(action), False, self.steps == 20, {}


for fault in ("observation", "reward"):
    gymnasium.register(f"Nan-{fault}-v0", Faulty, kwargs={"fault": fault})
'''


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "nanenvs.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("nanenvs", None)
    for fault in ("observation", "reward"):
        gymnasium.registry.pop(f"Nan-{fault}-v0", None)


@pytest.mark.parametrize("fault", ["observation", "reward"])
@pytest.mark.parametrize("checkpoint_every", [100, 10_000])
def test_an_environment_that_gives_no_numbers_is_named_and_the_run_comes_to_it_again(
    make: Make,
    tmp_path: Path,
    faulty: None,
    fault: str,
    checkpoint_every: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the last checkpoint where there is one, else from the start."""
    settings = [
        *small("ppo"),
        f"env=nanenvs:Nan-{fault}-v0",
        "env.backend=gymnasium",
        "runner.rollout_steps=16",
    ]
    # A checkpoint begins all episodes anew: the third of each is reached in a stretch of 64 steps an environment.
    every = f"trainer.checkpoint_every={checkpoint_every * 4}"
    trainer = make(*settings, "algo.minibatch_size=64", every, "trainer.total_steps=4000")
    with pytest.raises(
        RunError, match=rf"iteration \d+: nanenvs:Nan-{fault}-v0: the {fault} of environment 0, 1, 2, 3"
    ):
        trainer.train()
    (bundle,) = (tmp_path / "run" / "post_mortem").iterdir()
    batch = read_state(bundle / "batch.pt")
    column = {"observation": "obs", "reward": "reward"}[fault]
    assert not bool(batch[column][-1].isfinite().all()) and bool(batch[column][:-1].isfinite().all())
    assert (bundle / "checkpoint.pt").is_file() == (trainer.counters.steps >= 4 * checkpoint_every)
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(bundle), "--trust"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"reproduced: iteration {trainer.counters.iterations + 1}: " in said


def test_an_update_that_does_not_fail_again_is_reported(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(*SETTINGS, "algo.normalize_advantage=off")
    fail(trainer, monkeypatch, "loss")
    with pytest.raises(RunError):
        trainer.train()
    monkeypatch.undo()
    (bundle,) = (tmp_path / "run" / "post_mortem").iterdir()
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(bundle)])
    assert ended.value.code == 1 and "not reproduced" in capsys.readouterr().out


def test_a_folder_that_is_no_post_mortem_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(tmp_path)])
    assert ended.value.code == 2 and "not a post-mortem" in capsys.readouterr().err


def test_parameters_of_the_critic_are_checked_too(make: Make) -> None:
    trainer = make(*SETTINGS)
    update = trainer.algorithm.update

    def poisoned(agent: object, learner: object, rollout: object, progress: float) -> dict[str, float]:
        metrics = update(agent, learner, rollout, progress)
        if trainer.counters.iterations == BROKEN - 1:
            with torch.no_grad():
                next(iter(trainer.agent.critic.parameters())).fill_(torch.nan)
        return metrics

    trainer.algorithm.update = poisoned
    with pytest.raises(RunError, match=f"iteration {BROKEN}: the update made parameters of the critic NaN"):
        trainer.train()
