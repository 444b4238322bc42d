"""Evidence of numbers that are not finite."""

from dataclasses import dataclass, field

from torch import Tensor

from pgx.core.agent import State
from pgx.core.data import Rollout
from pgx.core.errors import RunError


@dataclass(frozen=True)
class FailedUpdate:
    """Failed update, with all data needed to reproduce it."""

    progress: float  # share of the step budget used before it
    before: State  # of agent and learner
    rollout: Rollout  # that it learned from


@dataclass
class FailureRecord:
    """Data that a failed run writes for diagnosis."""

    attempt: FailedUpdate | None = None  # where an update failed
    recorded: dict[str, Tensor] = field(
        default_factory=dict
    )  # [t, N, ...] where an environment did: its steps so far


class NotFiniteError(RunError):
    """A number became NaN or infinite; the message names the tensor and the iteration."""

    def __init__(self, message: str, record: FailureRecord | None = None) -> None:
        super().__init__(message)
        self.record = FailureRecord() if record is None else record
