"""Whether all ranks learned the same."""

from pgx.core.agent import Agent
from pgx.core.errors import RunError
from pgx.core.ranks import Ranks
from pgx.ops.params import flatten


class RankMismatch(RunError):
    """The ranks no longer hold the same parameters, and none of them can be kept."""


def check_agreement(agent: Agent, ranks: Ranks, iteration: int) -> None:
    """Compare the parameters of all ranks: equal numbers follow on equal processors and nowhere else.

    Raises:
        RanksDisagree: they are not the same after the `iteration`th iteration.
    """
    weights = {name: list(getattr(agent, name).parameters()) for name in ("policy", "critic")}
    sums = {name: float(flatten(own).double().sum()) for name, own in weights.items() if own}
    if any(other != sums for other in ranks.gather(sums)):
        raise RankMismatch(
            f"iteration {iteration}: the ranks no longer hold the same parameters, as where they "
            "run on processors of different kinds; the last checkpoint is from before this was seen"
        )
