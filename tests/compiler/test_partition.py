"""A function cut in two is the function, and what its first arguments decide is not done again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pgx.compiler.jit import partition


def layered(weight: Tensor, rows: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
    """One hidden layer, a derivative of it in the direction of a vector, and a view that both halves need."""
    hidden = (rows @ weight.t()).tanh()
    slope = 1 - hidden.square()
    return (slope * (rows @ vector.view_as(weight).t()), hidden.t() @ hidden * vector.sum())


def early_alone(weight: Tensor, rows: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
    """What comes out does not depend on what comes late."""
    return (rows.exp() @ weight.t(),)


def late_alone(weight: Tensor, rows: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
    """Nothing can be done before."""
    return (rows @ vector.view(2, 3).t() + weight.sum(1, keepdim=True).t() * vector[0],)


def sized(weight: Tensor, rows: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
    """A size of what is kept, where only the vector is."""
    return (vector / rows.exp()[1:].size(0) + rows.mean(),)


def viewed(weight: Tensor, rows: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
    """Views of what is given and of what is kept meet what comes late."""
    return (weight.t() * vector.view(3, 2), rows.tanh().t() * vector[0])


FUNCTIONS = [viewed, layered, early_alone, late_alone, sized]


def arguments(seed: int, rows: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=stream) for shape in ((2, 3), (rows, 3), (6,)))  # type: ignore[return-value]


def traced(function: Callable[..., tuple[Tensor, ...]]) -> GraphModule:
    return make_fx(function, tracing_mode="symbolic")(*arguments(0))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("late_inputs", [1, 2])
def test_both_halves_in_turn_are_the_whole(
    function: Callable[..., tuple[Tensor, ...]], late_inputs: int
) -> None:
    early, late, _ = partition(traced(function), late_inputs)
    for seed, rows in ((1, 5), (2, 9)):
        given = arguments(seed, rows)
        first, last = given[: 3 - late_inputs], given[3 - late_inputs :]
        kept = early(*first)
        for scale in (1.0, -2.0):  # what is kept serves any number of calls
            varied = tuple(scale * x for x in last)
            for found, expected in zip(late(*first, *kept, *varied), function(*first, *varied), strict=True):
                torch.testing.assert_close(found, expected)


def operations(graph: GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_the_early_part_is_computed_once() -> None:
    early, late, _ = partition(traced(layered), 1)
    assert "aten.tanh.default" in operations(early)
    assert "aten.tanh.default" not in operations(late)
    assert "aten.exp.default" not in operations(partition(traced(sized), 1)[1])


def test_inputs_and_views_are_not_kept() -> None:
    """Inputs are there anyway, and a view that is kept would be a copy."""
    _, rows, _ = arguments(1)
    early, _, examples = partition(traced(viewed), 1)
    (kept,) = early(*arguments(1)[:2])
    assert torch.equal(kept, rows.tanh()) and len(examples) == 1
