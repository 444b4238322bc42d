"""All of an agent that acts, as one network: from what an environment shows to what it takes."""

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgx.core.agent import Agent, at_one_moment, distribution_at


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
        self._lens = agent.normalizer.lens
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
