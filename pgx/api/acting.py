"""Trained agents that act on NumPy arrays."""

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from pgx.core.agent import Agent
from pgx.core.errors import ConfigError
from pgx.core.seeding import generator
from pgx.core.specs import choice_sizes
from pgx.envs.spaces import action_spec, mask_problem, observation_spec, read_mask


class TrainedAgent:
    """Agent that maps observations of an environment to its actions, one or a batch.

    A recurrent agent keeps its state from call to call: call `reset` when episodes begin.

    Args:
        networks: policy, critic and observation normalizer.
        observation_space: of the environment.
        action_space: of the environment.
        env: id of the environment, for messages.
        device: of the networks.
        seed: of sampled actions.
    """

    def __init__(
        self,
        networks: Agent,
        observation_space: "gymnasium.Space[Any]",
        action_space: "gymnasium.Space[Any]",
        env: str,
        device: torch.device,
        seed: int,
    ) -> None:
        self.networks = networks
        self.observation_space = observation_space
        self.action_space = action_space
        self.env = env
        self._device = device
        self._convert_obs = observation_spec(env, observation_space)[1]
        self._action_spec, self._convert_action = action_spec(env, action_space)
        self._generator = generator(seed, "acting", str(device))
        self._recurrent_state: torch.Tensor | None = None

    def act(self, obs: Any, deterministic: bool = True, action_mask: Any = None) -> NDArray[Any]:
        """Return actions that the environment takes.

        Args:
            obs: one observation of `observation_space`, or a batch of them, [B, ...].
            deterministic: take the most likely action; otherwise sample.
            action_mask: allowed choices, [K] for one observation or [B, K]; None: all are allowed.

        Returns:
            One action of `action_space`, or a batch [B, ...]; a number for one discrete action.

        Raises:
            ConfigError: an observation or a mask has another shape.
        """
        single, rows = self._as_batch(obs)
        features = torch.from_numpy(self._convert_obs(rows)).to(self._device)
        count = len(features)
        if self._recurrent_state is None or len(self._recurrent_state) != count:
            if self._recurrent_state is not None:
                raise ConfigError(
                    f"act: got {count} observations after {len(self._recurrent_state)}; a recurrent agent keeps a "
                    "state for each: call reset() before another number of them"
                )
            self._recurrent_state = self.networks.initial_recurrent_state(count, self._device)
        time = torch.zeros(count, dtype=torch.int64, device=self._device)  # actions do not depend on it
        seen = self.networks.observe(features, time, self._mask(action_mask, count), self._recurrent_state)
        networks = self.networks
        acted = networks.act_greedily(seen) if deterministic else networks.act(seen, self._generator)
        self._recurrent_state = acted.recurrent_state
        actions: NDArray[Any] = self._convert_action(acted.executed.cpu().numpy())
        chosen: NDArray[Any] = actions[0] if single else actions
        return chosen

    def reset(self, ended: Any = None) -> None:
        """Begin new episodes: forget the recurrent state.

        Args:
            ended: [B] bool, the observations whose episode ended; None: all.
        """
        if ended is None or self._recurrent_state is None:
            self._recurrent_state = None
            return
        over = torch.as_tensor(np.asarray(ended, dtype=bool), device=self._device)
        self._recurrent_state = self._recurrent_state.masked_fill(over.unsqueeze(-1), 0.0)

    def _as_batch(self, obs: Any) -> tuple[bool, NDArray[Any]]:
        """Return whether there is one observation, and the observations as [B, ...]."""
        rows, shape = np.asarray(obs), tuple(self.observation_space.shape or ())
        if rows.shape == shape:
            return True, rows[None]
        if rows.ndim == len(shape) + 1 and rows.shape[1:] == shape and len(rows):
            return False, rows
        raise ConfigError(
            f"act: got observations of shape {list(rows.shape)}; {self.env} has {list(shape)}, or a batch of them: "
            f"{['B', *shape]}"
        )

    def _mask(self, mask: Any, count: int) -> torch.Tensor | None:
        if mask is None:
            return None
        sizes = choice_sizes(self._action_spec)
        rows = np.atleast_2d(np.asarray(mask))
        if not sizes or len(rows) != count:
            raise ConfigError(f"action_mask: got {list(rows.shape)}; expected [{count}, {sum(sizes)}]")
        for row in rows:
            if problem := mask_problem(row, sizes):
                raise ConfigError(f"action_mask: {problem}")
        return torch.from_numpy(np.stack([read_mask(row) for row in rows])).to(self._device)
