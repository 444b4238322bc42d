"""`pgx collect`, and training on the datasets that it writes."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pgx.envs.gymnasium_backend import GymnasiumVector
from pgx.rollouts.dataset_files import read_dataset
from tests.command import Command
from tests.conftest import QUIET, Make

RUN = ["env=CartPole-v1", "env.num_envs=4", "trainer.eval_episodes=2", *QUIET]


def parameters(run: Path) -> torch.Tensor:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["agent"]["policy"]
    return torch.cat([x.flatten() for x in state.values()])


def test_a_run_is_collected_from_learned_from_resumed_and_evaluated(command: Command, tmp_path: Path) -> None:
    assert command("train", "algo=reinforce", *RUN, "trainer.total_steps=300", "run_dir=mu")[0] == 0
    code, out, err = command("collect", "mu", "--episodes", "30", "--out", "data/cartpole-v0")
    assert code == 0 and err == ""
    assert (
        found := re.search(r"30 episodes, ([\d,]+) steps, mean return ([\d.,]+), of mu, checkpoint last", out)
    )
    envs = GymnasiumVector("CartPole-v1", 1, {}, first_index=0)
    episodes = read_dataset(tmp_path / "data" / "cartpole-v0", envs)
    envs.close()
    steps = sum(len(e) for e in episodes)
    assert len(episodes) == 30 and found[1] == f"{steps:,}"
    assert float(found[2]) == pytest.approx(steps / 30, abs=0.06)  # a step of CartPole earns 1
    metadata = json.loads((tmp_path / "data" / "cartpole-v0" / "data" / "metadata.json").read_text())
    assert metadata["algorithm_name"] == "reinforce" and "CartPole-v1" in metadata["env_spec"]

    learn = ["train", "algo=off_policy_reinforce", *RUN, "dataset=data/cartpole-v0", "runner.episodes=8"]
    assert (
        command(*learn, "trainer.total_steps=1500", "run_dir=whole", "trainer.checkpoint_every=700")[0] == 0
    )
    assert command(*learn, "trainer.total_steps=700", "run_dir=cut", "trainer.checkpoint_every=700")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # the run finds its dataset from any folder
    assert command("train", "--resume", "../cut", "trainer.total_steps=1500")[0] == 0
    os.chdir(tmp_path)
    assert torch.equal(parameters(tmp_path / "whole"), parameters(tmp_path / "cut"))

    (tmp_path / "data").rename(tmp_path / "moved")  # evaluation needs no dataset
    assert command("eval", "whole", "--episodes", "2")[0] == 0
    code, _, err = command("train", "--resume", "whole", "trainer.total_steps=3000")
    assert code == 2 and "no such folder" in err


def test_the_recorded_probabilities_are_those_of_the_policy_that_acted(
    make: Make, command: Command, tmp_path: Path
) -> None:
    """π/μ of the same agent is 1 at every step, including its normalizer."""
    trainer = make("algo=reinforce", "env=Pendulum-v1", "trainer.total_steps=900", name="mu")
    trainer.train()
    assert command("collect", "mu", "--episodes", "3", "--out", "d", "--seed", "4")[0] == 0
    envs = GymnasiumVector("Pendulum-v1", 1, {}, first_index=0)
    for episode in read_dataset(tmp_path / "d", envs):
        agent = trainer.agent
        seen = agent.observe(episode.obs[:-1], torch.arange(len(episode)), None, None)
        assert torch.allclose(agent.policy(seen).log_prob(episode.action), episode.log_prob, atol=2e-5)
    envs.close()


@pytest.mark.system
def test_the_seed_decides_what_is_played(command: Command, make: Make, tmp_path: Path) -> None:
    make("algo=reinforce", "env=CartPole-v1", "trainer.total_steps=50", name="mu").train()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert command("collect", "mu", "--episodes", "5", "--out", name, "--seed", str(seed))[0] == 0
    envs = GymnasiumVector("CartPole-v1", 1, {}, first_index=0)
    a, b, c = (read_dataset(tmp_path / name, envs) for name in "abc")
    envs.close()
    assert all(torch.equal(x.obs, y.obs) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0].obs[0], c[0].obs[0])


def test_mistakes_are_named_and_leave_nothing(command: Command, make: Make, tmp_path: Path) -> None:
    make("algo=reinforce", "env=CartPole-v1", "trainer.total_steps=50", name="mu").train()
    for arguments, words in (
        (["mu", "--episodes", "2"], "--out"),
        (["mu", "--episodes", "0", "--out", "d"], "expected a whole number >= 1"),
        (["nothing", "--episodes", "2", "--out", "d"], "nothing: not a run folder"),
        (["mu", "--episodes", "2", "--out", "d", "--checkpoint", "bst"], "no such checkpoint"),
        (["mu", "--episodes", "2", "--out", "mu"], "mu: already exists"),
    ):
        code, _, err = command("collect", *arguments)
        assert code == 2 and words in err, err
    assert [path.name for path in tmp_path.iterdir()] == ["mu"]


def read_to_the_end(terminal: int) -> str:
    """Read a pseudo-terminal until its other end is closed."""
    parts = []
    with suppress(OSError):  # Linux returns EIO then
        while part := os.read(terminal, 65536):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.system
def test_progress_is_redrawn_on_a_terminal_and_without_codes_in_a_pipe(make: Make, tmp_path: Path) -> None:
    make("algo=reinforce", "env=CartPole-v1", "trainer.total_steps=50", name="mu").train()
    command = [
        sys.executable,
        "-c",
        "import pgx.training.evaluation as p; p.PROGRESS_INTERVAL = p.REDRAW_INTERVAL = 0.0; "
        "from pgx.cli.main import main; main()",
    ]
    arguments = ["collect", "mu", "--episodes", "40", "--out"]
    piped = subprocess.run(
        [*command, *arguments, "a"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = piped.stderr.splitlines()
    assert lines and all(
        re.fullmatch(r"[\d,]+/40 episodes  [\d,]+ steps  [\d,]+ steps/s  eta (-|\d+:\d\d:\d\d)", x)
        for x in lines
    )
    assert piped.stdout.startswith("a: 40 episodes")
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [*command, *arguments, "b"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=secondary
    ) as process:
        os.close(secondary)
        drawn = read_to_the_end(primary)  # a terminal that is not read blocks its writer
    os.close(primary)
    assert process.returncode == 0
    assert drawn.count("\r") > 1 and "\n" not in drawn and drawn.endswith("\r\x1b[K")
