"""A run that is killed at any moment and resumed ends with the same bits as an uninterrupted one.

Processes are killed with SIGKILL during collection, updates, and writes of checkpoints and metrics. The tests compare
parameters, moments, statistics, random streams, counters, rows and TensorBoard events.
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
    Phase,
    Point,
    RunProcesses,
    differences,
    draw,
    kill_and_resume,
    overrides,
    read_run,
    record_dataset,
)

CASES = [(rule, backend) for rule in rules() for backend in BACKENDS]


@pytest.fixture(scope="module")
def processes() -> RunProcesses:
    return RunProcesses()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_dataset(tmp_path_factory.mktemp("recorded"))


def whole(processes: RunProcesses, folder: Path, settings: list[str]) -> Counter[Phase]:
    """Run without interruption; return the number of calls in each phase."""
    (folder / "killed").mkdir()
    return processes.run(["train", *settings, f"run_dir={folder / 'whole'}"], folder / "console.log")


@pytest.mark.parametrize(
    ("number", "rule", "backend"),
    # Tests that are not slow cover each rule once, with alternating backends.
    [
        pytest.param(n, *case, marks=pytest.mark.slow if n % 4 in (1, 2) else ())
        for n, case in enumerate(CASES)
    ],
)
def test_a_run_that_is_killed_anywhere_and_resumed_ends_with_the_same_bits(
    processes: RunProcesses, dataset: Path, tmp_path: Path, number: int, rule: str, backend: str
) -> None:
    settings = overrides(rule, backend, dataset)
    counts = whole(processes, tmp_path, settings)
    chance = random.Random(zlib.crc32(f"{rule} {backend}".encode()))
    point = draw(counts, PHASES[number % len(PHASES)], chance)
    assert kill_and_resume(processes, tmp_path / "killed", settings, [point]) == []


def test_a_run_that_is_killed_after_its_last_checkpoint_ends_when_resumed(
    processes: RunProcesses, tmp_path: Path
) -> None:
    settings = overrides("a2c", "gymnasium", None)
    counts = whole(processes, tmp_path, settings)
    killed = kill_and_resume(
        processes, tmp_path / "killed", settings, [Point("checkpoint", counts["checkpoint"])]
    )
    assert killed == [] and (tmp_path / "killed" / "run" / "summary.json").is_file()


def test_a_run_that_is_killed_repeatedly_ends_with_the_same_bits(
    processes: RunProcesses, tmp_path: Path
) -> None:
    settings = overrides("trpo", "gymnasium", None)
    counts = whole(processes, tmp_path, settings)
    early = [Point(phase, max(1, counts[phase] // 3)) for phase in PHASES]
    assert kill_and_resume(processes, tmp_path / "killed", settings, early) == []


@pytest.mark.parametrize("torn", ["last", "last and the newest", "rows"])
def test_a_truncated_file_is_detected_and_the_previous_one_used(
    processes: RunProcesses, tmp_path: Path, torn: str
) -> None:
    settings = overrides("ppo", "envpool", None)
    counts = whole(processes, tmp_path, settings)
    run, console = tmp_path / "killed" / "run", tmp_path / "killed" / "console.log"
    arguments = ["train", *settings, f"run_dir={run}"]
    # In the update after the third checkpoint.
    assert processes.run_killed(arguments, console, Point("update", int(counts["update"] * 0.95)))
    if torn == "rows":
        with (run / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 13, "health/kl"\n{"step": 14')
    else:
        newest = sorted((run / "checkpoints").glob("step_*.pt"))[-1]
        for path in [run / "checkpoints" / "last.pt", *([newest] if "newest" in torn else [])]:
            path.write_bytes(path.read_bytes()[:-1000])
    processes.run(["train", "--resume", str(run), "logger.console=off"], console)
    assert differences(read_run(tmp_path / "whole"), read_run(run), "run") == []
    assert ("damaged" in console.read_text()) == (torn != "rows")


@pytest.mark.parametrize("number", [1, 4, 7, 11, 12, 14, 16, 30])
def test_a_failing_write_changes_nothing(processes: RunProcesses, tmp_path: Path, number: int) -> None:
    settings = overrides("ppo", "gymnasium", None)
    whole(processes, tmp_path, settings)
    console = tmp_path / "killed" / "console.log"
    arguments = ["train", *settings, f"run_dir={tmp_path / 'killed' / 'run'}"]
    assert processes.run_refused(arguments, console, number) is not None
    assert "cannot be written (No space left on device)" in console.read_text()
    assert differences(read_run(tmp_path / "whole"), read_run(tmp_path / "killed" / "run"), "run") == []
