"""A traced function cut in two: what its first arguments decide, and what waits for the last ones."""

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node


def halves(graph: GraphModule, last: int) -> tuple[GraphModule, GraphModule, list[Tensor]]:
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
