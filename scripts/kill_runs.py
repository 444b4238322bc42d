"""Kill runs (SIGKILL) at chosen points, resume them, and compare them with uninterrupted runs.

    python scripts/kill_runs.py --points 200             kills at random points, over all rules and both backends
    python scripts/kill_runs.py --refusals               a full disk at each write of a run in turn

A point is a call of a Python or a C function (a write, an fsync, a rename among them) in one of four phases of a run:
collecting, updating, writing a checkpoint, writing metrics. Each run is a separate process. docs/reliability.md has
results.
"""

import argparse
import errno
import importlib.util
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

Phase = Literal["collect", "update", "checkpoint", "metrics"]
PHASES: tuple[Phase, ...] = ("collect", "update", "checkpoint", "metrics")
BACKENDS = ("gymnasium", "envpool")
WRITES = {"write", "fsync", "open", "replace", "mkdir", "ftruncate"}  # calls that a full disk makes fail

# Overrides with which a rule learns from 128 rows.
SMALL = {
    "trpo": ["algo.critic_minibatch_size=64"],
    "npg": ["algo.critic_minibatch_size=64"],
    "off_policy_reinforce": ["runner.episodes=4"],
    "ppg": ["algo.policy_iterations=3", "algo.auxiliary_epochs=2", "algo.auxiliary_minibatch_size=128"],
}


@dataclass(frozen=True)
class Point:
    """Call number `event` (from 1) in a phase, counted over the whole process."""

    phase: Phase
    event: int


def overrides(rule: str, backend: str, dataset: Path | None) -> list[str]:
    """Return overrides of a run of some seconds, with three checkpoints and health metrics between them."""
    chosen = [f"algo={rule}", "env=Hopper-v4", f"env.backend={backend}", "env.num_envs=4"]
    budget = ["trainer.total_steps=700", "trainer.checkpoint_every=200", "logger.every=2"]
    silent = ["logger.console=off", "trainer.compile=false"]
    if backend == "envpool":
        silent.append("env.num_threads=1")
    if rule == "off_policy_reinforce":
        budget.append(f"dataset={dataset}")
    elif rule != "reinforce":
        budget.append("runner.rollout_steps=32")
    return [*chosen, *budget, *silent, *SMALL.get(rule, [])]


# --- in the process of the run


class CallCounter:
    """Counter of calls in each phase that invokes `act` at each call."""

    def __init__(self, act: Callable[[Phase, int, str], None]) -> None:
        self.act = act
        self.counts: Counter[Phase] = Counter()
        self._phase: Phase = "collect"

    def begin(self) -> None:
        """Start counting calls inside the methods of the phases."""
        from pgx.algos import rule, rules
        from pgx.rollouts.dataset import DatasetRunner
        from pgx.rollouts.sync import EpisodeRunner, SyncRunner
        from pgx.runs.writer import RunWriter

        self._watch_method(RunWriter, "_write_pending", "checkpoint")
        self._watch_method(RunWriter, "write_row", "metrics")
        for runner in (SyncRunner, EpisodeRunner, DatasetRunner):
            self._watch_method(runner, "collect", "collect")
        for name in rules():
            self._watch_method(rule(name), "update", "update")

    def _watch_method(self, owner: Any, name: str, phase: Phase) -> None:
        method = getattr(owner, name)

        def watched(*arguments: Any) -> Any:
            self._phase = phase
            sys.setprofile(self._on_call)
            try:
                return method(*arguments)
            finally:
                sys.setprofile(None)

        setattr(owner, name, watched)

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> None:
        self.counts[self._phase] += 1
        self.act(self._phase, self.counts[self._phase], arg.__name__ if event == "c_call" else "")


def run_watched(
    arguments: list[str], console: Path, act: Callable[[Phase, int, str], None], counts: Any
) -> None:
    """Run a command in this process; put the number of calls of each phase into the queue `counts`, if any."""
    import torch

    from pgx.cli.main import main

    torch.set_num_threads(1)
    watch = CallCounter(act)
    watch.begin()
    with console.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            main(arguments)
        finally:
            if counts is not None:
                counts.put(dict(watch.counts))


@dataclass(frozen=True)
class Kill:
    """Action that kills this process at a point."""

    point: Point

    def __call__(self, phase: Phase, number: int, called: str) -> None:
        if (phase, number) == (self.point.phase, self.point.event):
            os.kill(os.getpid(), signal.SIGKILL)


class Refuse:
    """Action that simulates a full disk at the `number`th call that writes records of the run."""

    def __init__(self, number: int, found: Any) -> None:
        self.number = number
        self.found = found
        self._seen = 0

    def __call__(self, phase: Phase, number: int, called: str) -> None:
        if phase in ("checkpoint", "metrics") and called in WRITES:
            self._seen += 1
            if self._seen == self.number:
                self.found.put(called)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def ignore_call(phase: Phase, number: int, called: str) -> None:
    """Do nothing."""


# --- in the parent process


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "pgx.training.build",
            "pgx.cli.train",
            "pgx.cli.main",
            "pgx.algos",
            "mujoco",
            "sympy",
            "gymnasium.envs.mujoco.hopper_v4",
        ]
        + ["envpool"] * (importlib.util.find_spec("envpool") is not None)
    )
    return context


class RunProcesses:
    """Runs in processes that are forked from one with all imports."""

    def __init__(self) -> None:
        self._context = _context()

    def run(self, arguments: list[str], console: Path) -> Counter[Phase]:
        """Run a command to its end; return the number of calls in each phase."""
        counts = self._context.Queue()
        process = self._context.Process(target=run_watched, args=(arguments, console, ignore_call, counts))
        process.start()
        found: dict[Phase, int] = counts.get(timeout=300)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.exitcode}: {console.read_text()}")
        return Counter(found)

    def run_killed(self, arguments: list[str], console: Path, point: Point) -> bool:
        """Run a command and kill it at a point; return False if it ended before."""
        process = self._context.Process(target=run_watched, args=(arguments, console, Kill(point), None))
        process.start()
        process.join()
        return bool(process.exitcode == -signal.SIGKILL)

    def run_refused(self, arguments: list[str], console: Path, number: int) -> str | None:
        """Run a command to its end with one failing write; return the name of the call, None if there was none."""
        found = self._context.Queue()
        process = self._context.Process(
            target=run_watched, args=(arguments, console, Refuse(number, found), None)
        )
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.exitcode}: {console.read_text()}")
        return None if found.empty() else str(found.get())


def read_run(run: Path) -> dict[str, Any]:
    """Read what must be equal in two runs: last and best state, rows and events, without durations."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from pgx.runs.loggers.jsonl import read_rows

    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    best = run / "checkpoints" / "best.pt"
    state["best"] = torch.load(best, weights_only=True) if best.is_file() else None
    for part in (state, state["best"] or {}):
        for key in ("config", "versions"):
            part.pop(key, None)
        part.get("counters", {}).pop("seconds", None)
    rows = [
        {tag: x for tag, x in row.items() if not tag.startswith("time/")}
        for row in read_rows(run / "metrics.jsonl")
    ]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    shown = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("time/") and tag != "result/seconds"
    }
    return {
        "state": state,
        "rows": rows,
        "events": shown,
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }


def differences(one: Any, other: Any, where: str) -> list[str]:
    """Return the places where two states differ, compared bit by bit."""
    import torch

    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [f"{where}: {key}" for key in one.keys() ^ other.keys()]
        return keys + [
            d
            for key in one.keys() & other.keys()
            for d in differences(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            d
            for i, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{where}[{i}]")
        ]
    return (
        []
        if type(one) is type(other) and one == other
        else [f"{where}: {str(one)[:60]} != {str(other)[:60]}"]
    )


def kill_and_resume(
    processes: RunProcesses, folder: Path, settings: Sequence[str], points: Sequence[Point]
) -> list[str]:
    """Kill a run at each point in turn, resume it each time, and let it end; return its differences from `whole`.

    Args:
        processes: starts the runs.
        folder: for the run. The uninterrupted run is in the folder `whole` next to it.
        settings: of the run.
        points: the second one counts calls of the second process, and so on.
    """
    console = folder / "console.log"
    arguments = ["train", *settings, f"run_dir={folder / 'run'}"]
    for point in points:
        if not processes.run_killed(arguments, console, point):
            break
        arguments = ["train", "--resume", str(folder / "run"), "logger.console=off"]
    else:
        processes.run(arguments, console)
    return differences(read_run(folder.parent / "whole"), read_run(folder / "run"), "run")


def draw(counts: Counter[Phase], phase: Phase, random: random.Random) -> Point:
    """Return a random point of a phase, uniform over its calls."""
    return Point(phase, random.randint(1, counts[phase]))


def _rules() -> list[str]:
    from pgx.algos import rules

    return list(rules())


def record_dataset(folder: Path) -> Path:
    """Write a dataset for off_policy_reinforce; return its folder."""
    from pgx.cli.main import main

    run, dataset = folder / "recorded", folder / "dataset"
    settings = [
        "algo=reinforce",
        "env=Hopper-v4",
        "env.backend=gymnasium",
        "env.num_envs=4",
        "trainer.total_steps=64",
    ]
    for arguments in (
        ["train", *settings, "logger.console=off", "trainer.compile=false", f"run_dir={run}"],
        ["collect", str(run), "--episodes", "16", "--out", str(dataset)],
    ):
        try:
            with (folder / "console.log").open("a") as file, redirect_stdout(file), redirect_stderr(file):
                main(arguments)
        except SystemExit as ended:
            if ended.code != 0:
                raise RuntimeError((folder / "console.log").read_text()) from ended
    return dataset


def _kill(processes: RunProcesses, folder: Path, points: int, seed: int) -> int:
    chance = random.Random(seed)
    dataset = record_dataset(folder)
    cases = [(rule, backend) for rule in _rules() for backend in BACKENDS]
    wholes: dict[tuple[str, str], Counter[Phase]] = {}
    done: Counter[Phase] = Counter()
    wrong, started = 0, time.monotonic()
    for number in range(points):
        rule, backend = cases[number % len(cases)]
        phase = PHASES[number // len(cases) % len(PHASES)] if points > len(cases) else chance.choice(PHASES)
        home = folder / f"{rule}-{backend}"
        settings = overrides(rule, backend, dataset)
        if (rule, backend) not in wholes:
            home.mkdir()
            wholes[rule, backend] = processes.run(
                ["train", *settings, f"run_dir={home / 'whole'}"], home / "console.log"
            )
        point = draw(wholes[rule, backend], phase, chance)
        (home / str(number)).mkdir()
        found = kill_and_resume(processes, home / str(number), settings, [point])
        done[phase] += 1
        wrong += bool(found)
        left = (time.monotonic() - started) / (number + 1) * (points - number - 1)
        verdict = "the same" if not found else f"DIFFERS in {len(found)}: {found[0]}"
        print(
            f"[{number + 1}/{points}] {rule}, {backend}: killed in {point.phase} at call {point.event:,}: {verdict}; "
            f"{left:,.0f} s left",
            flush=True,
        )
    print(
        ", ".join(f"{done[phase]} in {phase}" for phase in PHASES)
        + f": {wrong} of {points} ended differently"
    )
    return int(wrong > 0)


def _refuse(processes: RunProcesses, folder: Path) -> int:
    settings = overrides("ppo", "gymnasium", None)
    processes.run(["train", *settings, f"run_dir={folder / 'whole'}"], folder / "console.log")
    whole, refused, wrong = read_run(folder / "whole"), Counter[str](), 0
    while True:
        number = refused.total() + 1
        home = folder / str(number)
        home.mkdir()
        called = processes.run_refused(
            ["train", *settings, f"run_dir={home / 'run'}"], home / "console.log", number
        )
        if called is None:
            break
        refused[called] += 1
        found = differences(whole, read_run(home / "run"), "run")
        wrong += bool(found)
        print(
            f"[{number}] {called} refused: {'the same' if not found else f'DIFFERS: {found[0]}'}", flush=True
        )
    print(
        ", ".join(f"{n} {name}" for name, n in refused.items())
        + f": {wrong} of {refused.total()} ended differently"
    )
    return int(wrong > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=200, help="runs to kill (200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the points (0)")
    parser.add_argument("--refusals", action="store_true", help="make writes fail instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.refusals:
            return _refuse(RunProcesses(), Path(folder))
        return _kill(RunProcesses(), Path(folder), options.points, options.seed)


if __name__ == "__main__":
    sys.exit(main())
