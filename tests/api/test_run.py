"""Runs as objects: acting, evaluation, video, export, plots, tables and comparison."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import pgx
from pgx.core.imports import import_problem
from pgx.envs.gymnasium_backend import make_single
from tests.command import Command

SMALL = ["env.num_envs=4", "runner.rollout_steps=32", "trainer.compile=false", "logger.sinks=[]"]


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> pgx.Run:
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    own = [*SMALL, "env.backend=gymnasium"]
    return pgx.train("ppo", "Pendulum-v1", total_steps=1024, run_dir=folder, overrides=own, progress=False)


@pytest.fixture(scope="module")
def memory() -> pgx.Run:
    recurrent = [*SMALL, "policy.sequence_length=8", "policy.burn_in=0"]
    return pgx.train(
        "ppo", "CartPole-v1", policy="gru", total_steps=512, run_dir=None, overrides=recurrent, progress=False
    )


# --- acting


def test_a_batch_of_observations_gets_the_actions_of_each_of_them(pendulum: pgx.Run) -> None:
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = pendulum.agent.act(obs)
    assert actions.shape == (5, 1) and actions.dtype == np.float32
    for row, action in zip(obs, actions, strict=True):
        alone = pendulum.agent.act(row)
        assert alone.shape == (1,) and np.allclose(alone, action, atol=1e-6)


def test_actions_are_of_the_action_space(pendulum: pgx.Run) -> None:
    space = pendulum.agent.action_space
    obs = np.random.default_rng(1).normal(scale=50, size=(200, 3)).astype(np.float32)
    for deterministic in (True, False):
        assert all(space.contains(action) for action in pendulum.agent.act(obs, deterministic))


def test_sampled_actions_vary_and_are_those_of_the_seed(pendulum: pgx.Run) -> None:
    obs = np.zeros((4, 3), dtype=np.float32)
    one, other = (pendulum.load_agent(seed=7) for _ in range(2))
    first = one.act(obs, deterministic=False)
    assert np.array_equal(first, other.act(obs, deterministic=False))
    assert not np.array_equal(first, one.act(obs, deterministic=False))


def test_acting_in_a_loop_of_ones_own_gives_the_returns_of_evaluate(pendulum: pgx.Run) -> None:
    """The seed of an episode is derived as in an evaluation, so the first episode must be the same."""
    from pgx.core.seeding import derive

    evaluated = pendulum.evaluate(episodes=1, seed=5).returns[0]
    env = make_single("Pendulum-v1", {})
    obs, _ = env.reset(seed=derive(5, "evaluation"))
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(pendulum.agent.act(obs))
        total, ended = total + float(reward), terminated or truncated
    assert total == pytest.approx(evaluated, rel=1e-3)


def test_a_recurrent_agent_remembers_until_it_is_reset(memory: pgx.Run) -> None:
    agent = memory.load_agent()
    obs = np.random.default_rng(2).normal(size=(6, 3, 4)).astype(np.float32)
    states = []
    for row in obs:
        agent.act(row)
        states.append(agent._recurrent_state.clone())  # type: ignore[union-attr]
    assert not torch.equal(states[0], states[1])
    agent.reset(ended=[True, False, False])
    agent.act(obs[0])
    restarted = agent._recurrent_state
    assert restarted is not None and torch.allclose(restarted[0], states[0][0], atol=1e-6)
    assert not torch.allclose(restarted[1], states[0][1], atol=1e-6)
    with pytest.raises(pgx.ConfigError, match=r"got 2 observations after 3.*call reset\(\)"):
        agent.act(obs[0][:2])
    agent.reset()
    agent.act(obs[0])
    assert torch.allclose(agent._recurrent_state, states[0], atol=1e-6)  # type: ignore[arg-type]


def test_an_observation_of_another_shape_is_refused(pendulum: pgx.Run) -> None:
    with pytest.raises(pgx.ConfigError, match=r"shape \[4\]; Pendulum-v1 has \[3\], or a batch"):
        pendulum.agent.act(np.zeros(4))


def test_a_mask_forbids_actions() -> None:
    run = pgx.train("ppo", "CartPole-v1", total_steps=512, run_dir=None, overrides=SMALL, progress=False)
    obs = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    only_left = np.tile([True, False], (50, 1))
    assert set(run.agent.act(obs, deterministic=False)) == {0, 1}
    assert set(run.agent.act(obs, deterministic=False, action_mask=only_left)) == {0}
    with pytest.raises(pgx.ConfigError, match=r"action_mask: got \[1, 2\]; expected \[50, 2\]"):
        run.agent.act(obs, action_mask=[True, False])


# --- evaluation, video, export, figures


def test_evaluate_gives_the_numbers_of_pgx_eval(command: Command, pendulum: pgx.Run, tmp_path: Path) -> None:
    found = pendulum.evaluate(episodes=4, deterministic=False, seed=3)
    said = command("eval", str(pendulum.run_dir), "--episodes", "4", "--stochastic", "--seed", "3", "--json")
    (record,) = json.loads(said.out)
    assert list(found.returns) == record["returns"] and list(found.lengths) == record["lengths"]
    assert found.mean == record["mean"] and list(found.mean_interval or ()) == record["mean_interval"]
    assert found.iqm == record["iqm"] and found.std == record["std"]


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"max_steps": -1}, {"checkpoint": "firts"}])
def test_a_bad_argument_of_an_evaluation_is_refused(pendulum: pgx.Run, wrong: dict[str, Any]) -> None:
    with pytest.raises(pgx.ConfigError, match=r"expected a whole number >= 1|no such checkpoint"):
        pendulum.evaluate(**wrong)


@pytest.mark.system  # loads the libraries of ONNX
@pytest.mark.skipif(import_problem("onnx") is not None, reason="needs onnx")
def test_an_exported_policy_acts_like_the_agent(pendulum: pgx.Run, tmp_path: Path) -> None:
    import onnxruntime

    written = pendulum.export(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(str(written.path))
    obs = np.random.default_rng(4).normal(size=(8, 3)).astype(np.float32)
    (actions,) = session.run(None, {session.get_inputs()[0].name: obs})
    assert np.allclose(actions, pendulum.agent.act(obs), atol=1e-5)
    with pytest.raises(pgx.ConfigError, match=r"expected a file that ends in \.onnx"):
        pendulum.export(tmp_path / "policy.h5")
    with pytest.raises(pgx.ConfigError, match=r"folder .* does not exist"):
        pendulum.export(tmp_path / "absent" / "policy.onnx")


def test_a_plot_shows_the_metrics(pendulum: pgx.Run) -> None:
    figure = pendulum.plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "rollout/episode_return" and "health/kl" in titles
    (line,) = next(axes for axes in figure.axes if axes.get_title() == "health/kl").lines
    assert np.array_equal(line.get_ydata(), pendulum.metrics["health/kl"])
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.skipif(import_problem("pandas") is not None, reason="needs pandas")
def test_the_table_of_pandas_has_the_metrics(pendulum: pgx.Run) -> None:
    table = pendulum.to_pandas()
    assert list(table.index) == list(pendulum.metrics["step"])
    assert np.array_equal(table["health/kl"].to_numpy(), pendulum.metrics["health/kl"])


@pytest.mark.system  # draws all figures twice
def test_a_comparison_in_python_is_that_of_the_command_line(
    command: Command, pendulum: pgx.Run, tmp_path: Path
) -> None:
    other = pgx.train(
        "a2c",
        "Pendulum-v1",
        total_steps=512,
        run_dir=tmp_path / "a2c",
        overrides=["env.num_envs=4", "trainer.compile=false", "logger.sinks=[]"],
        progress=False,
    )
    folders = [str(run.run_dir) for run in (pendulum, other)]
    code = command("compare", *folders, "--out", str(tmp_path / "out"), "--metric", "health/kl").code
    typed = (tmp_path / "out" / "comparison.md").read_text()
    called = pgx.compare([pendulum, other], metric="health/kl").to_markdown()
    assert code == 0 and called == pgx.compare(folders, metric="health/kl").to_markdown()
    shown = [line for line in typed.splitlines() if not line.startswith(("![", "    pgx"))]
    assert [line for line in called.splitlines() if line] == [line for line in shown if line]
    page = pgx.compare([pendulum, other], metric="health/kl").write(tmp_path / "again")[0]
    assert page.name == "index.html"


def test_runs_in_memory_are_compared_and_each_counts_once(memory: pgx.Run, pendulum: pgx.Run) -> None:
    small: dict[str, Any] = {"total_steps": 512, "run_dir": None, "overrides": SMALL, "progress": False}
    other = pgx.train("ppo", "CartPole-v1", **small)
    text = pgx.compare([memory, other, memory], metric="health/entropy").to_markdown()
    assert "from 2 runs" in text
    twice = pgx.compare([pendulum, str(pendulum.run_dir)], metric="health/entropy").to_markdown()
    assert "from 1 run." in twice


@pytest.mark.parametrize(
    ("runs", "message"),
    [([], "got an empty list"), ("outputs", "expected a list"), (["absent"], "no such folder")],
)
def test_a_comparison_without_runs_is_refused(runs: Any, message: str) -> None:
    with pytest.raises(pgx.ConfigError, match=message):
        pgx.compare(runs)


def test_load_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(pgx.ConfigError, match="not a run folder"):
        pgx.load(tmp_path)


def test_a_run_shows_what_it_is(pendulum: pgx.Run, memory: pgx.Run) -> None:
    assert repr(pendulum).startswith("<Run: ppo on Pendulum-v1, finished, 1,")
    assert repr(memory).endswith("in memory>")


@pytest.mark.system
def test_a_video_is_recorded_of_a_run_with_a_function(tmp_path: Path) -> None:
    def takes(render_mode: str | None = None) -> Any:
        return gymnasium.make("CartPole-v1", render_mode=render_mode)

    small: dict[str, Any] = {"total_steps": 512, "run_dir": None, "overrides": SMALL, "progress": False}
    video = pgx.train("ppo", takes, **small).record(tmp_path / "cart.gif", max_steps=20)
    with Image.open(video.path) as frames:
        assert getattr(frames, "n_frames", 1) > 1 and video.episodes[0].length == 20
    plain = pgx.train("ppo", lambda: gymnasium.make("CartPole-v1"), **small)
    with pytest.raises(
        pgx.ConfigError, match=r"let the function take the keyword render_mode, here 'rgb_array'"
    ):
        plain.record(tmp_path / "again.gif")
    assert not (tmp_path / "again.gif").exists()
