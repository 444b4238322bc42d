"""Definition of a metric."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """Definition of one scalar over environment steps."""

    key: str  # as code reports it
    unit: str
    meaning: str
    healthy: str = ""  # rule of thumb for a healthy run; "": none
    section: str = "algo"  # of its tag; what an update rule reports stands in `algo`

    @property
    def tag(self) -> str:
        """Return the name in TensorBoard and metrics.jsonl, `section/key`; the key of eval/x is eval_x."""
        return f"{self.section}/{self.key.removeprefix(f'{self.section}_')}"
