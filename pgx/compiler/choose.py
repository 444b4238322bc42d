"""Choice of the engine of a run, and a test of the C++ compiler."""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgx.compiler.compiled import Compiled, Eager
from pgx.compiler.program_cache import ProgramFolder
from pgx.core.algorithm import Engine
from pgx.core.cpu import available_cores
from pgx.core.errors import UserError

_SECONDS = 60  # time limit of the test compilation
_INSTALL = "install one (apt-get install g++) or set CXX"
# A shared library with OpenMP and headers of the standard library, like those of torch's compiler.
_TRIAL_SOURCE = """
#include <omp.h>
#include <vector>
extern "C" int trial() { return static_cast<int>(std::vector<int>(omp_get_max_threads()).size()); }
"""


def compiler_problem(folder: Path) -> str | None:
    """Return why no program can be compiled for the CPU, with the fix, or None if it can.

    The compiler is `$CXX`, else g++. A success is recorded in `folder`, so that the test runs once; a failure is not,
    since it may be repaired before the next run.

    Args:
        folder: folder of compiled programs.
    """
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if found is None:
        return f"there is no C++ compiler ({name}); {_INSTALL}"
    if " " in found:  # torch splits it there
        return f"torch cannot run a compiler with a space in its path ({found}); set CXX to another path"
    if problem := _folder_problem(folder):
        return problem
    real = Path(found).resolve()
    stamp = f"{found} {real} {real.stat().st_mtime_ns} {real.stat().st_size}"
    noted = folder / f"compiler_{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    if noted.exists():
        return None
    if problem := _trial_problem(found):
        return f"the C++ compiler {found} does not work ({problem}); {_INSTALL}"
    with suppress(OSError):  # then the next run tries it again
        noted.touch()
    return None


def _folder_problem(folder: Path) -> str | None:
    """Return why programs cannot be stored in the folder, or None if they can or it already contains some."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) or next(folder.glob("*.so"), None):
            return None
        reason = "it is read-only"
    except OSError as error:
        reason = str(error.strerror)
    return f"{folder} cannot be written ({reason}); set PGX_CACHE to a folder that can"


def _trial_problem(compiler: str) -> str | None:
    """Return the error of a compiler on the test program, or None if it compiles it."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "trial.cpp", Path(folder) / "trial.so"
        source.write_text(_TRIAL_SOURCE)
        command = [compiler, "-shared", "-fPIC", "-fopenmp", "-std=c++20", str(source), "-o", str(library)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__} of {shlex.join(command[:1])}"
        if done.returncode == 0 and library.is_file():
            return None
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        return said[0].replace(folder + "/", "").strip() if said else f"exit code {done.returncode}"


Compile = Literal["auto", True, False]


@dataclass(frozen=True)
class EngineChoice:
    """Choice of compiled or eager execution, with the reason for the console."""

    compiled: bool
    reason: str
    required: bool = False  # a compiler that fails during the run ends it


def choose_engine(
    compile: Compile, total_steps: int, min_steps: int, device: str, ranks: int = 1
) -> EngineChoice:
    """Choose compiled or eager execution. `auto` compiles if that is possible and the run is long enough.

    Args:
        compile: value of trainer.compile.
        total_steps: environment steps of the run.
        min_steps: length of a run from which compilation saves time.
        device: device of the networks.
        ranks: number of ranks.

    Raises:
        UserError: trainer.compile=true, and compilation is impossible.
    """
    if compile is False:
        return EngineChoice(False, "as configured")
    if compile == "auto" and total_steps < min_steps:
        return EngineChoice(False, f"auto: a run of fewer than {min_steps:,} steps")
    refusal = compilation_problem(device, ranks)
    if compile is True:
        if refusal is not None:
            raise UserError(f"trainer.compile=true: {refusal}; set trainer.compile=auto")
        return EngineChoice(True, "as configured", required=True)
    if refusal is not None:
        return EngineChoice(False, f"auto: {refusal}")
    return EngineChoice(True, "auto")


def compilation_problem(device: str, ranks: int = 1) -> str | None:
    """Return why compilation is impossible with this device and number of ranks, or None if it is possible."""
    if ranks > 1:
        return f"{ranks} ranks average every gradient between its two halves, which no program can wait for"
    if problem := compiler_problem(program_folder()):
        return problem
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "there is no Triton, which comes with torch's CUDA builds"
    return None


def make_engine(choice: EngineChoice, device: str, report: Callable[[str], None]) -> Engine:
    """Return the chosen engine for networks on a device; `report` receives lines about compilation."""
    if not choice.compiled:
        return Eager()
    make = make_jit_engine if device == "cuda" else make_aot_engine
    return make(program_folder(), report, choice.required)


def make_aot_engine(folder: Path, report: Callable[[str], None], required: bool = False) -> Compiled:
    """Return an engine that compiles libraries ahead of time and stores them in a folder for later runs.

    A library is found by a description of the call, without tracing: a run whose programs exist never imports the
    compiler.
    """
    return Compiled(ProgramFolder(folder, report, required).programs, available_cores())


def make_jit_engine(folder: Path, report: Callable[[str], None], required: bool = False) -> Compiled:
    """Return an engine that compiles in this process; torch's compiler caches its kernels in the folder."""
    from pgx.compiler.jit import JitCompiler  # imports torch's compiler, which takes seconds

    # A GPU executes calls one after another, so that a second thread would save nothing.
    return Compiled(JitCompiler(folder, report, required).programs, processors=1)


def print_report(line: str) -> None:
    """Print a report of the compiler."""
    print(line, flush=True)


def discard_report(line: str) -> None:
    """Drop a report, with the console off or in a process that does not print."""


def program_folder() -> Path:
    """Return the folder of compiled programs: $PGX_CACHE, or pgx/ in the user's cache."""
    own = os.environ.get("PGX_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else cache / "pgx"
