"""Functions compiled just in time, for this process alone: what a GPU runs.

Ahead-of-time libraries (pgx/compiler/program_cache.py) need CUDA's own headers and
compiler, which few who use a GPU have. What torch's compiler makes just in time needs Triton alone, which comes with
torch's CUDA builds; it keeps its kernels on disk itself.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from pgx.compiler.arguments import Call, NotDescribable
from pgx.compiler.program_cache import Attempts, Programs


class Kernels:
    """A compiled function of tensors.

    Args:
        code: from the compiler.
    """

    def __init__(self, code: Callable[..., Sequence[Tensor]]) -> None:
        self._code = code

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(self._code(*tensors))

    def scan(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """result, *state = code(*fixed, item, *state) for each item; returns the results, and the last state."""
        results = []
        for item in items:
            result, *state = self._code(*fixed, item, *state)
            results.append(result)
        return results, state


class JitCompiler:
    """Makes kernels.

    Args:
        folder: where torch's compiler keeps what it has made, unless it was told of another.
        report: told what is going on, in lines for people.
        required: a compiler that fails ends the run.
    """

    def __init__(self, folder: Path, report: Callable[[str], None], required: bool) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "kernels"))
        self._attempts = Attempts(report, required)
        self._made: dict[str, Programs | None] = {}  # by descriptions of calls

    def programs(self, call: Call) -> Programs | None:
        """The code of such calls, two of a curried function: of what is given first, and of what is left.

        None where there can be none.

        Raises:
            RunError: the compiler failed, and it is required.
        """
        try:
            description = call.description()
        except NotDescribable:  # then it serves this very call's network and rule
            return self._make(call)
        if description not in self._made:
            self._made[description] = self._make(call)
        return self._made[description]

    def _make(self, call: Call) -> Programs | None:
        return self._attempts.programs(call, lambda: self._compile(call), "")

    def _compile(self, call: Call) -> Programs:
        from pgx.compiler.compiler import compile_kernels

        return tuple(map(Kernels, compile_kernels(call)))
