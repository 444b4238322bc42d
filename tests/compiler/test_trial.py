"""A C++ compiler that is there and does not work is found before a run begins, and is tried once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgx.compiler.choose import compiler_problem
from tests.command import Command, CommandResult
from tests.system.command import PGX
from tests.warm import environment

TINY = ["env=CartPole-v1", "env.num_envs=2", "env.backend=gymnasium", "algo=a2c", "trainer.total_steps=64"]
TINY += ["trainer.compile_min_steps=0", "run_dir=run", "logger.sinks=[]"]
INSTALL = "install one (apt-get install g++) or set CXX"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script, to be written, that is the compiler."""
    script = tmp_path / "mine" / "c++"
    script.parent.mkdir()
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("PGX_CACHE", str(tmp_path / "cache"))
    return script


def write(script: Path, body: str) -> None:
    script.write_text(f"#!{sys.executable}\nimport sys, pathlib\n{body}\n")
    script.chmod(0o755)


WORKS = """
pathlib.Path(sys.argv[-1]).touch()
with open(pathlib.Path(sys.argv[0]).with_name("calls"), "a") as calls: print("called", file=calls)
"""


def test_a_compiler_that_works_is_tried_once(compiler: Path, tmp_path: Path) -> None:
    write(compiler, WORKS)
    for _ in range(2):
        assert compiler_problem(tmp_path / "cache") is None
    assert (compiler.parent / "calls").read_text() == "called\n"
    write(compiler, WORKS + "sys.exit(1)")  # another compiler of the same name
    assert compiler_problem(tmp_path / "cache") is not None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit(3)", "does not work (exit code 3)"),
        (
            "print('x.cpp:1: fatal error: omp.h: no such file', file=sys.stderr); sys.exit(1)",
            "omp.h: no such file",
        ),
        ("pass", "does not work (exit code 0)"),
    ],
)
def test_a_broken_compiler_is_reported_with_the_reason_and_tried_again(
    compiler: Path, tmp_path: Path, body: str, says: str
) -> None:
    write(compiler, body)
    problem = compiler_problem(tmp_path / "cache")
    assert problem is not None and says in problem and problem.endswith(INSTALL)
    write(compiler, WORKS)
    assert compiler_problem(tmp_path / "cache") is None


def test_a_compiler_whose_path_has_a_space_is_refused(compiler: Path, tmp_path: Path) -> None:
    write(compiler, WORKS)
    spaced = tmp_path / "a b"
    spaced.mkdir()
    compiler.rename(spaced / "c++")
    os.environ["CXX"] = str(spaced / "c++")  # the fixture restores it
    problem = compiler_problem(tmp_path / "cache")
    assert problem is not None and "set CXX to another path" in problem


def test_a_folder_that_cannot_be_written_is_named_with_the_variable(compiler: Path, tmp_path: Path) -> None:
    write(compiler, WORKS)
    (tmp_path / "file").touch()
    problem = compiler_problem(tmp_path / "file" / "cache")
    assert problem is not None and "set PGX_CACHE to a folder that can" in problem


def test_auto_reports_it_on_the_first_line_and_true_is_an_error(command: Command, compiler: Path) -> None:
    write(compiler, "sys.exit(1)")
    said = command("train", *TINY)
    assert said.code == 0 and said.err == "" and said.out.count(str(compiler)) == 1
    assert f"not compiled (auto: the C++ compiler {compiler} does not work" in said.out.splitlines()[0]
    (problem,) = command("train", *TINY[:-3], "trainer.compile=true", "run_dir=other").problems
    assert problem.startswith("trainer.compile=true: the C++ compiler") and INSTALL in problem


ONLY_THE_TRIAL = """
if any("trial" in argument for argument in sys.argv):
    pathlib.Path(sys.argv[-1]).touch()
    sys.exit(0)
sys.exit(1)
"""


@pytest.mark.system
def test_a_compiler_that_fails_on_a_program_of_the_run(compiler: Path, tmp_path: Path) -> None:
    """It compiles the trial: `true` is one error, `auto` says it once and the run is what it is without a compiler.

    In processes of their own: torch reads CXX when its compiler is imported, which another test may have done.
    """
    write(compiler, ONLY_THE_TRIAL)
    said = _called(tmp_path, "train", *TINY[:-3], "trainer.compile=true", "run_dir=required")
    (problem,) = said.problems
    assert said.code == 1
    assert problem.startswith("trainer.compile=true: torch's compiler failed")
    assert problem.endswith("set trainer.compile=auto")
    said = _called(tmp_path, "train", *TINY)
    assert said.code == 0 and said.err == ""
    assert said.out.count("compiler failed") == 1 and said.out.count("compiling ") == 1
    assert "eager mode" in said.out


def _called(folder: Path, *arguments: str) -> CommandResult:
    done = subprocess.run(
        [*PGX, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_real_compiler_takes_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert compiler_problem(tmp_path) is None
