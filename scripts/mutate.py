"""Break pgx in one place at a time and see that `make test` notices.

python scripts/mutate.py                        what was not tried on this code yet, of scripts/mutations/*.toml
python scripts/mutate.py --only trpo            those whose name or file contains a text
python scripts/mutate.py --sample 10 --seed 7   ten, drawn by the seed
python scripts/mutate.py --list                 what would be tried

Each mutation names a file, a text that occurs there once, its replacement and the tests that must fail with it. It is
made in a copy of the working tree; the tests run there as `make test` runs them. Prints `caught` or `survived` and
exits with 1 if a mutation survived that is not argued to be equivalent. Outcomes are kept in outputs/mutations.jsonl:
one that is interrupted goes on from there, and only what changed is tried again.
"""

import argparse
import compileall
import hashlib
import json
import os
import random
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
FAST = "not system and not slow"  # the tests of `make test`
TIMEOUT = 180  # seconds; a mutation may well never end
COPIED = ("pgx", "configs", "hydra_plugins", "tests", "scripts", "docs")
LOADED = (
    "torch", "gymnasium", "envpool", "omegaconf", "numpy", "matplotlib.pyplot", "mujoco", "PIL.Image", "rich.live",
    "rich.progress", "tensorboard.plugins.hparams.api_pb2", "tensorboard.summary.writer.record_writer",
    "torch.utils.tensorboard.summary", "hydra.main",
    "hypothesis.strategies", "hypothesis.internal.conjecture.engine",
)  # fmt: skip
# Plugins of pytest are loaded as well, so it cannot rewrite their assertions.
REWRITE = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutation:
    """One wrong change, and the tests that must notice it."""

    name: str  # what is wrong with it, in words
    file: str  # from the root of the repository
    old: str  # occurs once in the file
    new: str
    tests: tuple[str, ...]  # what pytest takes: files or test ids
    equivalent: str = ""  # why no test can notice it

    def mutated(self, source: str) -> str:
        """Return the source with the change.

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
        """A digest of the mutation, the file it is made in and the tests: what its outcome depends on most."""
        files = [self.file, *(test.partition("::")[0] for test in self.tests)]
        parts = [json.dumps(asdict(self)), *((ROOT / file).read_text() for file in files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def mutations() -> list[Mutation]:
    """Return all mutations of all tables, in the order of the files."""
    found = []
    for path in sorted(TABLES.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            found.append(Mutation(**{**entry, "tests": tuple(entry["tests"])}))
    return found


def known() -> dict[str, str]:
    """Return the outcomes so far by digest."""
    if not OUTCOMES.exists():
        return {}
    rows = [json.loads(line) for line in OUTCOMES.read_text().splitlines()]
    return {row["digest"]: row["outcome"] for row in rows}


def _keep(digest: str, mutation: Mutation, outcome: str) -> None:
    OUTCOMES.parent.mkdir(exist_ok=True)
    with OUTCOMES.open("a") as file:
        file.write(json.dumps({"digest": digest, "name": mutation.name, "outcome": outcome}) + "\n")


def copy_tree(to: Path) -> None:
    """Copy what tests read: the folders of the repository and the files at its root."""
    for name in COPIED:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, to / path.name)
    compileall.compile_dir(to / "pgx", quiet=1)


def outcome(mutation: Mutation, tree: Path) -> str:
    """Run the mutation's tests in a copy of the tree; returns caught, survived, or what kept the tests from running."""
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
    return f"not run, pytest ended with {code}: {(tree / 'pytest.log').read_text().strip()}"


def _pytest(tests: tuple[str, ...], tree: Path) -> int | None:
    """Run tests in a child that has the heavy imports already; returns pytest's exit code, None if it never ended."""
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
    """Run tests in this process, with the copy as the repository; returns pytest's exit code."""
    os.setsid()
    with (tree / "pytest.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)  # for processes that tests start
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True  # a file of the same second and size would be taken for the mutated one
    basetemp = tree / "tmp"
    shutil.rmtree(basetemp, ignore_errors=True)
    code = pytest.main(
        ["-x", "-m", FAST, *REWRITE, "-p", "no:cacheprovider", f"--basetemp={basetemp}", *tests]
    )
    sys.stdout.flush()
    return int(code)


def _wait(child: int) -> int | None:
    """Wait for a child; one that takes too long is killed with all that it started, and None returned."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def tried(chosen: list[Mutation]) -> Iterator[tuple[Mutation, str, float]]:
    """Try each mutation that has no outcome yet; yields it, its outcome and the seconds that it took."""
    so_far = known()
    with tempfile.TemporaryDirectory(prefix="pgx-mutate-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        copy_tree(tree)
        for name in LOADED:
            with suppress(
                ImportError
            ):  # EnvPool has no wheel for some platforms; its tests are left out there
                __import__(name)
        for mutation in chosen:
            start = time.monotonic()
            digest = mutation.digest
            if so_far.get(digest) in ("caught", "survived"):
                yield mutation, so_far[digest], 0.0
                continue
            result = outcome(mutation, tree)
            _keep(digest, mutation, result)
            yield mutation, result, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Break pgx in one place at a time and see that tests notice."
    )
    parser.add_argument("--only", default="", help="those whose name or file contains this text")
    parser.add_argument("--sample", type=int, help="so many of them, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--list", action="store_true", help="name them and try nothing")
    args = parser.parse_args()
    chosen = [m for m in mutations() if args.only in m.name or args.only in m.file]
    if args.sample is not None:
        chosen = random.Random(args.seed).sample(chosen, min(args.sample, len(chosen)))
    if args.list:
        for mutation in chosen:
            print(f"{mutation.file}: {mutation.name}")
        return
    failed = 0
    for done, (mutation, result, seconds) in enumerate(tried(chosen), start=1):
        said = "equivalent" if mutation.equivalent and result == "survived" else result
        failed += said not in ("caught", "equivalent")
        print(
            f"{done:>4}/{len(chosen)} {said:<10} {seconds:5.1f} s  {mutation.file}: {mutation.name}",
            flush=True,
        )
    print(f"{len(chosen)} mutations, {failed} not caught")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
