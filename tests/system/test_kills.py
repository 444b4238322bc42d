"""A run that is killed at any moment and resumed ends with the bits of one that was never touched.

Real processes, killed by SIGKILL in the middle of collecting, of updates, of writing checkpoints and metrics. Compared
are all parameters, moments, statistics, streams, counters, rows and TensorBoard's events.
"""

import random
import zlib
from collections import Counter
from pathlib import Path

import pytest

from pgx.algos import rules
from scripts.kill_runs import (
    BACKENDS,
    PHASES,
    Lives,
    Phase,
    Point,
    differences,
    draw,
    kill_and_resume,
    overrides,
    record,
    remains,
)

CASES = [(rule, backend) for rule in rules() for backend in BACKENDS]


@pytest.fixture(scope="module")
def lives() -> Lives:
    return Lives()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"))


def whole(lives: Lives, folder: Path, settings: list[str]) -> Counter[Phase]:
    """The run that is left alone; how many calls each of its phases has."""
    (folder / "killed").mkdir()
    return lives.left_alone(["train", *settings, f"run_dir={folder / 'whole'}"], folder / "console.log")


@pytest.mark.parametrize(
    ("number", "rule", "backend"),
    # The fast tests have each rule once, on the backends in turn.
    [
        pytest.param(n, *case, marks=pytest.mark.slow if n % 4 in (1, 2) else ())
        for n, case in enumerate(CASES)
    ],
)
def test_killed_anywhere_and_resumed_it_is_the_same_run(
    lives: Lives, dataset: Path, tmp_path: Path, number: int, rule: str, backend: str
) -> None:
    settings = overrides(rule, backend, dataset)
    counts = whole(lives, tmp_path, settings)
    chance = random.Random(zlib.crc32(f"{rule} {backend}".encode()))
    point = draw(counts, PHASES[number % len(PHASES)], chance)
    assert kill_and_resume(lives, tmp_path / "killed", settings, [point]) == []


def test_killed_after_its_last_checkpoint_it_is_ended_when_it_is_resumed(
    lives: Lives, tmp_path: Path
) -> None:
    settings = overrides("a2c", "gymnasium", None)
    counts = whole(lives, tmp_path, settings)
    killed = kill_and_resume(
        lives, tmp_path / "killed", settings, [Point("checkpoint", counts["checkpoint"])]
    )
    assert killed == [] and (tmp_path / "killed" / "run" / "summary.json").is_file()


def test_killed_again_and_again_it_is_the_same_run(lives: Lives, tmp_path: Path) -> None:
    settings = overrides("trpo", "gymnasium", None)
    counts = whole(lives, tmp_path, settings)
    early = [Point(phase, max(1, counts[phase] // 3)) for phase in PHASES]
    assert kill_and_resume(lives, tmp_path / "killed", settings, early) == []


@pytest.mark.parametrize("torn", ["last", "last and the newest", "rows"])
def test_what_is_torn_is_recognised_and_what_was_before_is_used(
    lives: Lives, tmp_path: Path, torn: str
) -> None:
    settings = overrides("ppo", "envpool", None)
    counts = whole(lives, tmp_path, settings)
    run, console = tmp_path / "killed" / "run", tmp_path / "killed" / "console.log"
    arguments = ["train", *settings, f"run_dir={run}"]
    # In the update after the third checkpoint.
    assert lives.killed(arguments, console, Point("update", int(counts["update"] * 0.95)))
    if torn == "rows":
        with (run / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 13, "health/kl"\n{"step": 14')
    else:
        newest = sorted((run / "checkpoints").glob("step_*.pt"))[-1]
        for path in [run / "checkpoints" / "last.pt", *([newest] if "newest" in torn else [])]:
            path.write_bytes(path.read_bytes()[:-1000])
    lives.left_alone(["train", "--resume", str(run), "logger.console=off"], console)
    assert differences(remains(tmp_path / "whole"), remains(run), "run") == []
    assert ("damaged" in console.read_text()) == (torn != "rows")


@pytest.mark.parametrize("number", [1, 4, 7, 11, 12, 14, 16, 30])
def test_a_disk_that_refuses_a_write_costs_nothing(lives: Lives, tmp_path: Path, number: int) -> None:
    settings = overrides("ppo", "gymnasium", None)
    whole(lives, tmp_path, settings)
    console = tmp_path / "killed" / "console.log"
    arguments = ["train", *settings, f"run_dir={tmp_path / 'killed' / 'run'}"]
    assert lives.refused(arguments, console, number) is not None
    assert "cannot be written (No space left on device)" in console.read_text()
    assert differences(remains(tmp_path / "whole"), remains(tmp_path / "killed" / "run"), "run") == []
