"""Each file of examples/ works with the command at its top."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.warm import pgx

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))
SMALL = ["env.num_envs=4", "trainer.total_steps=1024", "trainer.compile=false", "run_dir=run"]
RETURN = "rollout/episode_return"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writable copy of examples/."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


def commands(name: str) -> list[list[str]]:
    """Return the `pgx` commands at the top of an example, as words after `pgx`."""
    found = re.findall(r"^    pgx (.+)$", heading(name), re.MULTILINE)
    return [shlex.split(command) for command in found]


def heading(name: str) -> str:
    """Return the docstring of an example."""
    return (EXAMPLES / name).read_text().split('"""')[1]


def train(name: str, folder: Path) -> list[dict[str, float]]:
    """Run the training command of an example for a few steps; return its rows of metrics."""
    (words,) = (words for words in commands(name) if words[0] == "train")
    done = pgx(*words, *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_every_example_is_in_the_table_and_has_a_command() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert len(FILES) >= 3
    for name in FILES:
        assert f"[{name}]({name})" in page
        trains = [words for words in commands(name) if words[0] == "train"]
        assert trains or f"    python {name}\n" in heading(name), name


def test_the_environment_passes_its_checks_and_pays_minus_a_distance(folder: Path) -> None:
    (check,) = (words for words in commands("custom_environment.py") if words[0] == "check")
    done = pgx(*check, cwd=folder)
    assert done.returncode == 0 and " 0 fail" in done.stdout, done.stdout
    returns = [row[RETURN] for row in train("custom_environment.py", folder) if RETURN in row]
    assert returns and max(returns) < 0


def test_the_rule_trains_under_its_own_name_and_learns(folder: Path) -> None:
    train("custom_rule.py", folder)
    config = (folder / "run" / "config.yaml").read_text()
    assert "label: policy_gradient" in config and "name: custom_rule:PolicyGradient" in config
    (words,) = commands("custom_rule.py")
    longer = [word for word in words if not word.startswith("trainer.total_steps=")]
    done = pgx(*longer, "trainer.total_steps=40_000", "trainer.compile=false", "run_dir=longer", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "longer" / "summary.json").read_text())["best_return"] > 200


def test_the_reward_term_is_one_for_straight_knees_and_part_of_the_return(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in train("custom_reward.py", folder) if "reward/knees" in row]
    assert rows
    for row in rows:
        assert row[RETURN] == pytest.approx(row["rollout/unshaped_return"] + row["reward/knees"], rel=1e-5)
    monkeypatch.syspath_prepend(folder)
    from custom_reward import straight_knees  # type: ignore[import-not-found]

    qpos = np.zeros((3, 9))
    qpos[1, [4, 7]] = -0.5  # both knees bent by `bend`
    qpos[2, :4] = 1.0  # all other joints moved
    assert straight_knees(qpos, bend=0.5) == pytest.approx([1.0, np.exp(-1.0), 1.0])


def test_the_callback_logs_its_metric_and_ends_a_run_without_progress(folder: Path) -> None:
    (words,) = commands("custom_callback.py")
    frozen = [
        "optimizer.learning_rate=1e-12",
        "logger.sinks=[]",
        "trainer.compile=false",
        "run_dir=run",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pgx", *words, *frozen],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "\nstopped at " in done.stdout
    assert rows[-1]["patience/waited"] > 20_000 >= rows[-2]["patience/waited"]
    assert rows[-1]["step"] < 200_000


def test_the_callback_stops_a_run_of_python(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "custom_callback.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"outputs/CartPole-v1/ppo/\S+: (stopped|finished) at [\d,]+ steps", last)


def test_the_open_loop_learns_to_balance(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "open_loop.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    returns = [float(text) for text in re.findall(r"return +([\d.]+)", done.stdout)]
    assert returns[0] < 60 and returns[-1] > 450 and not (folder / "outputs").exists()
