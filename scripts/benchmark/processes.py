"""Running what is measured in processes of its own, and `pgx train` under watch."""

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
LOOK_EVERY = 0.01  # seconds between looks at a run's metrics: the error of a moment taken from outside

Metrics = dict[str, Any]  # a row of metrics.jsonl


class PartFailed(Exception):
    """A process of a part ended badly; the message ends with the last that it said."""


def environment() -> dict[str, str]:
    """That of a child: pgx is the one beside this script, wherever another may be installed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }


def answers(python: str, script: str, *arguments: str | int | float) -> list[dict[str, Any]]:
    """The JSON lines that a script of this folder prints.

    Raises:
        PartFailed: it ended with an error, or printed none.
    """
    command = [python, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not found:
        raise PartFailed(f"{script} {' '.join(map(str, arguments))}: {_last_words(done.stderr)}")
    return found


def answer(python: str, script: str, *arguments: str | int | float) -> dict[str, Any]:
    """The last of the `answers`."""
    return answers(python, script, *arguments)[-1]


def _last_words(text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return said[-1] if said else "no message"


@dataclass(frozen=True)
class Run:
    """A run of `pgx train`, as seen from outside."""

    launched: float  # time.monotonic()
    seen: list[tuple[float, Metrics]]  # rows of metrics.jsonl, and when each was there; time.monotonic()
    peak_mb: float  # the most memory it ever had resident, MB of 2**20 bytes


def watched_run(overrides: Sequence[str], enough: Callable[[Metrics, float], bool]) -> Run:
    """Run `pgx train` in a folder that is thrown away after, noting when each row of its metrics is there.

    Args:
        overrides: of its config.
        enough: asked with each new row and the seconds since the launch; True ends the run.

    Raises:
        PartFailed: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w+") as stderr:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        command = [sys.executable, "-m", "pgx", "train", *overrides, f"run_dir={metrics.parent}"]
        launched = time.monotonic()
        # Silent, but otherwise as users run it: health, metrics, TensorBoard and checkpoints are written.
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
                time.sleep(LOOK_EVERY)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 and not stopped:
            stderr.seek(0)
            raise PartFailed(f"pgx train {' '.join(overrides)}: {_last_words(stderr.read())}")
    assert usage is not None
    return Run(launched, seen, usage.ru_maxrss / 1024)


def _new_rows(path: Path, offset: int) -> tuple[list[Metrics], int]:
    """Whole lines written since `offset`, and where the next ones will begin."""
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
