"""What is said of an assumption."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["holds", "fails", "cannot be told"]


@dataclass(frozen=True)
class Verdict:
    """Whether an assumption holds, and one line of what was seen."""

    outcome: Outcome
    evidence: str


class Untold(Exception):
    """What an assumption would be judged by is not there; says why."""


def holds(evidence: str) -> Verdict:
    return Verdict("holds", evidence)


def fails(evidence: str) -> Verdict:
    return Verdict("fails", evidence)


def untold(evidence: str) -> Verdict:
    return Verdict("cannot be told", evidence)
