"""Whether a file acts as the agent does that it was made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.agent import Agent
from pgx.networks.export.formats import Run
from pgx.networks.export.sample import Sample

TOLERANCE = 1e-4  # of max(1, |number|): sums of float32 are in another order there


@dataclass(frozen=True)
class Difference:
    """What was compared, and how far apart it is at most."""

    rows: int
    largest: float  # of real numbers, |file - agent| / max(1, |agent|)
    others: int  # rows in which a whole number is another one

    @property
    def acceptable(self) -> bool:
        return self.largest <= TOLERANCE and self.others == 0

    def __str__(self) -> str:
        chosen = f", another choice in {self.others:,}" if self.others else ""
        return f"largest difference {self.largest:.1e} over {self.rows:,} observations{chosen}"


def compare(
    agent: Agent,
    convert: Callable[[NDArray[Any]], NDArray[Any]],
    run: Run,
    sample: Sample,
    inputs: Sequence[Tensor],
) -> Difference:
    """Have both act at every row of a sample: all rows at once, and one alone, as whoever plays will.

    Args:
        agent: the original, on the CPU.
        convert: from its actions to those of the environment (envs/spaces.py).
        run: the file.
        sample: R rows, as the agent sees them.
        inputs: the same, as the file takes them.
    """
    rows = len(sample.obs)
    time = torch.zeros(rows, dtype=torch.int64)
    acted = agent.act_greedily(agent.observe(sample.obs, time, sample.action_mask, sample.memory))
    expected = [convert(acted.executed.numpy())]
    if acted.memory is not None:
        expected.append(acted.memory.numpy())
    largest, others = 0.0, 0
    for part in (slice(0, 1), slice(None)):
        got = run([each[part] for each in inputs])
        for theirs, ours in zip(got, (each[part] for each in expected), strict=True):
            if theirs.shape != ours.shape:
                raise ValueError(f"expected {ours.shape} from the file, got {theirs.shape}")
            if ours.dtype.kind == "f":
                apart = np.abs(theirs.astype(float) - ours) / np.maximum(1.0, np.abs(ours))
                # NaN is no number that a maximum would pass on from everywhere.
                largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
            else:
                others = max(others, int((theirs != ours).reshape(len(ours), -1).any(axis=1).sum()))
    return Difference(rows, largest, others)
