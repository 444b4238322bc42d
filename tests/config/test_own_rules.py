"""Update rules of somebody's own: the tutorial's two files as they stand on the page, and what wrong ones are told."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pgx.config.compose import compose
from pgx.core.errors import UserError
from tests.command import Command
from tests.docs_places import PAGE, modules

NAME = "spo:SPO"
SMALL = ["env=CartPole-v1", "env.num_envs=4", "runner.rollout_steps=64", "trainer.total_steps=512"]
SMALL += ["trainer.compile=false", "logger.sinks=[]", "logger.console=off"]


@pytest.fixture
def files(command: Command, tmp_path: Path) -> Iterator[Path]:
    """The tutorial's files in the folder that commands are given in."""
    modules(tmp_path)
    sys.path.append("")  # taken back with `command`
    yield tmp_path
    for module in ("spo", "other"):
        sys.modules.pop(module, None)


def forget() -> None:
    """As in a process that has never seen the module."""
    sys.modules.pop("spo", None)


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_tutorial_s_rule_trains_like_pgx_s_own(command: Command, files: Path) -> None:
    said = command("train", f"algo={NAME}", *SMALL, "run_dir=run")
    assert said.code == 0, said.err
    config = OmegaConf.load(files / "run" / "config.yaml")
    assert (config.algo.name, config.label) == (NAME, "spo")
    assert config.health.clip_range == config.algo.epsilon == 0.2
    last = rows(files / "run")[-1]
    assert last["health/kl"] > 0 and last["health/ess"] < 1 and "algo/critic_loss" in last


SPREAD = 'Metric("spread", "1", "standard deviation of the ratios"), CRITIC_LOSS'


def test_a_metric_that_a_rule_declares_is_logged_and_another_stops_the_run(
    command: Command, files: Path
) -> None:
    written = (files / "spo.py").read_text()
    reports = written.replace('{"critic_loss"', '{"spread": 0.25, "critic_loss"')
    assert reports != written
    (files / "spo.py").write_text(reports)
    stopped = command("train", f"algo={NAME}", *SMALL, "run_dir=undeclared")
    assert stopped.code == 1 and "metrics without a definition: 'spread'" in stopped.err
    assert "Traceback" not in stopped.err

    forget()
    (files / "spo.py").write_text(reports.replace("(CRITIC_LOSS,)", f"({SPREAD})"))
    assert command("train", f"algo={NAME}", *SMALL, "run_dir=run").code == 0
    assert rows(files / "run")[-1]["algo/spread"] == 0.25


def test_a_rule_that_redefines_a_metric_of_every_run_is_refused(command: Command, files: Path) -> None:
    written = (files / "spo.py").read_text()
    (files / "spo.py").write_text(written.replace("(CRITIC_LOSS,)", f"({SPREAD.replace('spread', 'kl')})"))
    refused = command("train", f"algo={NAME}", *SMALL, "run_dir=run")
    assert refused.code == 2
    (problem,) = refused.problems
    assert problem.startswith("metric 'kl' of the update rule SPO: algo/kl (")
    assert "the key or the tag of health/kl of every run (" in problem and problem.endswith("; rename it")


@pytest.mark.slow
def test_the_rule_of_the_tutorial_reaches_the_return_of_the_page(command: Command, files: Path) -> None:
    said = command("train", f"algo={NAME}", "env=CartPole-v1", "trainer.total_steps=60_000", "run_dir=run")
    assert said.code == 0, said.err
    reached = [row["step"] for row in rows(files / "run") if row.get("rollout/episode_return_recent") == 500]
    assert reached and reached[0] < 50_000
    assert "within 50,000 steps" in PAGE.read_text()


def test_the_tutorial_s_law_holds(files: Path) -> None:
    (law,) = re.findall(r"```python\n(import torch\n.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(law, str(PAGE), "exec"), {})


def test_the_command_line_beats_its_file_and_is_checked_against_its_fields(
    command: Command, files: Path
) -> None:
    cfg = compose([f"algo={NAME}", "algo.epsilon=0.3", "optimizer.learning_rate=1e-3"])
    assert (cfg.algo.epsilon, cfg.optimizer.learning_rate, cfg.runner.rollout_steps) == (0.3, 1e-3, 128)
    (problem,) = command("train", f"algo={NAME}", "algo.epsilo=0.3").problems
    assert problem == "algo.epsilo: unknown key; did you mean 'epsilon'?"
    problems = command("train", f"algo={NAME}", "algo.epsilon=0", "algo.epochs=1.5").problems
    assert "algo.epsilon: expected a number > 0, got 0" in problems
    assert "algo.epochs: expected a whole number >= 1, got 1.5" in problems


@pytest.mark.system
def test_preferences_for_another_choice_are_dropped(command: Command, files: Path) -> None:
    """rollout_steps is its file's wish for runner=sync; runner=episodes has no such key, and is taken all the same."""
    said = command(
        "train",
        f"algo={NAME}",
        *(o for o in SMALL if "rollout_steps" not in o),
        "runner=episodes",
        "algo.minibatch_size=16",
    )
    assert said.code == 0, said.err
    (problem,) = command("train", f"algo={NAME}", "runner=episodes", "runner.rollout_steps=64").problems
    assert problem.startswith("runner.rollout_steps: unknown key")


def test_choices_of_other_groups_in_its_file_are_used(command: Command, files: Path) -> None:
    written = (files / "spo.yaml").read_text()
    (files / "spo.yaml").write_text(f"defaults:\n  - override /optimizer: sgd\n\n{written}")
    assert compose([f"algo={NAME}"]).optimizer.name == "sgd"
    assert compose([f"algo={NAME}", "optimizer=adam"]).optimizer.name == "adam"


WRONG = {
    "spo:SP": ["has no class 'SP'; did you mean 'SPO'?"],
    "nowhere:Rule": ["module 'nowhere' cannot be imported: ModuleNotFoundError"],
    "other:Nothing": [
        "Nothing is no update rule: it has no discount, uses, metrics, conflicts, estimate, update"
    ],
    "other:Plain": ["Plain is no update rule: expected a dataclass"],
    "other:Raised": ["module 'other' was imported and has no class 'Raised'"],
    "spo:Batch": ["Batch is no update rule"],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_rule_is_one_message(command: Command, files: Path, name: str) -> None:
    (files / "other.py").write_text(
        "class Nothing: pass\nclass Plain: discount = uses = metrics = conflicts = estimate = update = None\n"
    )
    (problem,) = command("train", f"algo={name}", *SMALL).problems
    assert problem.startswith(f"algo={name}: ")
    for words in WRONG[name]:
        assert words in problem


FILES = {
    None: "its values must be in a YAML file next to its module",
    "algo: [": "its values must be in a YAML file next to its module",
    "- 1\n": "its values must be in a YAML file next to its module",
    "label: spo\n": "expected a section 'algo' with 'name: spo:SPO' in it",
    "algo:\n  name: ppo\n": "expected a section 'algo' with 'name: spo:SPO' in it",
}


@pytest.mark.parametrize("content", FILES, ids=str)
def test_a_file_of_values_that_is_none_is_one_message(
    command: Command, files: Path, content: str | None
) -> None:
    (files / "spo.yaml").unlink()
    if content is not None:
        (files / "spo.yaml").write_text(content)
    (problem,) = command("train", f"algo={NAME}", *SMALL).problems
    assert f"{files / 'spo.yaml'}: {FILES[content]}" in problem


# --- files that somebody else wrote


@pytest.mark.parametrize("line", ["eval run --episodes 1", "train --resume run trainer.total_steps=768"])
def test_the_rule_of_a_stored_config_is_imported_with_trust_only(
    command: Command, files: Path, line: str
) -> None:
    assert command("train", f"algo={NAME}", *SMALL, "run_dir=run").code == 0
    forget()
    (problem,) = command(*line.split()).problems
    assert f"algo.name={NAME} would import the module 'spo'" in problem and "--trust allows it" in problem
    assert "spo" not in sys.modules
    said = command(*line.split(), "--trust")
    assert said.code == 0, said.err


@pytest.mark.system
def test_a_sweep_with_a_user_s_rule_runs_and_resumes_with_trust(command: Command, files: Path) -> None:
    said = command("train", "-m", f"algo=a2c,{NAME}", *SMALL, "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err
    assert "2 finished" in command("sweep", "status", "sweep").out
    forget()
    problems = command("sweep", "resume", "sweep").problems
    assert any(f"algo={NAME} would import the module 'spo'" in problem for problem in problems)
    assert "spo" not in sys.modules
    assert command("sweep", "resume", "sweep", "--trust").code == 0


def test_a_rule_named_by_a_detour_is_not_imported_for_the_sake_of_a_message(files: Path) -> None:
    """As a stranger's sweep.json may have it: no override names the module, and one of them is wrong."""
    with pytest.raises(UserError, match=r"algo\.bogus"):
        compose(["algo.name=${label}", "label='spo:SPO'", "algo.bogus=1"])
    assert "spo" not in sys.modules
