"""One attempt to compile a tiny program: a compiler that is there may still not work."""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

SECONDS = 60  # that the attempt may take
INSTALL = "install one (apt-get install g++) or set CXX"
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
        return f"there is no C++ compiler ({name}); {INSTALL}"
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
        return f"the C++ compiler {found} does not work ({problem}); {INSTALL}"
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
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__} of {shlex.join(command[:1])}"
        if done.returncode == 0 and library.is_file():
            return None
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        return said[0].replace(folder + "/", "").strip() if said else f"exit code {done.returncode}"
