"""Playing whole episodes with an agent that no longer changes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pgx.envs.vector import VectorEnv
from pgx.runners.sync import Episode


def play(
    choose: Callable[[Tensor], Tensor], envs: VectorEnv, episodes: int, seed: int, device: torch.device
) -> list[Episode]:
    """Episodes from freshly seeded environments.

    Environment i plays its share of the episodes, ceil or floor of episodes / N, however long they last: taking
    whichever episodes end first would favour the short ones.

    Args:
        choose: raw observations [N, ...] -> actions [N, ...].
        envs: N environments; more than `episodes` of them would be left unused.
        episodes: how many, >= 1.
        seed: environment i is seeded with seed + i.
        device: where `choose` computes.

    Returns:
        The episodes in the order in which they ended.
    """
    n = envs.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    total, length = np.zeros(n), np.zeros(n, dtype=np.int64)
    resetting = np.zeros(n, dtype=bool)
    obs = envs.reset(seed)
    played: list[Episode] = []
    while left.any():
        action = choose(torch.from_numpy(obs).to(device))
        step = envs.step(action.cpu().numpy())
        total += step.reward  # a reset pays nothing
        length += ~resetting
        done = step.terminated | step.truncated
        for i in np.flatnonzero(done & (left > 0)):
            played.append(Episode(float(total[i]), int(length[i])))
            left[i] -= 1
        total[done], length[done] = 0.0, 0
        resetting, obs = done, step.obs
    return played
