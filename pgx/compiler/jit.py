"""Compilation: functions are traced to graphs of tensor operations, and graphs are compiled.

On the CPU graphs become libraries on disk (`compile_libraries`). On a GPU they are compiled for this process
(`JitCompiler`): libraries for a GPU need CUDA's headers and compiler, which few machines have, while just-in-time
compilation needs only Triton, which torch's CUDA builds include.

This module imports torch's compiler, which takes seconds. Import it only to compile.
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
    """Compiled function of tensors in this process.

    Args:
        code: output of torch's compiler.
    """

    def __init__(self, code: Callable[..., Sequence[Tensor]]) -> None:
        self._code = code

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(self._code(*tensors))

    def scan(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Compute result, *state = code(*fixed, item, *state) for each item; return the results and the last state."""
        results = []
        for item in items:
            result, *state = self._code(*fixed, item, *state)
            results.append(result)
        return results, state


class JitCompiler:
    """Compiler of programs for this process.

    Args:
        folder: cache of torch's compiler, unless TORCHINDUCTOR_CACHE_DIR is set.
        report: receives lines for the console.
        required: a failure of the compiler ends the run.
    """

    def __init__(self, folder: Path, report: Callable[[str], None], required: bool) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "kernels"))
        self._compiler = CompilerGuard(report, required)
        self._programs: dict[str, Programs | None] = {}  # by description of the call

    def programs(self, call: FunctionCall) -> Programs | None:
        """Compile the programs of a call, or return those of an equal call; None if it cannot be compiled.

        Raises:
            RunError: the compiler failed, and compilation is required.
        """
        try:
            description = call.description()
        except NotDescribable:  # the programs cannot be shared with other calls
            return self._make(call)
        if description not in self._programs:
            self._programs[description] = self._make(call)
        return self._programs[description]

    def _make(self, call: FunctionCall) -> Programs | None:
        return self._compiler.programs(call, lambda: self._compile(call), "")

    def _compile(self, call: FunctionCall) -> Programs:

        return tuple(map(JitProgram, compile_in_process(call)))


def partition(graph: GraphModule, last: int) -> tuple[GraphModule, GraphModule, list[Tensor]]:
    """Divide a graph into the part that does not depend on its last inputs and the part that does.

    Args:
        graph: graph from tensors to tensors.
        last: number of last inputs.

    Returns:
        early: graph from the first inputs to the tensors that are kept.
        late: graph from the first inputs, the kept tensors and the last inputs to the outputs.
        kept: kept tensors, as traced.
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
                    kept |= dict.fromkeys(_tensors_to_keep(source))
    early = Graph()
    copies: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        if node not in waiting and node.op != "output":
            copies[node] = early.node_copy(node, copies.__getitem__)
    early.output(tuple(copies[node] for node in kept))
    late = _late_graph(graph.graph, inputs[: len(inputs) - last], inputs[len(inputs) - last :], list(kept))
    early.eliminate_dead_code()
    late.eliminate_dead_code()
    return GraphModule(graph, early), GraphModule(graph, late), [node.meta["val"] for node in kept]


def _tensors_to_keep(node: Node) -> list[Node]:
    """Return the nodes to keep for a node: itself, or those that it is a view or a size of; never inputs."""
    if node.op != "call_function":
        return []
    if not _is_cheap(node):
        return [node]
    return [behind for source in node.all_input_nodes for behind in _tensors_to_keep(source)]


def _is_cheap(node: Node) -> bool:
    """Return whether a node is a view of a tensor, or not a tensor."""
    view = isinstance(node.target, OpOverload) and node.target.is_view
    return view or not isinstance(node.meta.get("val"), Tensor)


def _late_graph(graph: Graph, first: list[Node], last: list[Node], kept: list[Node]) -> Graph:
    """Return the graph with the kept nodes as inputs, before unused nodes are removed."""
    late = Graph()
    copies = {node: late.node_copy(node) for node in first}
    for i, node in enumerate(kept):
        copies[node] = late.placeholder(f"kept_{i}")
    copies |= {node: late.node_copy(node) for node in last}
    for node in graph.nodes:
        if node not in copies:
            copies[node] = late.node_copy(node, copies.__getitem__)
    return late


# Dynamic sizes need example values while the function is traced: primes, which are no widths of networks.
_EXAMPLE_SIZES = {"rows": 1009, "ragged": 997}
_OPTIONS: dict[str, Any] = {"cpp.use_decompose_tanh": True}  # a third of the time, to 2e-7


class Uncompilable(Exception):
    """A function contains operations that a graph cannot express."""


class CompilerFailed(Exception):
    """The compiler failed on a function that it should compile."""


def compile_libraries(call: FunctionCall, paths: Sequence[Path]) -> None:
    """Compile a function into libraries, one for each part (see `_split`).

    Raises:
        Uncompilable: the function contains operations that a graph cannot express.
        CompilerFailed: torch's compiler, or the C++ compiler that it calls, failed.
    """
    with _silence_compiler():
        for part, path in zip(_split(call), paths, strict=True):
            try:
                _compile_library(part, path)
            except Exception as error:
                raise CompilerFailed(f"torch's compiler failed{_detail(error)}") from error


def compile_in_process(call: FunctionCall) -> list[Callable[..., Sequence[Tensor]]]:
    """Compile a function for this process, each part separately (see `_split`).

    Raises:
        Uncompilable, CompilerFailed: as `compile_libraries`.
    """
    with _silence_compiler():
        parts = _split(call)
        try:
            return [_compile_in_process(part) for part in parts]
        except Exception as error:
            raise CompilerFailed(f"torch's compiler failed{_detail(error)}") from error


@contextmanager
def _silence_compiler() -> Iterator[None]:
    """Suppress the compiler's warnings for its developers, and those on CUDA toolkits of machines without a GPU."""
    toolkit_logger = logging.getLogger("torch.utils.cpp_extension")  # which the first compilation imports
    level = toolkit_logger.level
    toolkit_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        toolkit_logger.setLevel(level)


class _Part(NamedTuple):
    """Graph to compile."""

    graph: GraphModule  # from tensors to tensors
    examples: list[Tensor]  # example inputs
    free: Sequence[tuple[int, ...]]  # dynamic axes of each input


def _split(call: FunctionCall) -> list[_Part]:
    """Trace a function into one part, or a curried function(a)(b) into two.

    The first of two maps the tensors of a to tensors that are kept. The second maps the tensors of a, the kept tensors
    and b to the outputs.

    Raises:
        Uncompilable: the function contains operations that a graph cannot express.
    """
    graph, examples = _trace(call)
    free = [(0,) if name else () for _, name in call.sizes()]
    if not isinstance(call.function, CurriedFunction):
        return [_Part(graph, examples, free)]
    early, late, kept = partition(graph, len(call.inputs))
    begin = len(examples) - len(call.inputs)
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


def _compile_library(part: _Part, path: Path) -> None:
    """Compile a graph into a library that runs without a compiler."""
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None for axes in part.free)
    exported = torch.export.export(part.graph, tuple(part.examples), dynamic_shapes=dynamic, strict=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        package = str(Path(folder) / "program.pt2")  # zip file with the library and its sources
        torch._inductor.aoti_compile_and_package(exported, package_path=package, inductor_configs=_OPTIONS)
        with zipfile.ZipFile(package) as made:
            library = next(name for name in made.namelist() if name.endswith(".so"))
            write_library(made.read(library), path)


def _compile_in_process(part: _Part) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph for this process; torch compiles it at the call with the examples."""
    code: Callable[..., Sequence[Tensor]] = torch.compile(part.graph, fullgraph=True, options=_OPTIONS)
    for example, axes in zip(part.examples, part.free, strict=True):
        for axis in axes:
            torch._dynamo.mark_dynamic(example, axis)
    code(*part.examples)
    return code


def _trace(call: FunctionCall) -> tuple[GraphModule, list[Tensor]]:
    """Return the graph of a function from tensors to tensors, and the example inputs of the trace."""
    # Sizes that depend on elements of tensors (sequences of a recurrent policy) are not compiled.
    shapes = ShapeEnv(duck_shape=True, allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
    fake_mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    examples = [_example(leaf, free) for leaf, free in call.sizes()]
    fakes = [
        fake_mode.from_tensor(
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
        graph = make_fx(_function_of_tensors(call), tracing_mode="real")(*fakes)
    except Exception as error:
        raise Uncompilable(f"torch cannot trace it to one graph{_detail(error)}") from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, examples


def _example(leaf: Tensor, free: str | None) -> Tensor:
    """Return zeros with the shape of a tensor; a dynamic first size gets its example value."""
    shape = leaf.shape if free is None else (_EXAMPLE_SIZES[free], *leaf.shape[1:])
    return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)


def _function_of_tensors(call: FunctionCall) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function of all tensors of a call, including parameters and buffers of networks."""

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        arguments: list[Any] = []
        networks: list[tuple[nn.Module, dict[str, Tensor]]] = []
        for argument in call.fixed:
            if isinstance(argument, nn.Module):
                own = {name: _as_parameter(old, next(remaining)) for name, old in named_tensors(argument)}
                networks.append((argument, own))
            arguments.append(replace_tensors(argument, remaining))
        outputs: tuple[Tensor, ...] = call_with_tensors(networks, call.function, *arguments, *remaining)
        return tuple(output.detach() for output in outputs)

    return function


def _as_parameter(old: Tensor, new: Tensor) -> Tensor:
    """Return the new tensor; it requires gradients if the old one does, since functions may compute them."""
    return new.detach().requires_grad_() if old.requires_grad else new


def _detail(error: Exception) -> str:
    """Return the compiler's message if PGX_DEBUG is 1, else how to see it."""
    if os.environ.get("PGX_DEBUG") != "1":
        return " (PGX_DEBUG=1 shows why)"
    return f" ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
