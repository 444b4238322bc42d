"""Which engine a run gets."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgx.compiler.compiled import Compiled
from pgx.compiler.eager import Eager
from pgx.compiler.kernels import Workshop
from pgx.compiler.store import Store
from pgx.compiler.trial import compiler_problem
from pgx.core.engine import Engine
from pgx.core.errors import UserError
from pgx.distributed.cores import available

Compile = Literal["auto", True, False]


@dataclass(frozen=True)
class EngineChoice:
    """Whether a run is compiled, and why in a few words for the console."""

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
    refusal = why_not(device, ranks)
    if compile is True:
        if refusal is not None:
            raise UserError(f"trainer.compile=true: {refusal}; trainer.compile=auto runs without")
        return EngineChoice(True, "as configured", required=True)
    if refusal is not None:
        return EngineChoice(False, f"auto: {refusal}")
    return EngineChoice(True, "auto")


def why_not(device: str, ranks: int = 1) -> str | None:
    """Why nothing can be compiled here; None when it can."""
    if ranks > 1:
        return f"{ranks} ranks average every gradient between its two halves, which no program can wait for"
    if problem := compiler_problem(program_folder()):
        return problem
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "there is no Triton, which comes with torch's CUDA builds"
    return None


def make_engine(choice: EngineChoice, device: str, report: Callable[[str], None]) -> Engine:
    """The engine chosen, for networks on a device; `report` is told what it compiles."""
    if not choice.compiled:
        return Eager()
    make = just_in_time if device == "cuda" else ahead_of_time
    return make(program_folder(), report, choice.required)


def ahead_of_time(folder: Path, report: Callable[[str], None], required: bool = False) -> Compiled:
    """Programs are libraries, kept in a folder from one run to the next.

    One is found again by a description of all that it was made from, without tracing anything: a run whose programs
    are there never imports the compiler.
    """
    return Compiled(Store(folder, report, required).programs, available())


def just_in_time(folder: Path, report: Callable[[str], None], required: bool = False) -> Compiled:
    """Programs are of this process; what the compiler keeps in the folder saves it work in the next."""
    # A GPU takes one call after another, whoever makes it.
    return Compiled(Workshop(folder, report, required).programs, processors=1)


def aloud(line: str) -> None:
    """A report on the console: above what is drawn on a terminal, between the lines elsewhere."""
    print(line, flush=True)


def silently(line: str) -> None:
    """A report to nobody: the console is off, or another process of the run speaks for this one."""


def program_folder() -> Path:
    """Where programs are kept: $PGX_CACHE, or pgx/ in the user's cache."""
    own = os.environ.get("PGX_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else cache / "pgx"
