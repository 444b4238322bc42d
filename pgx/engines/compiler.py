"""Making a program: a function traced to a graph of tensor operations, and the graph compiled.

Everything that imports torch's compiler (seconds) is here, and is imported by none but who compiles.
"""

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from pgx.engines.arguments import named_tensors, rebuilt, substituted
from pgx.engines.call import Call
from pgx.engines.halves import halves
from pgx.engines.program import keep

# Free sizes have to be some number while the function is traced: primes, which no network has for a width.
_EXAMPLE = {"rows": 1009, "ragged": 997}


class Uncompilable(Exception):
    """Why a function has no program."""


def compile_call(call: Call, path: Path) -> None:
    """Compile a function for all calls of this kind, into a file.

    Raises:
        Uncompilable: it does what a graph cannot say, or there is no compiler.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's advice to its own developers
        graph, examples = _traced(call)
        free = [(0,) if name else () for _, name in call.sizes()]
        _compile(graph, examples, free, path)


def compile_halves(call: Call, first: Path, second: Path) -> None:
    """Compile a function(a)(b), written as one of both, into two files: what a alone decides, and what is left.

    The first program is of the tensors of a, to those that are worth keeping; the second of the tensors of a, what
    was kept, and b.

    Raises:
        Uncompilable: as `compile_call`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph, examples = _traced(call)
        free = [(0,) if name else () for _, name in call.sizes()]
        early, late, kept = halves(graph, len(call.varying))
        begin = len(examples) - len(call.varying)
        _compile(early, examples[:begin], free[:begin], first)
        shapes = [[size if isinstance(size, int) else int(size.node.hint) for size in k.shape] for k in kept]
        kept_examples = [torch.zeros(shape, dtype=k.dtype) for shape, k in zip(shapes, kept, strict=True)]
        kept_free = [tuple(i for i, size in enumerate(k.shape) if not isinstance(size, int)) for k in kept]
        _compile(
            late,
            [*examples[:begin], *kept_examples, *examples[begin:]],
            [*free[:begin], *kept_free, *free[begin:]],
            second,
        )


def _compile(graph: nn.Module, examples: list[Tensor], free: Sequence[tuple[int, ...]], path: Path) -> None:
    """Compile a graph of tensors, any of whose sizes may be free, into a file."""
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None for axes in free)
    try:
        exported = torch.export.export(graph, tuple(examples), dynamic_shapes=dynamic, strict=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            package = str(Path(folder) / "program.pt2")  # a zip file, of the library and its sources
            torch._inductor.aoti_compile_and_package(
                exported,
                package_path=package,
                inductor_configs={"cpp.use_decompose_tanh": True},  # a third of the time, to 2e-7
            )
            with zipfile.ZipFile(package) as made:
                library = next(name for name in made.namelist() if name.endswith(".so"))
                keep(made.read(library), path)
    except Exception as error:
        raise Uncompilable(f"{type(error).__name__}: {_first_line(error)}") from error


def _traced(call: Call) -> tuple[GraphModule, list[Tensor]]:
    """The function's graph, from tensors to tensors, and tensors of the sizes that it was traced with."""
    # What has as many rows as a tensor's contents say (the stretches of a policy with memory) is no program's matter.
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
        raise Uncompilable(f"{type(error).__name__}: {_first_line(error)}") from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, examples


def _example(leaf: Tensor, free: str | None) -> Tensor:
    """A tensor of zeros like this one, of another first size where that is free."""
    shape = leaf.shape if free is None else (_EXAMPLE[free], *leaf.shape[1:])
    return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)


def _of_tensors(call: Call) -> Callable[..., tuple[Tensor, ...]]:
    """The function of all its tensors, networks' parameters and buffers among them."""

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        arguments: list[Any] = []
        networks: list[tuple[nn.Module, dict[str, Tensor]]] = []
        for argument in call.fixed:
            if isinstance(argument, nn.Module):
                own = {name: _like(old, next(remaining)) for name, old in named_tensors(argument)}
                networks.append((argument, own))
            arguments.append(rebuilt(argument, remaining))
        outputs: tuple[Tensor, ...] = substituted(networks, call.function, *arguments, *remaining)
        return tuple(output.detach() for output in outputs)

    return function


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A parameter in place of a parameter: functions may ask for gradients."""
    return new.detach().requires_grad_() if old.requires_grad else new


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
