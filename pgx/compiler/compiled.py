"""Engines: eager execution, and execution by compiled programs."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from pgx.compiler.arguments import CurriedFunction, FunctionCall, call_signature
from pgx.compiler.program_cache import Code, ProgramCache, Programs
from pgx.core.algorithm import Bound, _Result
from pgx.core.tensor_tree import tensor_leaves


class EagerFunction:
    """A function some of whose arguments are given."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], fixed: tuple[Any, ...]) -> None:
        self.function = function
        self.fixed = fixed

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]:
        return self.function(*self.fixed, *varying)

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        results = []
        for item in items:
            result, *state = self(item, *state)
            results.append(result)
        return results, state


class Eager:
    """Runs functions as they are."""

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        return EagerFunction(function, fixed)

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        return function(*fixed)

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """At once: two threads of Python hold each other up."""
        result = function(*arguments)
        return lambda: result

    def settle(self) -> None:
        """Return at once: nothing runs in another thread."""


class _Bound:
    """A program, found at the first call, with some of its arguments.

    Args:
        programs: finds it, for a call with such tensors.
        tensors: those among the arguments that are given.
        written: the function as it is written, where there is no program.
    """

    def __init__(
        self,
        programs: Callable[[tuple[Tensor, ...]], Programs | None],
        tensors: list[Tensor],
        written: EagerFunction,
    ) -> None:
        self._find = programs
        self._tensors = tensors
        self._written = written
        self._found: Code | EagerFunction | None = None

    def _code(self, varying: tuple[Tensor, ...]) -> Code | EagerFunction:
        if self._found is None:
            programs = self._find(varying)
            self._found = programs[0] if programs else self._written
        return self._found

    def __call__(self, *varying: Tensor) -> tuple[Tensor, ...]:
        code = self._code(varying)
        if isinstance(code, EagerFunction):
            return code(*varying)
        return tuple(code([*self._tensors, *varying]))

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        code = self._code((items[0], *state))
        if isinstance(code, EagerFunction):
            return code.scan(items, state)
        return code.scan(self._tensors, items, state)


class _Prepared:
    """A function that is what another one returned, in two programs: what does not depend on its argument is done once.

    Args:
        programs: finds them, for a call with such a tensor.
        tensors: those among the arguments of the outer function.
        written: makes the function as it is written, where there are no programs.
    """

    def __init__(
        self,
        programs: Callable[[Tensor], Programs | None],
        tensors: list[Tensor],
        written: Callable[[], Callable[[Tensor], Tensor]],
    ) -> None:
        self._find = programs
        self._tensors = tensors
        self._written = written
        self._found: Callable[[Tensor], Tensor] | None = None

    def __call__(self, argument: Tensor) -> Tensor:
        if self._found is None:
            programs = self._find(argument)
            self._found = self._begun(*programs) if programs else self._written()
        return self._found(argument)

    def _begun(self, first: Code, second: Code) -> Callable[[Tensor], Tensor]:
        given = [*self._tensors, *(kept.contiguous() for kept in first(self._tensors))]
        return lambda argument: second.scan(given, [argument], ())[0][0]


class Compiled:
    """Runs functions compiled. What cannot be compiled runs as it is written, and that is said once.

    Args:
        make: finds or makes the code of a call; None where there can be none.
        processors: that one function can run beside another on.
    """

    def __init__(self, make: Callable[[FunctionCall], Programs | None], processors: int) -> None:
        self._known = ProgramCache(make)
        self._networks: dict[int, tuple[nn.Module, list[Tensor]]] = {}
        self._aside = _second_thread() if processors > 1 else None
        self._free = threading.Lock()  # held while something runs aside

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        tensors, key = self._parts((function, *fixed), rows)

        def programs(varying: tuple[Tensor, ...]) -> Programs | None:
            signatures = [call_signature(tensor, free=i in ragged) for i, tensor in enumerate(varying)]
            return self._known.programs(
                FunctionCall(function, fixed, varying, rows, tuple(ragged)), (*ragged, *key, *signatures)
            )

        return _Bound(programs, tensors, EagerFunction(function, fixed))

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        whole = CurriedFunction(function, len(fixed))
        tensors, key = self._parts((whole, *fixed), rows)

        def programs(argument: Tensor) -> Programs | None:
            call = FunctionCall(whole, fixed, (argument,), rows, ())
            return self._known.programs(call, (*key, call_signature(argument, free=False)))

        return _Prepared(programs, tensors, lambda: function(*fixed))

    def _parts(self, arguments: tuple[Any, ...], rows: int | None) -> tuple[list[Tensor], list[object]]:
        """The tensors of a call's arguments, and what tells it apart within a process."""
        tensors: list[Tensor] = []
        key: list[object] = [rows is None]
        for argument in arguments:
            self._take_apart(argument, rows, tensors, key)
        return tensors, key

    def _take_apart(self, value: Any, rows: int | None, tensors: list[Tensor], key: list[object]) -> None:
        """Append a value's tensors, and what tells it apart within a process: networks and rules by identity."""
        if isinstance(value, Tensor):
            tensors.append(value.contiguous())  # rows are as the code expects them
            key.append(call_signature(value, free=rows is not None and value.shape[:1] == (rows,)))
        elif isinstance(value, nn.Module):
            if id(value) not in self._networks:
                # Detached, parameters are what the network has at each call.
                self._networks[id(value)] = (value, [leaf.detach() for leaf in tensor_leaves(value)])
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

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """In a thread of its own, where there is a second processor that nothing is beside yet: folds leave Python to
        others. What it gives is the same wherever it runs."""
        if self._aside is None or not self._free.acquire(blocking=False):
            result = function(*arguments)
            return lambda: result
        return self._aside.submit(self._alone, function, *arguments).result

    def settle(self) -> None:
        """Wait for the second thread, which runs one function after another."""
        if self._aside is not None:
            self._aside.submit(lambda: None).result()

    def _alone(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """In the second thread; it is free again before anyone can know of the result."""
        try:
            return function(*arguments)
        finally:
            self._free.release()


def _second_thread() -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))
