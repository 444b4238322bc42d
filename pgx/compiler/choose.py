"""Choice of the engine of a run, and a test that the C++ compiler works."""

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

_SECONDS = 60  # that the attempt may take
_INSTALL = "install one (apt-get install g++) or set CXX"
# A shared library with threads and the standard library's headers, as torch's compiler makes it.
_SOURCE = """
#include <omp.h>
#include <vector>
extern "C" int trial() { return static_cast<int>(std::vector<int>(omp_get_max_threads()).size()); }
"""


def compiler_problem(folder: Path) -> str | None:
    """Return why no program can be compiled for the processor, with the fix in words; None: it can.

    The compiler is `$CXX`, else g++. That it works is noted in `folder`, so that it is tried once; a failure is not
    noted, since the next run may come after it was repaired.

    Args:
        folder: where programs are kept.
    """
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if found is None:
        return f"there is no C++ compiler ({name}); {_INSTALL}"
    if " " in found:  # torch splits it there
        return f"torch cannot run a compiler with a space in its path ({found}); set CXX to another path"
    if problem := _unwritable(folder):
        return problem
    real = Path(found).resolve()
    stamp = f"{found} {real} {real.stat().st_mtime_ns} {real.stat().st_size}"
    noted = folder / f"compiler_{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    if noted.exists():
        return None
    if problem := _failure(found):
        return f"the C++ compiler {found} does not work ({problem}); {_INSTALL}"
    with suppress(OSError):  # then the next run tries it again
        noted.touch()
    return None


def _unwritable(folder: Path) -> str | None:
    """Why new programs cannot be kept in a folder without any; None: they can, or there are some already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) or next(folder.glob("*.so"), None):
            return None
        reason = "it is read-only"
    except OSError as error:
        reason = str(error.strerror)
    return f"{folder} cannot be written ({reason}); set PGX_CACHE to a folder that can"


def _failure(compiler: str) -> str | None:
    """What a compiler says of the tiny program; None: it compiles it."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "trial.cpp", Path(folder) / "trial.so"
        source.write_text(_SOURCE)
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
    """Resolve `auto`: compiled where that can be and pays.

    Args:
        compile: as configured.
        total_steps: of the run.
        min_steps: a run of fewer is over before the compiler is.
        device: where the networks are.
        ranks: how many learn together.

    Raises:
        UserError: compilation was asked for and cannot be had.
    """
    if compile is False:
        return EngineChoice(False, "as configured")
    if compile == "auto" and total_steps < min_steps:
        return EngineChoice(False, f"auto: a run of fewer than {min_steps:,} steps")
    refusal = compilation_problem(device, ranks)
    if compile is True:
        if refusal is not None:
            raise UserError(f"trainer.compile=true: {refusal}; trainer.compile=auto runs without")
        return EngineChoice(True, "as configured", required=True)
    if refusal is not None:
        return EngineChoice(False, f"auto: {refusal}")
    return EngineChoice(True, "auto")


def compilation_problem(device: str, ranks: int = 1) -> str | None:
    """Return why nothing can be compiled on this machine; None if it can."""
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
    """Programs are libraries, kept in a folder from one run to the next.

    One is found again by a description of all that it was made from, without tracing anything: a run whose programs
    are there never imports the compiler.
    """
    return Compiled(ProgramFolder(folder, report, required).programs, available_cores())


def make_jit_engine(folder: Path, report: Callable[[str], None], required: bool = False) -> Compiled:
    """Programs are of this process; what the compiler keeps in the folder saves it work in the next."""
    from pgx.compiler.jit import JitCompiler  # imports torch's compiler, which takes seconds

    # A GPU takes one call after another, whoever makes it.
    return Compiled(JitCompiler(folder, report, required).programs, processors=1)


def print_report(line: str) -> None:
    """Print a report of the compiler."""
    print(line, flush=True)


def discard_report(line: str) -> None:
    """Drop a report: the console is off, or another process prints it."""


def program_folder() -> Path:
    """Return the folder of compiled programs: $PGX_CACHE, or pgx/ in the user's cache."""
    own = os.environ.get("PGX_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else cache / "pgx"
