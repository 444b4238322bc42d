"""Measure the speed of pgx on this machine, of the simulator alone and, optionally, of other libraries.

    python scripts/bench.py --rounds 3 --peer-python /path/to/venv/bin/python --tianshou-python /path/to/...
    python scripts/bench.py --quick                 one small round with one part per core at once: tests the parts;
                                                    its figures mean nothing
    python scripts/bench.py --only until --rounds 3 --peer-python ...     hours; a round is a seed

All parts alternate, A B C A B C ..., so that a drift in the speed of the machine affects all alike. Each number is
printed at once as a JSON line; the table of medians, ranges and ratios is printed at the end. docs/performance.md
explains the rows.

jobs: {jobs}
"""

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

from benchmark.jobs import BY_DEFAULT, JOBS, Part, Pythons, left_out, parts
from benchmark.machine import SB3, TIANSHOU, cores, describe, in_words, installed_elsewhere
from benchmark.processes import ROOT, PartFailed
from benchmark.rows import Row, to_json
from benchmark.sizes import FULL, QUICK
from benchmark.table import number, table


def names(text: str) -> list[str]:
    """Parse the job names of `--only`."""
    chosen = text.split(",")
    for name in chosen:
        if name not in JOBS:
            near = get_close_matches(name, JOBS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise argparse.ArgumentTypeError(f"no job '{name}'{hint} (jobs: {', '.join(JOBS)})")
    return [name for name in JOBS if name in chosen]


def python(text: str) -> str:
    """Parse the path of a Python interpreter."""
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text}: expected a Python that can be run, e.g. /path/to/venv/bin/python"
        )
    return found


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got '{text}'")
    return int(text)


def command_line() -> argparse.ArgumentParser:
    doc = (__doc__ or "").format(jobs="".join(f"\n  {name:13}{what}" for name, what in JOBS.items()))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=names, default=list(BY_DEFAULT), help="names of jobs, separated by commas"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="runs of each part (3)")
    parser.add_argument(
        "--quick", action="store_true", help="one small round, parts concurrently, to test them"
    )
    parser.add_argument(
        "--peer-python", type=python, help="Python of an environment with SB3, sb3-contrib and EnvPool"
    )
    parser.add_argument(
        "--tianshou-python", type=python, help="Python of an environment with Tianshou and EnvPool"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to append the JSON lines to")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="file to write the table to")
    return parser


class Progress:
    """Progress and remaining time, printed to standard error."""

    def __init__(self, schedule: list[tuple[int, Part]], at_once: int) -> None:
        self.schedule = schedule
        self.at_once = at_once
        self.seconds: dict[tuple[str, str], float] = {}  # (job, part): duration of its last run
        self.done = 0

    def note(self, part: Part, seconds: float, result: str) -> None:
        self.seconds[part.job, part.name] = seconds
        self.done += 1
        print(
            f"[{self.done}/{len(self.schedule)}] {part.job}: {part.name}: {result} ({seconds:.0f} s; {self._left()})",
            file=sys.stderr,
            flush=True,
        )

    def _left(self) -> str:
        """Return the estimated time left. A part takes as long as its last run, a new one as long as the average."""
        usual = sum(self.seconds.values()) / len(self.seconds)
        rest = [self.seconds.get((part.job, part.name), usual) for _, part in self.schedule[self.done :]]
        minutes, seconds = divmod(round(sum(rest) / self.at_once), 60)
        return f"about {minutes}:{seconds:02d} left"


Outcome = list[Row] | PartFailed


def run_part(scheduled: tuple[int, Part]) -> tuple[Outcome, float]:
    """Measure a part; return its rows or its failure, and its duration in seconds."""
    number_of_round, part = scheduled
    started = time.monotonic()
    try:
        rows: Outcome = [replace(row, round=number_of_round) for row in part.measure(number_of_round)]
    except PartFailed as error:
        rows = error
    return rows, time.monotonic() - started


def measure(
    schedule: list[tuple[int, Part]], at_once: int, emit: list[TextIO]
) -> tuple[list[Row], list[str]]:
    """Run all parts and write a line for each result; return the rows and the failures as text."""
    rows: list[Row] = []
    failed: list[str] = []
    progress = Progress(schedule, at_once)
    pool = ThreadPoolExecutor(at_once)  # it only waits for processes
    try:
        for (number_of_round, part), (found, seconds) in zip(
            schedule, pool.map(run_part, schedule), strict=True
        ):
            if isinstance(found, PartFailed):
                failed.append(f"failed: {part.job}, {part.name}, round {number_of_round}: {found}")
                about = {"kind": "failure", "job": part.job, "part": part.name, "round": number_of_round}
                write([json.dumps(about | {"error": str(found)})], emit)
                progress.note(part, seconds, f"failed: {found}")
            else:
                rows += found
                write([to_json(row) for row in found], emit)
                progress.note(part, seconds, ", ".join(value_text(row) for row in found))
    except KeyboardInterrupt:
        failed.append(f"interrupted after {progress.done} of {len(schedule)} parts")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return rows, failed


def value_text(row: Row) -> str:
    return "not reached" if row.value is None else f"{number(row.value, row.unit)} {row.unit}"


def write(lines: list[str], emit: list[TextIO]) -> None:
    for file in emit:
        for line in lines:
            print(line, file=file, flush=True)


def main() -> int:
    options = command_line().parse_args()
    pythons = Pythons(options.peer_python, options.tianshou_python)
    others = {}
    if pythons.sb3:
        others["SB3"] = installed_elsewhere(pythons.sb3, SB3)
    if pythons.tianshou:
        others["Tianshou"] = installed_elsewhere(pythons.tianshou, TIANSHOU)
    machine = describe(ROOT, others)
    missing = left_out(options.only, pythons)
    for line in missing:
        print(line, file=sys.stderr)

    rounds = 1 if options.quick else options.rounds
    chosen = parts(options.only, QUICK if options.quick else FULL, pythons, options.quick)
    schedule = [(number_of_round, part) for number_of_round in range(rounds) for part in chosen]
    emit = [sys.stdout]
    if options.json:
        emit.append(options.json.open("a"))
    write([json.dumps(machine | {"quick": options.quick})], emit)
    rows, failed = measure(schedule, cores() if options.quick else 1, emit)

    notes = [f"- {line}" for line in [*missing, *failed]]
    quick = ["A quick run: its figures mean nothing."] if options.quick else []
    text = "\n".join([*quick, in_words(machine), "", table(rows) if rows else "", *notes]).strip() + "\n"
    print(f"\n{text}")
    if options.markdown:
        options.markdown.write_text(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
