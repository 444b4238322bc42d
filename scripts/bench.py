"""How fast pgx is on this machine, beside the simulator alone and, where they are given, beside its peers.

    python scripts/bench.py --rounds 3 --peer-python /path/to/venv/bin/python --tianshou-python /path/to/...
    python scripts/bench.py --quick                 one small round, as many parts at once as there are
                                                    cores: shows that they work; its figures mean nothing
    python scripts/bench.py --only until --rounds 3 --peer-python ...     hours; a round is a seed

All parts run in turn, A B C A B C ..., so that a machine whose speed drifts treats them alike. Each number is a JSON
line on standard output as soon as it is there; the table of medians, ranges and ratios comes last. docs/performance.md
says what each row means.

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
    """Of jobs, from `--only`."""
    chosen = text.split(",")
    for name in chosen:
        if name not in JOBS:
            near = get_close_matches(name, JOBS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise argparse.ArgumentTypeError(f"no job '{name}'{hint} (jobs: {', '.join(JOBS)})")
    return [name for name in JOBS if name in chosen]


def python(text: str) -> str:
    """A Python to run, from an option."""
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
    parser.add_argument("--only", type=names, default=list(BY_DEFAULT), help="jobs by name, with commas")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each part runs (3)")
    parser.add_argument(
        "--quick", action="store_true", help="one small round, parts at once, to see that they work"
    )
    parser.add_argument(
        "--peer-python", type=python, help="of an environment with SB3, sb3-contrib and EnvPool"
    )
    parser.add_argument("--tianshou-python", type=python, help="of an environment with Tianshou and EnvPool")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the JSON lines to it")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to it")
    return parser


class Progress:
    """What is under way and how long it will take, on standard error."""

    def __init__(self, schedule: list[tuple[int, Part]], at_once: int) -> None:
        self.schedule = schedule
        self.at_once = at_once
        self.seconds: dict[tuple[str, str], float] = {}  # a part took, the last time
        self.done = 0

    def note(self, part: Part, seconds: float, said: str) -> None:
        self.seconds[part.job, part.name] = seconds
        self.done += 1
        print(
            f"[{self.done}/{len(self.schedule)}] {part.job}: {part.name}: {said} ({seconds:.0f} s; {self._left()})",
            file=sys.stderr,
            flush=True,
        )

    def _left(self) -> str:
        """Each part again as long as the last time, one that has not run yet as long as others on average."""
        usual = sum(self.seconds.values()) / len(self.seconds)
        rest = [self.seconds.get((part.job, part.name), usual) for _, part in self.schedule[self.done :]]
        minutes, seconds = divmod(round(sum(rest) / self.at_once), 60)
        return f"about {minutes}:{seconds:02d} left"


Outcome = list[Row] | PartFailed


def outcome(scheduled: tuple[int, Part]) -> tuple[Outcome, float]:
    """A part's rows, or how it failed; and the seconds that it took."""
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
    """Run every part, writing lines as they come; the rows, and what did not go well in words."""
    rows: list[Row] = []
    failed: list[str] = []
    progress = Progress(schedule, at_once)
    pool = ThreadPoolExecutor(at_once)  # it only waits for processes
    try:
        for (number_of_round, part), (found, seconds) in zip(
            schedule, pool.map(outcome, schedule), strict=True
        ):
            if isinstance(found, PartFailed):
                failed.append(f"failed: {part.job}, {part.name}, round {number_of_round}: {found}")
                about = {"kind": "failure", "job": part.job, "part": part.name, "round": number_of_round}
                write([json.dumps(about | {"error": str(found)})], emit)
                progress.note(part, seconds, f"failed: {found}")
            else:
                rows += found
                write([to_json(row) for row in found], emit)
                progress.note(part, seconds, ", ".join(said(row) for row in found))
    except KeyboardInterrupt:
        failed.append(f"interrupted after {progress.done} of {len(schedule)} parts")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return rows, failed


def said(row: Row) -> str:
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
