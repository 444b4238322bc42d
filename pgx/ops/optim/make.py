"""An optimizer from plain values."""

from collections.abc import Callable, Mapping
from typing import Any

from pgx.core.algorithm import Engine, Optimizer
from pgx.core.ranks import Ranks
from pgx.ops.optim.none import NoSteps


def make_optimizer(
    registry: Mapping[str, Callable[..., Optimizer]],
    values: Mapping[str, Any],
    network: Any,
    engine: Engine,
    ranks: Ranks,
) -> Optimizer:
    """The optimizer of a network that its values describe.

    Args:
        registry: OPTIMIZERS or CRITIC_OPTIMIZERS.
        values: its name there, None for no steps; and its other arguments.
        network: what is stepped.
        engine: runs the steps.
        ranks: who have the other rows of a loss.
    """
    if values["name"] is None:
        return NoSteps(network)
    arguments = {key: value for key, value in values.items() if key != "name"}
    return registry[values["name"]](network=network, engine=engine, ranks=ranks, **arguments)
