"""Numbers that are not finite: what is known of where they came from."""

from pgx.core.agent import Agent, State
from pgx.core.algorithm import Learner
from pgx.core.nonfinite import NotFiniteError
from pgx.ops.params import flatten


def nonfinite_network(agent: Agent) -> str | None:
    """The network whose parameters are not finite numbers; None where all are."""
    for name in ("policy", "critic"):
        weights = list(getattr(agent, name).parameters())
        if weights and not bool(flatten(weights).isfinite().all()):
            return name
    return None


def learned(agent: Agent, learner: Learner) -> State:
    """All that an update reads and changes."""
    return {"agent": agent.state_dict(), "learner": learner.state_dict()}


def rollback(agent: Agent, learner: Learner, before: State) -> None:
    """Undo an update."""
    agent.load_state_dict(before["agent"])
    learner.load_state_dict(before["learner"])


def refuse_nonfinite(agent: Agent, iteration: int) -> None:
    """
    Raises:
        NotFiniteError: the parameters of a network are not finite after an update, the `iteration`th.
    """
    if (name := nonfinite_network(agent)) is not None:
        raise NotFiniteError(nonfinite_update(name, iteration))


def nonfinite_update(network: str, iteration: int) -> str:
    """What happened, in words."""
    return f"iteration {iteration}: the update made parameters of the {network} NaN or infinite"
