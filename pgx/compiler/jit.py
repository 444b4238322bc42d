"""Functions compiled just in time, for this process alone: what a GPU runs.

Ahead-of-time libraries (pgx/compiler/program_cache.py) need CUDA's own headers and
compiler, which few who use a GPU have. What torch's compiler makes just in time needs Triton alone, which comes with
torch's CUDA builds; it keeps its kernels on disk itself.

A traced function cut in two: what its first arguments decide, and what waits for the last ones.

Making a program: a function traced to a graph of tensor operations, and the graph compiled.

Everything that imports torch's compiler (seconds) is here, and is imported by none but who compiles.
"""

import logging
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._inductor
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from pgx.compiler.arguments import CurriedFunction, FunctionCall, NotDescribable
from pgx.compiler.program import write_library
from pgx.compiler.program_cache import CompilerGuard, Programs
from pgx.core.tensor_tree import call_with_tensors, named_tensors, replace_tensors


class JitProgram:
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
        self._attempts = CompilerGuard(report, required)
        self._made: dict[str, Programs | None] = {}  # by descriptions of calls

    def programs(self, call: FunctionCall) -> Programs | None:
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

    def _make(self, call: FunctionCall) -> Programs | None:
        return self._attempts.programs(call, lambda: self._compile(call), "")

    def _compile(self, call: FunctionCall) -> Programs:

        return tuple(map(JitProgram, compile_in_process(call)))


def partition(graph: GraphModule, last: int) -> tuple[GraphModule, GraphModule, list[Tensor]]:
    """Cut a graph between what depends on its last inputs and what does not.

    Args:
        graph: of tensors to tensors.
        last: how many inputs come late.

    Returns:
        early: of the other inputs, to tensors worth keeping;
        late: of the other inputs, what was kept, and the last inputs, to the graph's outputs;
        what is kept, as it was while tracing.
    """
    inputs = graph.graph.find_nodes(op="placeholder")
    waiting = set(inputs[len(inputs) - last :])
    for node in graph.graph.nodes:
        if waiting & set(node.all_input_nodes):
            waiting.add(node)
    kept: dict[Node, None] = {}
    for node in graph.graph.nodes:
        if node in waiting or node.op == "output":
            for source in node.all_input_nodes:
                if source not in waiting:
                    kept |= dict.fromkeys(_worth_keeping(source))
    early = Graph()
    copies: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        if node not in waiting and node.op != "output":
            copies[node] = early.node_copy(node, copies.__getitem__)
    early.output(tuple(copies[node] for node in kept))
    late = _late(graph.graph, inputs[: len(inputs) - last], inputs[len(inputs) - last :], list(kept))
    early.eliminate_dead_code()
    late.eliminate_dead_code()
    return GraphModule(graph, early), GraphModule(graph, late), [node.meta["val"] for node in kept]


def _worth_keeping(node: Node) -> list[Node]:
    """The tensors behind a node: itself, or what it is but a view or a size of; inputs are there anyway."""
    if node.op != "call_function":
        return []
    if not _cheap(node):
        return [node]
    return [behind for source in node.all_input_nodes for behind in _worth_keeping(source)]


def _cheap(node: Node) -> bool:
    """A view of a tensor, or no tensor at all."""
    view = isinstance(node.target, OpOverload) and node.target.is_view
    return view or not isinstance(node.meta.get("val"), Tensor)


def _late(graph: Graph, first: list[Node], last: list[Node], kept: list[Node]) -> Graph:
    """The graph with the kept nodes for inputs; what nothing needs any more is still in it."""
    late = Graph()
    copies = {node: late.node_copy(node) for node in first}
    for i, node in enumerate(kept):
        copies[node] = late.placeholder(f"kept_{i}")
    copies |= {node: late.node_copy(node) for node in last}
    for node in graph.nodes:
        if node not in copies:
            copies[node] = late.node_copy(node, copies.__getitem__)
    return late


# Free sizes have to be some number while the function is traced: primes, which no network has for a width.
_EXAMPLE = {"rows": 1009, "ragged": 997}
_OPTIONS: dict[str, Any] = {"cpp.use_decompose_tanh": True}  # a third of the time, to 2e-7


class Uncompilable(Exception):
    """A function does what no program can say, whatever the compiler."""


class CompilerFailed(Exception):
    """The compiler failed on a function that it should compile."""


def compile_libraries(call: FunctionCall, paths: Sequence[Path]) -> None:
    """Compile a function for all calls of this kind, each of its parts (see `_parts`) into a file.

    Raises:
        Uncompilable: it does what a graph cannot say.
        CompilerFailed: torch's compiler, or the C++ compiler that it calls.
    """
    with _quietly():
        for part, path in zip(_parts(call), paths, strict=True):
            try:
                _make_library(part, path)
            except Exception as error:
                raise CompilerFailed(f"torch's compiler failed{_detail(error)}") from error


def compile_in_process(call: FunctionCall) -> list[Callable[..., Sequence[Tensor]]]:
    """Compile a function for all calls of this kind, each of its parts (see `_parts`) for this process alone.

    Raises:
        Uncompilable, CompilerFailed: as `compile_libraries`.
    """
    with _quietly():
        parts = _parts(call)
        try:
            return [_make_kernels(part) for part in parts]
        except Exception as error:
            raise CompilerFailed(f"torch's compiler failed{_detail(error)}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the compiler's advice to its own developers, and its word on a CUDA toolkit that no GPU is there for."""
    of_toolkits = logging.getLogger("torch.utils.cpp_extension")  # which the first compilation imports
    level = of_toolkits.level
    of_toolkits.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        of_toolkits.setLevel(level)


class _Part(NamedTuple):
    """A graph to be compiled."""

    graph: GraphModule  # of tensors to tensors
    examples: list[Tensor]  # tensors that it takes
    free: Sequence[tuple[int, ...]]  # of each, the axes whose size may be any


def _parts(call: FunctionCall) -> list[_Part]:
    """A function is one part; a function(a)(b), written as one of both, is two: what a alone decides, and what is left.

    The first is of the tensors of a, to those that are worth keeping; the second of the tensors of a, what was kept,
    and b.

    Raises:
        Uncompilable: the function does what a graph cannot say.
    """
    graph, examples = _traced(call)
    free = [(0,) if name else () for _, name in call.sizes()]
    if not isinstance(call.function, CurriedFunction):
        return [_Part(graph, examples, free)]
    early, late, kept = partition(graph, len(call.varying))
    begin = len(examples) - len(call.varying)
    shapes = [[size if isinstance(size, int) else int(size.node.hint) for size in k.shape] for k in kept]
    kept_examples = [
        torch.zeros(shape, dtype=k.dtype, device=k.device) for shape, k in zip(shapes, kept, strict=True)
    ]
    kept_free = [tuple(i for i, size in enumerate(k.shape) if not isinstance(size, int)) for k in kept]
    return [
        _Part(early, examples[:begin], free[:begin]),
        _Part(
            late,
            [*examples[:begin], *kept_examples, *examples[begin:]],
            [*free[:begin], *kept_free, *free[begin:]],
        ),
    ]


def _make_library(part: _Part, path: Path) -> None:
    """Compile a graph ahead of time, into a file that needs no compiler."""
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None for axes in part.free)
    exported = torch.export.export(part.graph, tuple(part.examples), dynamic_shapes=dynamic, strict=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        package = str(Path(folder) / "program.pt2")  # a zip file, of the library and its sources
        torch._inductor.aoti_compile_and_package(exported, package_path=package, inductor_configs=_OPTIONS)
        with zipfile.ZipFile(package) as made:
            library = next(name for name in made.namelist() if name.endswith(".so"))
            write_library(made.read(library), path)


def _make_kernels(part: _Part) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph just in time, which is now: it is called once with its examples."""
    code: Callable[..., Sequence[Tensor]] = torch.compile(part.graph, fullgraph=True, options=_OPTIONS)
    for example, axes in zip(part.examples, part.free, strict=True):
        for axis in axes:
            torch._dynamo.mark_dynamic(example, axis)
    code(*part.examples)
    return code


def _traced(call: FunctionCall) -> tuple[GraphModule, list[Tensor]]:
    """The function's graph, from tensors to tensors, and tensors of the sizes that it was traced with."""
    # What has as many rows as a tensor's contents say (the sequences of a recurrent policy) is no program's matter.
    shapes = ShapeEnv(duck_shape=True, allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
    pretend = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    examples = [_example(leaf, free) for leaf, free in call.sizes()]
    fakes = [
        pretend.from_tensor(
            example,
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[
                    DimDynamic.DYNAMIC if free and axis == 0 else DimDynamic.STATIC
                    for axis in range(example.dim())
                ]
            ),
        )
        for example, (_, free) in zip(examples, call.sizes(), strict=True)
    ]
    try:
        graph = make_fx(_of_tensors(call), tracing_mode="real")(*fakes)
    except Exception as error:
        raise Uncompilable(f"torch cannot trace it to one graph{_detail(error)}") from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, examples


def _example(leaf: Tensor, free: str | None) -> Tensor:
    """A tensor of zeros like this one, of another first size where that is free."""
    shape = leaf.shape if free is None else (_EXAMPLE[free], *leaf.shape[1:])
    return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)


def _of_tensors(call: FunctionCall) -> Callable[..., tuple[Tensor, ...]]:
    """The function of all its tensors, networks' parameters and buffers among them."""

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        arguments: list[Any] = []
        networks: list[tuple[nn.Module, dict[str, Tensor]]] = []
        for argument in call.fixed:
            if isinstance(argument, nn.Module):
                own = {name: _like(old, next(remaining)) for name, old in named_tensors(argument)}
                networks.append((argument, own))
            arguments.append(replace_tensors(argument, remaining))
        outputs: tuple[Tensor, ...] = call_with_tensors(networks, call.function, *arguments, *remaining)
        return tuple(output.detach() for output in outputs)

    return function


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A parameter in place of a parameter: functions may ask for gradients."""
    return new.detach().requires_grad_() if old.requires_grad else new


def _detail(error: Exception) -> str:
    """The compiler's own words, which name its source files, for those who debug; else how to see them."""
    if os.environ.get("PGX_DEBUG") != "1":
        return " (PGX_DEBUG=1 shows why)"
    return f" ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
