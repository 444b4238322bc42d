"""Train a walker on your own reward term: knees that stay straight.

    pgx train algo=trpo env=Walker2d-v4 'reward.terms.knees={function:custom_reward.straight_knees,bend:0.5,weight:1}'

The term is added to the environment's own reward; `reward.environment=0` replaces it. `metrics.jsonl` shows
the term's part of the return as `reward/knees`, and the environment's own return as `rollout/unshaped_return`.
"""

import numpy as np
from numpy.typing import NDArray

from pgx.core.schema import Positive

RIGHT_KNEE, LEFT_KNEE = 4, 7  # of Walker2d's qpos, rad


def straight_knees(qpos: NDArray[np.float64], bend: Positive) -> NDArray[np.float64]:
    """Return the mean of exp(-(a / bend)^2) over both knees with angles a [N]; 1 if they are straight.

    Args:
        qpos: [N, nq] positions of the simulator, a quantity in docs/rewards.md that pgx passes.
        bend: rad, from the config, checked against its annotation.
    """
    return np.exp(-((qpos[:, [RIGHT_KNEE, LEFT_KNEE]] / bend) ** 2)).mean(axis=1)
