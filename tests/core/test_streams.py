"""Output that fails does not end a run, and no character does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from pgx.core.streams import GuardedStream
from tests.command import Command

RUN = [
    "train", "env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "env.num_envs=4", "runner.rollout_steps=32",
    "trainer.total_steps=512", "trainer.compile=false", "logger.sinks=[]",
]  # fmt: skip


@contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """Give the writing end of a pipe that nobody reads any more, as `pgx ... | head -1` leaves it."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:  # noqa: PTH123
        yield stream


@contextmanager
def full_disk() -> Iterator[TextIO]:
    with Path("/dev/full").open("w") as stream:
        yield stream


@pytest.mark.parametrize("style", ["logger.console_interval=0.001", "logger.console=live"])
@pytest.mark.parametrize(
    ("broken", "reason"), [(closed_pipe, "Broken pipe"), (full_disk, "No space left on device")]
)
def test_a_run_goes_on_without_a_console(
    command: Command, tmp_path: Path, broken: type[TextIO], reason: str, style: str
) -> None:
    with broken() as stream, redirect_stdout(stream):
        said = command(*RUN, style, "run_dir=run")
    assert said.code == 0
    assert said.err == f"pgx: standard output cannot be written ({reason}); the run continues without it\n"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["steps"] >= 512


def test_a_command_that_only_prints_ends_without_a_reader(command: Command) -> None:
    with closed_pipe() as stream, redirect_stdout(stream):
        said = command("algos")
    assert (said.code, said.err) == (1, "")
    with full_disk() as stream, redirect_stdout(stream):
        assert command("algos").problems == ["standard output: cannot be written: No space left on device"]


def test_a_failure_is_reported_once_and_what_follows_is_dropped() -> None:
    failures: list[OSError] = []
    with full_disk() as stream:
        guarded = GuardedStream(stream, failures.append)
        for _ in range(3):
            print("text", file=guarded, flush=True)  # type: ignore[call-overload]
    assert len(failures) == 1


@pytest.mark.system
def test_a_locale_without_utf_8_lists_trains_and_reads(tmp_path: Path) -> None:
    """In a process of its own: the encoding of paths is chosen when Python starts."""
    calls = [
        ["algos"],
        [*RUN, "run_dir='ü'", "logger.sinks=[tensorboard]"],
        ["compare", "ü"],
        ["doctor", "ü"],
    ]
    program = (
        "import json, sys\nfrom pgx.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n        main([word.encode().decode('ascii', 'surrogateescape') for word in words])\n"
        "    except SystemExit as ended:\n        assert not ended.code, words\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(calls)],
        cwd=tmp_path, env=os.environ | ascii_only, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert "run ü\n" in done.stdout.decode()
    assert "run_dir: ü\n" in (tmp_path / "ü" / "config.yaml").read_text(encoding="utf-8")
