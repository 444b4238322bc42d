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
    """Function with bound first arguments, executed eagerly."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], fixed: tuple[Any, ...]) -> None:
        self.function = function
        self.fixed = fixed

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*self.fixed, *inputs)

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        results = []
        for item in items:
            result, *state = self(item, *state)
            results.append(result)
        return results, state


class Eager:
    """Engine that executes functions eagerly."""

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
        """Call the function immediately: Python threads would only wait for each other."""
        result = function(*arguments)
        return lambda: result

    def settle(self) -> None:
        """Do nothing: no function runs in another thread."""


class _CompiledFunction:
    """Compiled function with bound first arguments; its program is loaded or compiled at the first call.

    Args:
        programs: returns the program for a call with such tensors, or None.
        tensors: tensors in the bound arguments.
        eager: fallback without a program.
    """

    def __init__(
        self,
        programs: Callable[[tuple[Tensor, ...]], Programs | None],
        tensors: list[Tensor],
        eager: EagerFunction,
    ) -> None:
        self._find = programs
        self._tensors = tensors
        self._eager = eager
        self._found: Code | EagerFunction | None = None

    def _code(self, inputs: tuple[Tensor, ...]) -> Code | EagerFunction:
        if self._found is None:
            programs = self._find(inputs)
            self._found = programs[0] if programs else self._eager
        return self._found

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        code = self._code(inputs)
        if isinstance(code, EagerFunction):
            return code(*inputs)
        return tuple(code([*self._tensors, *inputs]))

    def scan(self, items: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[list[Tensor], Sequence[Tensor]]:
        code = self._code((items[0], *state))
        if isinstance(code, EagerFunction):
            return code.scan(items, state)
        return code.scan(self._tensors, items, state)


class _PreparedFunction:
    """Compiled function(*fixed) of `prepare`: the part that does not depend on the argument is computed once.

    Args:
        programs: returns the two programs for a call with such a tensor, or None.
        tensors: tensors in the arguments of the outer function.
        eager: returns the eager function, the fallback without programs.
    """

    def __init__(
        self,
        programs: Callable[[Tensor], Programs | None],
        tensors: list[Tensor],
        eager: Callable[[], Callable[[Tensor], Tensor]],
    ) -> None:
        self._find = programs
        self._tensors = tensors
        self._eager = eager
        self._found: Callable[[Tensor], Tensor] | None = None

    def __call__(self, argument: Tensor) -> Tensor:
        if self._found is None:
            programs = self._find(argument)
            self._found = self._run_first(*programs) if programs else self._eager()
        return self._found(argument)

    def _run_first(self, first: Code, second: Code) -> Callable[[Tensor], Tensor]:
        given = [*self._tensors, *(kept.contiguous() for kept in first(self._tensors))]
        return lambda argument: second.scan(given, [argument], ())[0][0]


class Compiled:
    """Engine that executes compiled functions. Functions that cannot be compiled run eagerly, with one report.

    Args:
        make: loads or compiles the programs of a call; returns None if that is impossible.
        processors: number of processors; with more than one, `submit` uses a second thread.
    """

    def __init__(self, make: Callable[[FunctionCall], Programs | None], processors: int) -> None:
        self._cache = ProgramCache(make)
        self._networks: dict[int, tuple[nn.Module, list[Tensor]]] = {}
        self._executor = _start_thread() if processors > 1 else None
        self._executor_idle = threading.Lock()  # locked while the second thread runs a function

    def bind(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *fixed: Any,
        rows: int | None = None,
        ragged: Sequence[int] = (),
    ) -> Bound:
        tensors, key = self._tensors_and_key((function, *fixed), rows)

        def programs(inputs: tuple[Tensor, ...]) -> Programs | None:
            signatures = [call_signature(tensor, free=i in ragged) for i, tensor in enumerate(inputs)]
            return self._cache.programs(
                FunctionCall(function, fixed, inputs, rows, tuple(ragged)), (*ragged, *key, *signatures)
            )

        return _CompiledFunction(programs, tensors, EagerFunction(function, fixed))

    def prepare(
        self, function: Callable[..., Callable[[Tensor], Tensor]], *fixed: Any, rows: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        whole = CurriedFunction(function, len(fixed))
        tensors, key = self._tensors_and_key((whole, *fixed), rows)

        def programs(argument: Tensor) -> Programs | None:
            call = FunctionCall(whole, fixed, (argument,), rows, ())
            return self._cache.programs(call, (*key, call_signature(argument, free=False)))

        return _PreparedFunction(programs, tensors, lambda: function(*fixed))

    def _tensors_and_key(
        self, arguments: tuple[Any, ...], rows: int | None
    ) -> tuple[list[Tensor], list[object]]:
        """Return the tensors in the arguments of a call, and its key within this process."""
        tensors: list[Tensor] = []
        key: list[object] = [rows is None]
        for argument in arguments:
            self._collect(argument, rows, tensors, key)
        return tensors, key

    def _collect(self, value: Any, rows: int | None, tensors: list[Tensor], key: list[object]) -> None:
        """Append the tensors of a value to `tensors`, and its parts to `key`: networks and rules by identity."""
        if isinstance(value, Tensor):
            tensors.append(value.contiguous())  # compiled code expects contiguous rows
            key.append(call_signature(value, free=rows is not None and value.shape[:1] == (rows,)))
        elif isinstance(value, nn.Module):
            if id(value) not in self._networks:
                # Detached tensors share memory with the parameters, so each call uses their current values.
                self._networks[id(value)] = (value, [leaf.detach() for leaf in tensor_leaves(value)])
            tensors += self._networks[id(value)][1]
            key.append(id(value))
        elif hasattr(value, "__dataclass_fields__"):
            key.append(type(value))
            for name in value.__dataclass_fields__:
                self._collect(getattr(value, name), rows, tensors, key)
        elif isinstance(value, tuple | list):
            key.append(len(value))
            for item in value:
                self._collect(item, rows, tensors, key)
        elif hasattr(value, "__func__"):
            key.append((id(value.__self__), value.__func__))
        else:
            key.append(id(value) if callable(value) else value)

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Callable[[], _Result]:
        """Run the function in the second thread if there is one and it is idle; else call it immediately.

        The result is the same. Threads run in parallel because `scan` of a program releases Python's lock.
        """
        if self._executor is None or not self._executor_idle.acquire(blocking=False):
            result = function(*arguments)
            return lambda: result
        return self._executor.submit(self._run_and_release, function, *arguments).result

    def settle(self) -> None:
        """Wait until the second thread has run all functions."""
        if self._executor is not None:
            self._executor.submit(lambda: None).result()

    def _run_and_release(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run the function in the second thread, and mark the thread as idle before the result is available."""
        try:
            return function(*arguments)
        finally:
            self._executor_idle.release()


def _start_thread() -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))
