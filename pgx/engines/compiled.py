"""Functions compiled to machine code by torch's inductor, once for each kind of call; the code is kept on disk.

A program is found again by a description of all that it was made from, without tracing anything: a run whose programs
are on disk never imports the compiler.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pgx
from pgx.engines.arguments import Undescribed, describe, leaves
from pgx.engines.eager import Written
from pgx.engines.program import Program
from pgx.types import Bound
from pgx.types.engine import Result


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

    def name(self) -> str:
        """The function, and those among its arguments, for people."""
        function = self.function.function if isinstance(self.function, _Curried) else self.function
        names = [getattr(argument, "__qualname__", None) for argument in (function, *self.fixed)]
        return " of ".join(name for name in names if name)

    def description(self) -> str:
        """All of it that goes into the code, in words that are the same in every process.

        Raises:
            Undescribed: there are none for some of it.
        """
        values = [describe(self.function), *map(describe, self.fixed)]
        signatures = [repr(_signature(leaf, free is not None)) for leaf, free in self.sizes()]
        return "\n".join([*values, *signatures, _surroundings()])


@dataclass(frozen=True)
class _Curried:
    """function(a, b)(c) as a function of a, b and c."""

    function: Callable[..., Callable[[Tensor], Tensor]]
    outer: int  # arguments that the first call takes

    def __call__(self, *arguments: Any) -> tuple[Tensor]:
        return (self.function(*arguments[: self.outer])(*arguments[self.outer :]),)


class _Bound:
    """A program, found at the first call, with some of its arguments.

    Args:
        program: finds it, for a call with such tensors.
        tensors: those among the arguments that are given.
        written: the function as it is written, where there is no program.
    """

    def __init__(
        self,
        program: Callable[[tuple[Tensor, ...]], Program | None],
        tensors: list[Tensor],
        written: Written,
    ) -> None:
        self._find = program
        self._tensors = tensors
        self._written = written
        self._found: Program | Written | None = None

    def _code(self, varying: tuple[Tensor, ...]) -> Program | Written:
        if self._found is None:
            self._found = self._find(varying) or self._written
        return self._found

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]:
        code = self._code(varying)
        if isinstance(code, Written):
            return code(*varying)
        return tuple(code([*self._tensors, *varying]))

    def fold(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        code = self._code((items[0], *state))
        if isinstance(code, Written):
            return code.fold(items, state)
        return code.fold(self._tensors, items, state)


class Compiled:
    """Runs functions compiled. What cannot be compiled runs as it is written, and that is said once.

    Args:
        folder: where programs are kept from one run to the next.
        report: told what is going on, in lines for people.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report
        self._programs: dict[object, Program | None] = {}
        self._networks: dict[int, tuple[nn.Module, list[Tensor]]] = {}
        self._one_at_a_time = threading.Lock()
        self._aside = _second_thread() if len(os.sched_getaffinity(0)) > 1 else None
        self._alive: list[object] = []  # what `_programs` knows by identity, which must not pass to another

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        tensors: list[Tensor] = []
        key: list[object] = [rows is None, *ragged]
        for argument in (function, *fixed):
            self._take_apart(argument, rows, tensors, key)

        def program(varying: tuple[Tensor, ...]) -> Program | None:
            signatures = [_signature(tensor, free=i in ragged) for i, tensor in enumerate(varying)]
            return self._program(Call(function, fixed, varying, rows, tuple(ragged)), (*key, *signatures))

        return _Bound(program, tensors, Written(function, fixed))

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        bound = self.bind(_Curried(function, len(fixed)), *fixed, rows=rows)
        return lambda argument: bound.fold([argument], ())[0][0]

    def _take_apart(self, value: Any, rows: int | None, tensors: list[Tensor], key: list[object]) -> None:
        """Append a value's tensors, and what tells it apart within a process: networks and rules by identity."""
        if isinstance(value, Tensor):
            tensors.append(value.contiguous())  # rows are as the code expects them
            key.append(_signature(value, free=rows is not None and value.shape[:1] == (rows,)))
        elif isinstance(value, nn.Module):
            if id(value) not in self._networks:
                # Detached, parameters are what the network has at each call.
                self._networks[id(value)] = (value, [leaf.detach() for leaf in leaves(value)])
            tensors += self._networks[id(value)][1]
            key.append(id(value))
        elif hasattr(value, "__dataclass_fields__"):
            key.append(type(value))
            for name in value.__dataclass_fields__:
                self._take_apart(getattr(value, name), rows, tensors, key)
        elif isinstance(value, tuple | list):
            key.append(len(value))
            for item in value:
                self._take_apart(item, rows, tensors, key)
        elif hasattr(value, "__func__"):
            key.append((id(value.__self__), value.__func__))
        else:
            key.append(id(value) if callable(value) else value)

    def beside(self, function: Callable[..., Result], *arguments: Any) -> Callable[[], Result]:
        """In a thread of its own, where there is a second processor: folds leave Python to others."""
        if self._aside is None:
            result = function(*arguments)
            return lambda: result
        return self._aside.submit(function, *arguments).result

    def _program(self, call: Call, key: tuple[object, ...]) -> Program | None:
        """The code of such a call, from this process, from disk, or new; None where there can be none."""
        with self._one_at_a_time:
            if key not in self._programs:
                self._programs[key] = self._found_or_made(call)
                alive = [argument for argument in call.fixed if callable(argument)]
                self._alive.append((call.function, alive))
            return self._programs[key]

    def _found_or_made(self, call: Call) -> Program | None:
        try:
            description = call.description()
        except Undescribed as error:
            self._refuse(call.name(), f"{error} is an argument whose values have no description")
            return None
        path = self.folder / f"{hashlib.sha256(description.encode()).hexdigest()[:32]}.so"
        if path.exists():
            return self._found(call, path)
        with _alone_at(path):  # of processes that need the same program one makes it
            return self._found(call, path) if path.exists() else self._made(call, path)

    def _found(self, call: Call, path: Path) -> Program | None:
        try:
            return Program(path)
        except RuntimeError as error:  # cut short by a full disk, or of another kind of machine
            self.report(f"{path} cannot be loaded ({str(error).splitlines()[0]}): compiling it again")
            return self._made(call, path)

    def _made(self, call: Call, path: Path) -> Program | None:
        from pgx.engines.compiler import Uncompilable, compile_call

        self.report(f"compiling {call.name()} (once; kept in {self.folder})")
        started = time.perf_counter()
        try:
            compile_call(call, path)
        except Uncompilable as error:
            self._refuse(call.name(), str(error))
            return None
        self.report(f"compiled {call.name()} in {time.perf_counter() - started:.0f} s")
        return Program(path)

    def _refuse(self, name: str, reason: str) -> None:
        self.report(f"{name} runs as it is written: {reason}")


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """While no other process is, for the same path; the kernel's lock goes with a process that dies."""
    with ExitStack() as stack:
        with suppress(OSError):  # where nothing can be written the compiler will say so
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield


def _second_thread() -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))


def _signature(tensor: Tensor, free: bool) -> tuple[object, ...]:
    """What of a tensor goes into the code: its type and constant sizes."""
    return (tensor.dtype, tensor.device, free, tensor.shape[1:] if free else tensor.shape)


def _surroundings() -> str:
    """What else decides the code: pgx itself, torch, the processor, the threads it may use."""
    return f"{_sources()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


@cache
def _sources() -> str:
    """A digest of pgx."""
    digest = hashlib.sha256()
    for path in sorted(Path(pgx.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
