"""Trajectories in shared memory: what actors write is what the learner reads."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from pgx.core.data import Rollout
from pgx.core.specs import Continuous, Discrete
from pgx.rollouts.actors import concatenate, trajectory_specs, write_trajectory

T, N = 5, 2


def rollout(seed: int, masked: bool, state_size: int) -> Rollout:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(T + 1, N, 3, generator=generator)

    def coin() -> torch.Tensor:
        return torch.rand(T, N, generator=generator) < 0.5

    return Rollout(
        obs=obs[:-1],
        next_obs=obs[1:],
        action=torch.randint(4, (T, N), generator=generator),
        log_prob=torch.randn(T, N, generator=generator),
        reward=torch.randn(T, N, generator=generator),
        terminated=coin(),
        truncated=coin(),
        valid=coin(),
        time=torch.randint(9, (T, N), generator=generator),
        action_mask=torch.rand(T, N, 4, generator=generator) < 0.5 if masked else None,
        recurrent_state=torch.randn(T, N, state_size, generator=generator) if state_size else None,
    )


@pytest.mark.parametrize("state_size", [0, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_concatenated_trajectories_are_the_stored_rollouts(masked: bool, state_size: int) -> None:
    parts, stored = [rollout(seed, masked, state_size) for seed in range(3)], []
    for part in parts:
        columns = {
            c.name: torch.from_numpy(np.ones(c.shape, c.dtype))
            for c in trajectory_specs(T, N, Continuous((3,)), Discrete(4), state_size)
        }
        write_trajectory(part, columns)
        stored.append(columns)
    whole = concatenate(stored, torch.device("cpu"))
    for field in fields(Rollout):
        columns = [getattr(part, field.name) for part in parts]
        found = getattr(whole, field.name)
        assert found is columns[0] is None or torch.equal(found, torch.cat(columns, 1)), field.name


def test_actors_without_masks_allow_every_action() -> None:
    parts, stored = [rollout(0, True, 0), replace(rollout(1, False, 0))], []
    for part in parts:
        columns = {
            c.name: torch.from_numpy(np.zeros(c.shape, c.dtype))
            for c in trajectory_specs(T, N, Continuous((3,)), Discrete(4), 0)
        }
        write_trajectory(part, columns)
        stored.append(columns)
    mask = concatenate(stored, torch.device("cpu")).action_mask
    assert mask is not None and parts[0].action_mask is not None
    assert torch.equal(mask[:, :N], parts[0].action_mask) and bool(mask[:, N:].all())
