"""Functions compiled to machine code by torch's inductor, once for each kind of call; the code is kept on disk.

A program is found again by a description of all that it was made from, without tracing anything: a run whose programs
are on disk never imports the compiler.
"""

import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pgx
from pgx.engines.arguments import Undescribed, describe, leaves
from pgx.types import Bound

Run = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Call:
    """A function and the arguments of one call of it, as what a program is made from."""

    function: Callable[..., tuple[Tensor, ...]]
    fixed: tuple[Any, ...]
    varying: tuple[Tensor, ...]
    rows: int | None  # first size of those tensors among `fixed` that may have any
    ragged: tuple[int, ...]  # positions among `varying` that may have any first size

    def sizes(self) -> Iterator[tuple[Tensor, str | None]]:
        """Every tensor of the call, and by which name its first size is free; None: it is a constant."""
        for argument in self.fixed:
            network = isinstance(argument, nn.Module)
            for leaf in leaves(argument):
                free = not network and self.rows is not None and leaf.shape[:1] == (self.rows,)
                yield leaf, "rows" if free else None
        for position, tensor in enumerate(self.varying):
            yield tensor, "ragged" if position in self.ragged else None

    def signature(self) -> tuple[object, ...]:
        """What of the tensors goes into the code: types and constant sizes."""
        return tuple(
            (leaf.dtype, leaf.shape if free is None else (free, *leaf.shape[1:]), leaf.device)
            for leaf, free in self.sizes()
        )


class Compiled:
    """Runs functions compiled. What cannot be compiled runs as it is written, and that is said once.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report
        self._programs: dict[object, Run | None] = {}
        self._alive: list[object] = []  # what `_programs` knows by identity, which must not pass to another

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        # Detached, parameters are what the network has at each call; contiguous, rows are as the code expects them.
        tensors = [leaf.detach().contiguous() for argument in fixed for leaf in leaves(argument)]
        program: Run | None = None

        def call(*varying: Tensor) -> tuple[Tensor, ...]:
            nonlocal program
            if program is None:
                program = self._program(Call(function, fixed, varying, rows, tuple(ragged)))
            return tuple(program([*tensors, *varying]))

        return call

    def _program(self, call: Call) -> Run:
        """The code of such a call, from this process, from disk, or new; or the function as it is written."""
        key = (_what(call.function), *map(_what, call.fixed), call.signature())
        if key not in self._programs:
            self._programs[key] = self._found_or_made(call)
            self._alive.append((call.function, [a for a in call.fixed if callable(a)]))
        return self._programs[key] or _as_written(call)

    def _found_or_made(self, call: Call) -> Run | None:
        name = getattr(call.function, "__qualname__", repr(call.function))
        try:
            words = "\n".join([describe(call.function), *map(describe, call.fixed), repr(call.signature())])
        except Undescribed as error:
            self._refuse(name, f"{error} is an argument whose values have no description")
            return None
        digest = hashlib.sha256(f"{words}\n{_surroundings(call.function)}".encode()).hexdigest()
        path = self.folder / f"{digest[:32]}.pt2"
        if not path.exists():
            from pgx.engines.compiler import Uncompilable, compile_call

            self.report(f"compiling {name} (once; kept in {self.folder})")
            started = time.perf_counter()
            try:
                compile_call(call, path)
            except Uncompilable as error:
                self._refuse(name, str(error))
                return None
            self.report(f"compiled {name} in {time.perf_counter() - started:.0f} s")
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        run: Run = loader.run
        return run

    def _refuse(self, name: str, reason: str) -> None:
        self.report(f"{name} runs as it is written: {reason}")


def _as_written(call: Call) -> Run:
    """The function itself, called as a program is."""
    count = len(call.varying)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        return list(call.function(*call.fixed, *tensors[len(tensors) - count :]))

    return run


def _what(argument: Any) -> object:
    """What tells apart arguments within a process, quicker than a description: networks and rules by identity."""
    if inspect.ismethod(argument):
        return (id(argument.__self__), argument.__func__)
    if isinstance(argument, Tensor):
        return Tensor
    if isinstance(argument, tuple | list):
        return tuple(map(_what, argument))
    if isinstance(argument, nn.Module) or callable(argument):
        return id(argument)
    if is_dataclass(argument):
        return (type(argument), *(_what(getattr(argument, field.name)) for field in fields(argument)))
    return repr(argument)


def _surroundings(function: Callable[..., Any]) -> str:
    """What else decides the code: the sources it is made from, torch, the processor, the threads it may use."""
    module = sys.modules[getattr(function, "__func__", function).__module__]
    owner = inspect.getsource(module)
    return f"{_sources()} {owner} {torch.__version__} {_processor()} {torch.get_num_threads()}"


@cache
def _sources() -> str:
    """A digest of pgx itself."""
    digest = hashlib.sha256()
    for path in sorted(Path(pgx.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _processor() -> str:
    return torch.backends.cpu.get_cpu_capability()
