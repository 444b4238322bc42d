"""How a run ended, as its summary and its folder say."""

import re
from dataclasses import dataclass
from typing import Literal

from pgx.analysis.recorded import Recorded

State = Literal["failed", "killed", "interrupted", "pruned"]
BAD: tuple[State, ...] = ("failed", "killed")


@dataclass(frozen=True)
class Ending:
    """The end of a run that did not reach its last step."""

    state: State
    steps: int  # environment steps until then
    cause: str  # one line

    @property
    def bad(self) -> bool:
        """Whether something went wrong, rather than someone stopped the run."""
        return self.state in BAD

    @property
    def of_numbers(self) -> bool:
        """Whether an update's NaN or infinity ended the run; its cause names the command that reproduces it."""
        return self.cause.startswith(NOT_FINITE) and not self.of_environment

    @property
    def of_environment(self) -> bool:
        """Whether an environment's NaN or infinity ended the run."""
        return self.cause.startswith(NOT_FINITE) and FROM_ENVIRONMENT.search(self.cause) is not None


NOT_FINITE = "NotFiniteError"  # how summary.json names it
FROM_ENVIRONMENT = re.compile(r": the (observation|reward) of environment \d")


def ending_of(run: Recorded) -> Ending | None:
    """Return how a run ended; None if it finished, is running, or does not say."""
    if run.running:
        return None
    steps = int(run.summary.get("steps") or (run.rows[-1]["step"] if run.rows else 0))
    match run.summary.get("status"):
        case "failed":
            cause = " ".join(str(run.summary.get("error") or "summary.json holds no reason").split())
            return Ending("failed", steps, cause)
        case "interrupted":
            return Ending("interrupted", steps, "stopped before trainer.total_steps, by Ctrl-C or a signal")
        case "pruned":
            return Ending("pruned", steps, "stopped by the search: other trials were better by then")
        case None if run.config and run.running is False:
            cause = (
                "no summary.json and no process at work: the process was killed (out of memory, SIGKILL, a machine "
                "that stopped)"
            )
            return Ending("killed", steps, cause)
    return None
