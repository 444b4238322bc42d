"""Processes of measurements, and monitored runs of `pgx train`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1]
ROOT = SCRIPTS.parent
POLL_SECONDS = 0.01  # between reads of a run's metrics; the error of measured times

Metrics = dict[str, Any]  # a row of metrics.jsonl


class PartFailed(Exception):
    """A process of a part failed; the message ends with its last line of output."""


def environment() -> dict[str, str]:
    """Return the environment of a child process, which imports pgx from this repository."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }


def answers(python: str, script: str, *arguments: str | int | float) -> list[dict[str, Any]]:
    """Run a script of this folder; return the JSON lines that it prints.

    Raises:
        PartFailed: it failed or printed none.
    """
    command = [python, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not found:
        raise PartFailed(f"{script} {' '.join(map(str, arguments))}: {_last_words(done.stderr)}")
    return found


def answer(python: str, script: str, *arguments: str | int | float) -> dict[str, Any]:
    """Run a script; return its last JSON line."""
    return answers(python, script, *arguments)[-1]


def _last_words(text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return said[-1] if said else "no message"


@dataclass(frozen=True)
class Run:
    """Monitored run of `pgx train`."""

    launched: float  # time.monotonic()
    seen: list[
        tuple[float, Metrics]
    ]  # rows of metrics.jsonl with the time of their appearance, time.monotonic()
    peak_mb: float  # peak resident memory, MB of 2**20 bytes


def watched_run(overrides: Sequence[str], enough: Callable[[Metrics, float], bool]) -> Run:
    """Run `pgx train` in a temporary folder, and record when each row of its metrics appears.

    Args:
        overrides: of the config.
        enough: called with each new row and the seconds since the launch; True stops the run.

    Raises:
        PartFailed: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w+") as stderr:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        command = [sys.executable, "-m", "pgx", "train", *overrides, f"run_dir={metrics.parent}"]
        launched = time.monotonic()
        # Only the console is off: health metrics, TensorBoard and checkpoints are written as usual.
        process = subprocess.Popen(
            [*command, "logger.console=off"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        seen: list[tuple[float, Metrics]] = []
        ended, usage, offset, stopped = 0, None, 0, False
        while not ended:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            rows, offset = _new_rows(metrics, offset)
            now = time.monotonic()
            for row in rows:
                seen.append((now, row))
                if not stopped and enough(row, now - launched):
                    stopped = True
                    process.send_signal(signal.SIGINT)
            if not ended:
                time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 and not stopped:
            stderr.seek(0)
            raise PartFailed(f"pgx train {' '.join(overrides)}: {_last_words(stderr.read())}")
    assert usage is not None
    return Run(launched, seen, usage.ru_maxrss / 1024)


def _new_rows(path: Path, offset: int) -> tuple[list[Metrics], int]:
    """Return the complete lines written since `offset`, and the offset of the next line."""
    try:
        if path.stat().st_size == offset:
            return [], offset
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read()
    except FileNotFoundError:
        return [], 0
    whole = new[: new.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)
