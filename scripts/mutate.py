"""Apply the mutations of scripts/mutations/*.toml one at a time and check that the tests of `make test` fail.

python scripts/mutate.py                        run all mutations that have no outcome for the current code
python scripts/mutate.py --only trpo            run mutations whose name or file contains a text
python scripts/mutate.py --sample 10 --seed 7   run ten, drawn at random
python scripts/mutate.py --list                 list the selected mutations

A mutation names a file, a text that occurs there once, its replacement and the tests that must fail. The script applies
it to a copy of the working tree, runs the tests there and prints `caught` or `survived`. The exit code is 1 if a
mutation survives that is not declared equivalent. Outcomes are stored in outputs/mutations.jsonl, so an interrupted
call continues and later calls run only mutations whose code or tests changed.
"""

import argparse
import compileall
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "scripts" / "mutations"
OUTCOMES = ROOT / "outputs" / "mutations.jsonl"
TIMEOUT = 180  # seconds; a mutation may cause an endless loop
COPIED = ("pgx", "configs", "hydra_plugins", "tests", "scripts", "docs")
LOADED = (
    "torch", "gymnasium", "envpool", "omegaconf", "numpy", "matplotlib.pyplot", "mujoco", "PIL.Image", "rich.live",
    "rich.progress", "tensorboard.plugins.hparams.api_pb2", "tensorboard.summary.writer.record_writer",
    "torch.utils.tensorboard.summary", "hydra.main",
    "hypothesis.strategies", "hypothesis.internal.conjecture.engine",
)  # fmt: skip
# LOADED includes pytest plugins, whose assertions pytest can then no longer rewrite.
REWRITE = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutation:
    """Deliberate bug, with the tests that must fail."""

    name: str  # description of the bug
    file: str  # path from the root of the repository
    old: str  # occurs once in the file
    new: str
    tests: tuple[str, ...]  # files or test ids for pytest
    equivalent: str = ""  # reason why the mutation does not change behaviour

    def mutated(self, source: str) -> str:
        """Return the source with the mutation applied.

        Raises:
            ValueError: the text to replace does not occur exactly once, or nothing would change.
        """
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: the text to replace occurs {count} times in {self.file}")
        if self.old == self.new:
            raise ValueError(f"{self.name}: changes nothing")
        return source.replace(self.old, self.new)

    @property
    def digest(self) -> str:
        """Hash of the mutation, the mutated file and the test files."""
        files = [self.file, *(test.partition("::")[0] for test in self.tests)]
        parts = [json.dumps(asdict(self)), *((ROOT / file).read_text() for file in files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def mutations() -> list[Mutation]:
    """Return the mutations of all tables, ordered by file name."""
    found = []
    for path in sorted(TABLES.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            found.append(Mutation(**{**entry, "tests": tuple(entry["tests"])}))
    return found


def fast_tests() -> str:
    """Return the marker expression of `make test`, which the Makefile defines."""
    found = re.search(r"^FAST_TESTS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None, "Makefile: FAST_TESTS is missing"
    return found[1]


def stored_outcomes() -> dict[str, str]:
    """Return the outcomes of previous calls by digest."""
    if not OUTCOMES.exists():
        return {}
    rows = [json.loads(line) for line in OUTCOMES.read_text().splitlines()]
    return {row["digest"]: row["outcome"] for row in rows}


def _store(digest: str, mutation: Mutation, outcome: str) -> None:
    OUTCOMES.parent.mkdir(exist_ok=True)
    with OUTCOMES.open("a") as file:
        file.write(json.dumps({"digest": digest, "name": mutation.name, "outcome": outcome}) + "\n")


def copy_tree(to: Path) -> None:
    """Copy the folders and files that tests read."""
    for name in COPIED:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, to / path.name)
    compileall.compile_dir(to / "pgx", quiet=1)


def outcome(mutation: Mutation, tree: Path) -> str:
    """Run the mutation's tests in a copy of the tree; return "caught", "survived" or the error of pytest."""
    path = tree / mutation.file
    source = path.read_text()
    path.write_text(mutation.mutated(source))
    try:
        code = _pytest(mutation.tests, tree)
    finally:
        path.write_text(source)
    if code in (1, None):
        return "caught"
    if code == 0:
        return "survived"
    return f"not run, pytest exited with {code}: {(tree / 'pytest.log').read_text().strip()}"


def _pytest(tests: tuple[str, ...], tree: Path) -> int | None:
    """Run tests in a forked process, which needs no further imports; return its exit code, None after a timeout."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _run_here(tests, tree)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return _wait(child)


def _run_here(tests: tuple[str, ...], tree: Path) -> int:
    """Run tests in this process, in the copy of the repository; return pytest's exit code."""
    os.setsid()
    with (tree / "pytest.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)  # for processes that tests start
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True  # Python confuses the bytecode of files with equal size and time stamp
    basetemp = tree / "tmp"
    shutil.rmtree(basetemp, ignore_errors=True)
    code = pytest.main(
        ["-x", "-m", fast_tests(), *REWRITE, "-p", "no:cacheprovider", f"--basetemp={basetemp}", *tests]
    )
    sys.stdout.flush()
    return int(code)


def _wait(child: int) -> int | None:
    """Return the exit code of a child; after the timeout kill its process group and return None."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def outcomes(chosen: list[Mutation]) -> Iterator[tuple[Mutation, str, float]]:
    """Yield each mutation with its outcome, stored or new, and the seconds that its tests took."""
    stored = stored_outcomes()
    with tempfile.TemporaryDirectory(prefix="pgx-mutate-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        copy_tree(tree)
        for name in LOADED:
            with suppress(ImportError):  # EnvPool is optional
                __import__(name)
        for mutation in chosen:
            start = time.monotonic()
            digest = mutation.digest
            if stored.get(digest) in ("caught", "survived"):
                yield mutation, stored[digest], 0.0
                continue
            result = outcome(mutation, tree)
            _store(digest, mutation, result)
            yield mutation, result, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="select by name or file")
    parser.add_argument("--sample", type=int, metavar="N", help="select N at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of --sample (0)")
    parser.add_argument("--list", action="store_true", help="list the selection and exit")
    args = parser.parse_args()
    chosen = [m for m in mutations() if args.only in m.name or args.only in m.file]
    if args.sample is not None:
        chosen = random.Random(args.seed).sample(chosen, min(args.sample, len(chosen)))
    if args.list:
        for mutation in chosen:
            print(f"{mutation.file}: {mutation.name}")
        return
    failed = 0
    for done, (mutation, result, seconds) in enumerate(outcomes(chosen), start=1):
        shown = "equivalent" if mutation.equivalent and result == "survived" else result
        failed += shown not in ("caught", "equivalent")
        print(
            f"{done:>4}/{len(chosen)} {shown:<10} {seconds:5.1f} s  {mutation.file}: {mutation.name}",
            flush=True,
        )
    print(f"{len(chosen)} mutations, {failed} not caught")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
