"""An agent as one network from raw observations to actions, and a sample of observations to test its exported file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgx.core.agent import Agent, distribution_at, step_observations
from pgx.core.seeding import generator
from pgx.envs.vector import VectorEnv, step


class Deterministic(nn.Module):
    """Network from B raw observations to the most probable actions: normalizer, policy, bounds.

    Args:
        agent: source of normalizer and policy; the normalizer is frozen.
        first: smallest observation of a discrete space; 0 for others.
        to_environment: map from the policy's actions to those of the environment.
        masked: the environment provides action masks.
    """

    def __init__(
        self,
        agent: Agent,
        first: int,
        to_environment: Callable[[Tensor], Tensor],
        masked: bool,
    ) -> None:
        super().__init__()
        assert isinstance(agent.policy, nn.Module)
        self.policy = agent.policy
        self.masked = masked
        self.recurrent_state = agent.policy.recurrent_state
        self.first = first
        self._normalize_fn = agent.normalizer.normalize_fn
        self._to_environment = to_environment

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the inputs [B, ...], in order."""
        used = {"obs": True, "action_mask": self.masked, "recurrent_state": self.recurrent_state is not None}
        return tuple(name for name, is_input in used.items() if is_input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs [B, ...], in order."""
        return ("action",) if self.recurrent_state is None else ("action", "next_recurrent_state")

    def forward(self, obs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs. Args as in `inputs`: obs [B, ...] of `obs_dtype`, mask bool, recurrent state float32."""
        more = list(rest)
        mask = more.pop(0) if self.masked else None
        recurrent_state = more.pop(0) if self.recurrent_state is not None else None
        if self.first:
            obs = obs - self.first
        time = torch.zeros_like(
            obs.reshape(obs.shape[0], -1)[:, 0], dtype=torch.int64
        )  # policies do not use it
        distribution, after = distribution_at(
            self.policy, step_observations(self._normalize_fn, obs, time, mask, recurrent_state)
        )
        action = self._to_environment(distribution.executed(distribution.mode()))
        return (action,) if after is None else (action, after)


_MAX_OUTLIERS = 100  # rows that `with_outliers` repeats


@dataclass(frozen=True)
class Sample:
    """Rows from episodes of sampled actions."""

    obs: Tensor  # [R, ...] raw; discrete ones start at 0
    action_mask: Tensor | None  # [R, K]; None: the environment has no masks
    recurrent_state: Tensor | None  # [R, M] before the step; None: a feed-forward policy

    def inputs(self, first: int) -> tuple[Tensor, ...]:
        """Return the inputs of `Deterministic`; discrete observations start at `first`, as in the environment."""
        obs = self.obs + first if first else self.obs
        return tuple(part for part in (obs, self.action_mask, self.recurrent_state) if part is not None)


def with_outliers(sample: Sample, deviations: float) -> Sample:
    """Return the sample with additional rows whose observations the normalizer clips.

    Args:
        sample: R rows; returned unchanged if the observations are integers, which are not clipped.
        deviations: standard deviations of the sample by which some rows are moved, up in one copy, down in another.
    """
    if not sample.obs.is_floating_point():
        return sample
    part = slice(0, min(_MAX_OUTLIERS, len(sample.obs)))
    away = deviations * sample.obs.std(dim=0).clamp(min=1e-6)
    return Sample(
        torch.cat([sample.obs, sample.obs[part] + away, sample.obs[part] - away]),
        *(
            None if column is None else torch.cat([column, column[part], column[part]])
            for column in (sample.action_mask, sample.recurrent_state)
        ),
    )


def collect_sample(agent: Agent, envs: VectorEnv, rows: int, seed: int) -> Sample:
    """Return rows from episodes in which the agent samples its actions; on the CPU.

    Args:
        agent: to play.
        envs: N environments.
        rows: minimum number of rows R, which is a multiple of N.
        seed: of the environments and of sampling.
    """
    cpu, stream = torch.device("cpu"), generator(seed, "export actions")
    recurrent_state = agent.initial_recurrent_state(envs.num_envs, cpu)
    obs = envs.reset(seed)
    kept: dict[str, list[Tensor]] = {"obs": [], "recurrent_state": []}
    masks: list[Tensor | None] = []
    length, ended = np.zeros((2, envs.num_envs), dtype=np.int64)
    while len(kept["obs"]) * envs.num_envs < rows:
        mask = None if envs.action_mask is None else torch.from_numpy(envs.action_mask)
        seen = torch.from_numpy(obs)
        kept["obs"].append(seen.clone())
        masks.append(None if mask is None else mask.clone())
        if recurrent_state is not None:
            kept["recurrent_state"].append(recurrent_state.clone())
        acted = agent.act(agent.observe(seen, torch.from_numpy(length.copy()), mask, recurrent_state), stream)
        took = step(envs, acted.executed.numpy())
        resetting, ended = ended, (took.terminated | took.truncated).astype(np.int64)
        length = (length + 1 - resetting) * (1 - ended)
        if acted.recurrent_state is not None:
            reset = torch.from_numpy(resetting > 0).unsqueeze(-1)
            recurrent_state = acted.recurrent_state.masked_fill(reset, 0.0)
        obs = took.obs
    recurrent_states = torch.cat(kept["recurrent_state"]) if kept["recurrent_state"] else None
    return Sample(torch.cat(kept["obs"]), _whole(masks), recurrent_states)


def _whole(masks: Sequence[Tensor | None]) -> Tensor | None:
    """Return the masks of all steps, [R, K]; a step without a mask allows all actions."""
    shown = next((mask for mask in masks if mask is not None), None)
    if shown is None:
        return None
    return torch.cat([torch.ones_like(shown) if mask is None else mask for mask in masks])
