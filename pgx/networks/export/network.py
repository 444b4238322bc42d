"""All of an agent that acts, as one network: from what an environment shows to what it takes.

Observations that a policy meets, for comparing a file with what it was made of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgx.core.agent import Agent, at_one_moment, distribution_at
from pgx.core.seeding import generator
from pgx.envs.vector import VectorEnv, step


class Deterministic(nn.Module):
    """The most probable actions at B raw observations: normaliser, policy, bounds.

    Args:
        agent: whose; its normaliser is frozen as it is.
        observations, actions: the environment's spaces.
        masked: whether the environment says which actions can be taken.
    """

    def __init__(
        self,
        agent: Agent,
        observations: "gymnasium.Space[object]",
        actions: "gymnasium.Space[object]",
        masked: bool,
    ) -> None:
        super().__init__()
        assert isinstance(agent.policy, nn.Module)
        self.policy = agent.policy
        self.masked = masked
        self.memory = agent.policy.memory
        self._lens = agent.normalizer.normalize_fn
        self.first = int(observations.start) if isinstance(observations, spaces.Discrete) else 0
        self._written = _writer(actions)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it takes, in order: [B, ...] each."""
        asked = {"obs": True, "action_mask": self.masked, "memory": self.memory is not None}
        return tuple(name for name, there in asked.items() if there)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives, in order: [B, ...] each."""
        return ("action",) if self.memory is None else ("action", "next_memory")

    def forward(self, obs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Args as in `inputs`: obs as in a rollout (`obs_dtype`), action_mask bool, memory float32."""
        more = list(rest)
        mask = more.pop(0) if self.masked else None
        memory = more.pop(0) if self.memory is not None else None
        if self.first:
            obs = obs - self.first
        time = torch.zeros_like(obs.reshape(obs.shape[0], -1)[:, 0], dtype=torch.int64)  # no policy reads it
        distribution, after = distribution_at(self.policy, at_one_moment(self._lens, obs, time, mask, memory))
        action = self._written(distribution.executed(distribution.mode()))
        return (action,) if after is None else (action, after)


def _writer(space: "gymnasium.Space[object]") -> Callable[[Tensor], Tensor]:
    """From a policy's actions to those of a space: as envs/spaces.py has it, of tensors."""
    if isinstance(space, spaces.Box):
        bounds = np.stack([space.low, space.high]).astype(np.float32)
        low, high = torch.from_numpy(bounds)
        dtype = torch.float64 if space.dtype == np.float64 else torch.float32
        return lambda action: action.reshape(-1, *low.shape).maximum(low).minimum(high).to(dtype)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    first = torch.from_numpy(np.asarray(space.start, np.int64))
    return lambda action: action.reshape(-1, *first.shape) + first


FAR = 100  # rows that are repeated far away, at most


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


def with_outliers(sample: Sample, deviations: float) -> Sample:
    """Return the sample and some of its rows again, with observations that lie beyond the clip of the normaliser.

    Args:
        sample: R rows. Observations that are whole numbers have no clip: such a sample is returned as it is.
        deviations: how many standard deviations of the sample each component is moved, up in one copy, down in another.
    """
    if not sample.obs.is_floating_point():
        return sample
    part = slice(0, min(FAR, len(sample.obs)))
    away = deviations * sample.obs.std(dim=0).clamp(min=1e-6)
    return Sample(
        torch.cat([sample.obs, sample.obs[part] + away, sample.obs[part] - away]),
        *(
            None if column is None else torch.cat([column, column[part], column[part]])
            for column in (sample.action_mask, sample.memory)
        ),
    )


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
    kept: dict[str, list[Tensor]] = {"obs": [], "memory": []}
    masks: list[Tensor | None] = []
    length, ended = np.zeros((2, envs.num_envs), dtype=np.int64)
    while len(kept["obs"]) * envs.num_envs < rows:
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask)
        seen = torch.from_numpy(obs)
        kept["obs"].append(seen.clone())
        masks.append(None if mask is None else mask.clone())
        if memory is not None:
            kept["memory"].append(memory.clone())
        acted = agent.act(agent.observe(seen, torch.from_numpy(length.copy()), mask, memory), stream)
        took = step(envs, acted.executed.numpy())
        resetting, ended = ended, (took.terminated | took.truncated).astype(np.int64)
        length = (length + 1 - resetting) * (1 - ended)
        if acted.memory is not None:
            memory = acted.memory.masked_fill(torch.from_numpy(resetting > 0).unsqueeze(-1), 0.0)
        obs = took.obs
    memories = torch.cat(kept["memory"]) if kept["memory"] else None
    return Sample(torch.cat(kept["obs"]), _whole(masks), memories)


def _whole(masks: Sequence[Tensor | None]) -> Tensor | None:
    """Return the masks of all steps, [R, K]; an environment that shows none at a step allows every action there."""
    shown = next((mask for mask in masks if mask is not None), None)
    if shown is None:
        return None
    return torch.cat([torch.ones_like(shown) if mask is None else mask for mask in masks])
