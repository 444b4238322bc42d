"""Exported files act like their policies."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgx.api.run_folder import read_run_config
from pgx.cli import export as command
from pgx.config.validate import validate
from pgx.core.errors import RunError, UserError
from pgx.envs.spaces import action_spec
from pgx.envs.tensor_spaces import first_observation, tensor_action
from pgx.networks.export import formats as comparison
from pgx.networks.export.formats import Format, compare_actions, load_exported, write_exported
from pgx.networks.export.network import Deterministic, _whole, collect_sample
from pgx.runs.checkpoints import Checkpoints
from pgx.training.build import load_agent
from tests.conftest import Make

ROOT = Path(__file__).parents[2]
FORMATS: list[Format] = ["onnx", "torchscript"]

# Bounds and a normalizer; a squashed head; actions that do not start at 0; images; recurrent; masks.
KINDS = {
    "bounded": ["env=tests.environments:Counter-v0", "policy.log_std_init=1.0"],
    "squashed": ["env=tests.environments:Counter-v0", "policy.continuous=squashed_gaussian"],
    "buttons": ["env=tests.environments:TwoButtons-v0", "policy=tabular"],
    "pixels": ["env=tests.environments:Catch-v0", "policy=cnn", "policy.hidden=16"],
    "gru": ["env=tests.environments:Echo-v0", "policy=gru", "policy.sequence_length=8"],
    "lstm": ["env=CartPole-v1", "policy=lstm", "policy.sequence_length=8"],
    "masked": ["env=tests.environments:Masked-v0"],
    "masked_at_times": ["env=tests.environments:Masked-v0", "env.kwargs.shows=even", "env.num_envs=1"],
}
QUICK = ("bounded", "gru", "masked")
LITTLE = ["algo=ppo", "env.backend=gymnasium", "trainer.total_steps=256", "algo.minibatch_size=32"]


def needs(to: Format) -> None:
    if to == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)


@pytest.mark.parametrize(
    ("to", "kind"),
    # Writing an ONNX file takes seconds; tests that are not slow cover the different inputs and outputs.
    [
        pytest.param(to, kind, marks=pytest.mark.slow if to == "onnx" and kind not in QUICK else ())
        for to in FORMATS
        for kind in KINDS
    ],
)
def test_a_file_acts_like_the_run(
    make: Make, tmp_path: Path, to: Format, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needs(to)
    make(*LITTLE, *KINDS[kind]).train()
    capsys.readouterr()
    out = tmp_path / "policy.file"
    command.export(str(tmp_path / "run"), "last", to, str(out), 0, trust=True)
    said = capsys.readouterr().out
    rows = re.search(r"largest difference (\S+) over ([\d,]+) observations\n", said)
    assert rows and float(rows[1]) <= 1e-4 and int(rows[2].replace(",", "")) >= 1000
    assert (
        ("recurrent_state float32 [B, " in said)
        == (kind in ("gru", "lstm"))
        == ("next_recurrent_state" in said)
    )
    assert ("action_mask bool [B, 5]" in said) == kind.startswith("masked")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["policy.file"]


def exported(make: Make, tmp_path: Path, to: Format, name: str, *overrides: str):
    """Return an agent, its sample, and the file of its policy."""
    make(*LITTLE, *overrides, name=name).train()
    cfg = validate(read_run_config(tmp_path / name))
    agent, envs = load_agent(cfg, Checkpoints(tmp_path / name).load("last"), max_envs=4)
    sample = collect_sample(agent, envs, 200, seed=0)
    single = envs._envs[0]
    spaces_of = single.observation_space, single.action_space
    envs.close()
    network = Deterministic(agent, first_observation(spaces_of[0]), tensor_action(spaces_of[1]), masked=False)
    write_exported(
        network, [each[:2] for each in sample.inputs(network.first)], to, tmp_path / f"{name}.file"
    )
    return agent, sample, spaces_of[1], load_exported(to, tmp_path / f"{name}.file", network.inputs)


@pytest.mark.parametrize("to", FORMATS)
def test_the_exported_recurrent_state_is_that_of_the_policy(make: Make, tmp_path: Path, to: Format) -> None:
    """An episode played by the file, its state passed back to it, equals the episode played by the agent."""
    needs(to)
    agent, sample, _, run = exported(make, tmp_path, to, "gru", *KINDS["gru"])
    cpu, theirs = torch.device("cpu"), torch.zeros(1, agent.policy.recurrent_state.size)
    ours = agent.initial_recurrent_state(1, cpu)
    for at in range(20):
        obs = sample.obs[at : at + 1]
        acted = agent.act_greedily(agent.observe(obs, torch.tensor([at]), None, ours))
        action, after = run([obs, theirs])
        assert action == pytest.approx(acted.executed.numpy(), abs=1e-4)
        theirs, ours = torch.from_numpy(after), acted.recurrent_state
    assert theirs.abs().max() > 0.01


def test_a_step_without_a_mask_is_a_row_that_allows_everything(make: Make) -> None:
    trainer = make(*LITTLE, *KINDS["masked_at_times"])
    sample = collect_sample(trainer.agent, trainer.runner.envs, 60, seed=0)
    trainer.runner.close()
    odd = sample.obs[:, 0] % 2 == 1  # steps at which Masked shows none
    assert sample.action_mask is not None and len(sample.action_mask) == len(sample.obs) == 60
    assert sample.action_mask[odd].all() and not sample.action_mask[~odd].all(dim=1).all()
    shown = torch.tensor([[True, False]])
    late = _whole([None, shown, None])
    assert late is not None and late.tolist() == [[True, True], [True, False], [True, True]]
    assert _whole([None, None]) is None


def test_bounds_are_inside_and_reached(make: Make, tmp_path: Path) -> None:
    """With actions in [-0.5, 2], a policy whose mean is far outside returns the bounds."""
    agent, sample, space, _ = exported(make, tmp_path, "torchscript", "bounded", *KINDS["bounded"])
    with torch.no_grad():
        agent.policy.net[-1].bias.copy_(torch.tensor([100.0, -100.0]))
    network = Deterministic(agent, 0, tensor_action(space), masked=False)
    write_exported(
        network, [each[:2] for each in sample.inputs(network.first)], "torchscript", tmp_path / "far.file"
    )
    (action,) = load_exported("torchscript", tmp_path / "far.file", network.inputs)([sample.obs])
    assert (action == [2.0, -0.5]).all() and action.dtype == np.float32


def test_choices_of_several_dimensions_have_the_shape_and_numbers_of_their_space() -> None:
    space = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]])
    chosen = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 4]])
    expected = action_spec("Grid-v0", space)[1](chosen.numpy())
    assert np.array_equal(tensor_action(space)(chosen).numpy(), expected)


def test_actions_are_numbered_as_the_environment_does(make: Make, tmp_path: Path) -> None:
    agent, sample, _, own = exported(make, tmp_path, "torchscript", "pole", "env=CartPole-v1")
    late = spaces.Discrete(2, start=5)
    write_exported(
        Deterministic(agent, 0, tensor_action(late), masked=False),
        [sample.obs[:2]],
        "torchscript",
        tmp_path / "late",
    )
    (plain,), (moved,) = (
        own([sample.obs]),
        load_exported("torchscript", tmp_path / "late", ["obs"])([sample.obs]),
    )
    assert (moved == plain + 5).all()


def test_the_file_of_another_run_is_detected(make: Make, tmp_path: Path) -> None:
    for overrides in (KINDS["bounded"], ["env=CartPole-v1"]):
        agent, sample, space, own = exported(make, tmp_path, "torchscript", "a", *overrides, "seed=1")
        *_, other = exported(make, tmp_path, "torchscript", "b", *overrides, "seed=2")
        convert = action_spec("", space)[1]
        assert compare_actions(agent, convert, own, sample, sample.inputs(0)).acceptable
        assert not compare_actions(agent, convert, other, sample, sample.inputs(0)).acceptable
        for name in ("a", "b"):
            (tmp_path / name).rename(tmp_path / f"{name}-{len(overrides)}")


def test_a_file_that_differs_is_not_left_in_place(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(*LITTLE, *KINDS["bounded"]).train()
    out = tmp_path / "policy.pt"
    out.write_text("what was there before")
    monkeypatch.setattr(comparison, "TOLERANCE", -1.0)
    with pytest.raises(RunError, match="acts differently from"):
        command.export(str(tmp_path / "run"), "last", "torchscript", str(out), 0, trust=True)
    assert out.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.pt", "run"]
    with pytest.raises(UserError, match="does not exist; create it"):
        command.export(str(tmp_path / "run"), "last", "torchscript", str(tmp_path / "no" / "a"), 0, True)


def test_the_example_of_the_page_needs_onnxruntime_alone(make: Make, tmp_path: Path) -> None:
    needs("onnx")
    make(*LITTLE, "env=CartPole-v1").train()
    command.export(str(tmp_path / "run"), "last", "onnx", str(tmp_path / "policy.onnx"), 0, trust=True)
    page = (ROOT / "docs" / "show.md").read_text()
    (example,) = re.findall(r"```python\n([^`]*onnxruntime.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 10
    alone = f"import sys\nsys.modules['torch'] = sys.modules['pgx'] = None\n{example}"
    done = subprocess.run(
        [sys.executable, "-c", alone], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 8  # steps that a pole stands, whoever balances it
