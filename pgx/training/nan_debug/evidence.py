"""Numbers that are not finite: what is known of where they came from."""

from dataclasses import dataclass, field

from torch import Tensor

from pgx.core.agent import Agent
from pgx.core.data import Rollout
from pgx.core.errors import RunError
from pgx.core.plain import State
from pgx.core.rule import Learner
from pgx.ops.params import flatten


@dataclass(frozen=True)
class Attempt:
    """An update that failed, and all that is needed to make it again."""

    progress: float  # share of the step budget used before it
    before: State  # of agent and learner
    rollout: Rollout  # that it learned from


@dataclass
class Evidence:
    """What a run leaves behind of its failure."""

    attempt: Attempt | None = None  # where an update failed
    recorded: dict[str, Tensor] = field(
        default_factory=dict
    )  # [t, N, ...] where an environment did: its steps so far


class NotFiniteError(RunError):
    """A number became NaN or infinite; the message names the tensor and the iteration."""

    def __init__(self, message: str, evidence: Evidence | None = None) -> None:
        super().__init__(message)
        self.evidence = Evidence() if evidence is None else evidence


def unsound(agent: Agent) -> str | None:
    """The network whose parameters are not finite numbers; None where all are."""
    for name in ("policy", "critic"):
        weights = list(getattr(agent, name).parameters())
        if weights and not bool(flatten(weights).isfinite().all()):
            return name
    return None


def learned(agent: Agent, learner: Learner) -> State:
    """All that an update reads and changes."""
    return {"agent": agent.state_dict(), "learner": learner.state_dict()}


def unlearn(agent: Agent, learner: Learner, before: State) -> None:
    """Undo an update."""
    agent.load_state_dict(before["agent"])
    learner.load_state_dict(before["learner"])


def refuse_unsound(agent: Agent, iteration: int) -> None:
    """
    Raises:
        NotFiniteError: the parameters of a network are not finite after an update, the `iteration`th.
    """
    if (name := unsound(agent)) is not None:
        raise NotFiniteError(unsound_update(name, iteration))


def unsound_update(network: str, iteration: int) -> str:
    """What happened, in words."""
    return f"iteration {iteration}: the update made parameters of the {network} NaN or infinite"
