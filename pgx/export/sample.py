"""Observations that a policy meets, for comparing a file with what it was made of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgx.envs.vector import VectorEnv, step
from pgx.seeding import generator
from pgx.types import Agent


@dataclass(frozen=True)
class Sample:
    """Rows from episodes of sampled actions."""

    obs: Tensor  # [R, ...] raw; where discrete, from 0
    action_mask: Tensor | None  # [R, K]; None: the environment says nothing of it
    memory: Tensor | None  # [R, M] before the step; None: the policy has none

    def inputs(self, first: int) -> tuple[Tensor, ...]:
        """As the environment shows them, discrete ones from `first` on; in the order of `Deterministic.inputs`."""
        shown = self.obs + first if first else self.obs
        return tuple(part for part in (shown, self.action_mask, self.memory) if part is not None)


def observed(agent: Agent, envs: VectorEnv, rows: int, seed: int) -> Sample:
    """So many rows of episodes of the agent, who samples; on the CPU.

    Args:
        agent: who plays.
        envs: N environments.
        rows: R, at least; of whole steps of all environments.
        seed: of the environments and of sampling.
    """
    cpu, stream = torch.device("cpu"), generator(seed, "export actions")
    memory = agent.blank_memory(envs.num_envs, cpu)
    obs = envs.reset(seed)
    kept: dict[str, list[Tensor]] = {"obs": [], "action_mask": [], "memory": []}
    length, ended = np.zeros((2, envs.num_envs), dtype=np.int64)
    while len(kept["obs"]) * envs.num_envs < rows:
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask)
        seen = torch.from_numpy(obs), mask, memory
        for part, values in zip(kept.values(), seen, strict=True):
            if values is not None:
                part.append(values.clone())
        acted = agent.act(agent.observe(seen[0], torch.from_numpy(length.copy()), mask, memory), stream)
        took = step(envs, acted.executed.numpy())
        resetting, ended = ended, (took.terminated | took.truncated).astype(np.int64)
        length = (length + 1 - resetting) * (1 - ended)
        if acted.memory is not None:
            memory = acted.memory.masked_fill(torch.from_numpy(resetting > 0).unsqueeze(-1), 0.0)
        obs = took.obs
    return Sample(*(torch.cat(part) if part else None for part in kept.values()))  # type: ignore[arg-type]
