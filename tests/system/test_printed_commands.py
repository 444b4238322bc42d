"""Commands that pgx prints work when pasted into a shell: quoted, and with --trust where necessary."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pgx.config.stored import pgx_command as formed
from pgx.core.text import override
from tests.command import Command

MODULE = """
import gymnasium, numpy as np
from gymnasium import spaces

class Own(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, word, render_mode=None):
        assert word == "two words", word
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count == 5, False, {}

    def render(self):
        return np.zeros((24, 32, 3), np.uint8)

if "Own-v0" not in gymnasium.registry:
    gymnasium.register("Own-v0", Own)
"""
NO_SHAPING = ["algo=ppo", "env=own_module:Own-v0", "env.kwargs.word='two words'", "env.num_envs=2"]
NO_SHAPING += [
    "runner.rollout_steps=32",
    "algo.minibatch_size=32",
    "trainer.total_steps=128",
    "trainer.compile=false",
    "logger.sinks=[]",
]
SHORT = ["trainer.total_steps=100", "env.num_envs=2", "trainer.compile=false", "logger.sinks=[]"]


def printed(text: str) -> list[list[str]]:
    """Return the commands in output of pgx, split as by a shell, without the program."""
    found = re.findall(r"`(pgx [a-z].+?)`|(?:^|\s{2,})(pgx [a-z].*)$", text, re.MULTILINE)
    commands = [shlex.split(quoted or bare, comments=True)[1:] for quoted, bare in found]
    return [words for words in commands if words[0] != "tensorboard"]  # a server, which does not exit


def test_commands_that_runs_print_can_be_pasted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own_module.py").write_text(MODULE)
    said = command("train", *NO_SHAPING, "run_dir='a run'")
    assert said.code == 0
    pasted = printed(said.out)
    assert ["eval", "a run", "--trust"] in pasted
    for words in pasted:
        assert command(*words).code in ((0, 1) if words[0] == "doctor" else (0,)), words

    said = command("train", *NO_SHAPING, "run_dir='a run'")
    assert said.code == 2
    (words,) = printed(said.err.replace("pgx train --resume", "`pgx train --resume").strip() + "`")
    assert words == ["train", "--resume", "a run", "--trust"] and command(*words).code == 0

    said = command("collect", "a run", "--trust", "--episodes", "3", "--out", "a set")
    (words,) = printed(said.out)
    assert command(*words, *SHORT).code == 0


def test_commands_that_sweeps_print_can_be_pasted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own_module.py").write_text(MODULE)
    where = "hydra.sweep.dir='a sweep'"
    assert command("train", "-m", *NO_SHAPING, "seed=0", where).code == 0
    said = command("train", "-m", *NO_SHAPING, "seed=2", where)
    assert said.code == 2
    (words,) = printed(said.err)
    assert words == ["sweep", "resume", str(tmp_path / "a sweep"), "--trust"] and command(*words).code == 0


TEXTS = (
    "a b",
    "it's",
    'a"b',
    'a\\"',
    "a\\",
    "~/x",
    "{x}",
    "a=b",
    "true",
    "1e4",
    "",
    "a,b",
    "m:Env-v0",
    "ALE/Pong-v5",
)
OTHERS = (None, True, 1, 2.5, 1e-7, [1, "a b", None], {"a": {"b": [1.5, "it's"]}})


@pytest.mark.parametrize("value", [*TEXTS, *OTHERS])
def test_a_value_is_read_as_it_was_written(value: object) -> None:
    words = shlex.split(formed("train", override("env.kwargs.x", value)))
    assert OverridesParser.create().parse_override(words[2]).value() == value


def test_a_folder_is_no_flag_and_overrides_of_eval_leave_the_agent_as_it_is(
    command: Command, tmp_path: Path
) -> None:
    assert formed("eval", Path("-a b")) == "pgx eval './-a b'"
    assert command("train", "algo=ppo", "env=CartPole-v1", *SHORT, "run_dir=a=b", "env.backend=gymnasium",
                   "runner.rollout_steps=32", "algo.minibatch_size=32").code == 0  # fmt: skip
    few = ["--episodes", "2"]
    said = command("eval", "a=b", "env.backend=processes", "env.num_threads=1", *few)
    assert said.code == 0 and "(processes)" in said.out
    said = command("eval", "a=b", "policy.hidden=[8]", "seed=2", "nosuch=1", *few)
    assert said.code == 2 and len(said.problems) == 3
    assert all("env.backend" in problem for problem in said.problems)
    assert "no RUN given" in command("eval", "env.backend=gymnasium").problems[0]
