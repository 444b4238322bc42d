"""Environments in lanes: parts stepped each on their own, so that some move while others are given their actions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgx.envs.vector import Array, Step, VectorEnv
from pgx.types import ActionSpec, ObsSpec


class Lanes:
    """Several vector environments side by side, as one.

    Args:
        lanes: of one kind, in the order of their environments.
    """

    def __init__(self, lanes: Sequence[VectorEnv]) -> None:
        self.lanes = tuple(lanes)
        self.num_envs = sum(lane.num_envs for lane in lanes)

    @property
    def id(self) -> str:
        return self.lanes[0].id

    @property
    def backend(self) -> str:
        return self.lanes[0].backend

    @property
    def obs_spec(self) -> ObsSpec:
        return self.lanes[0].obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        return self.lanes[0].action_spec

    @property
    def action_mask(self) -> NDArray[np.bool_] | None:
        masks = [lane.action_mask for lane in self.lanes]
        some = next((mask for mask in masks if mask is not None), None)
        if some is None:
            return None
        everything = [np.ones((lane.num_envs, some.shape[1]), dtype=bool) for lane in self.lanes]
        return np.concatenate([e if m is None else m for e, m in zip(everything, masks, strict=True)])

    def reset(self, seed: int) -> Array:
        seeds = seed + np.cumsum([0, *(lane.num_envs for lane in self.lanes[:-1])])
        return np.concatenate([lane.reset(int(own)) for lane, own in zip(self.lanes, seeds, strict=True)])

    def send(self, action: Array) -> None:
        ends = np.cumsum([lane.num_envs for lane in self.lanes])[:-1]
        for lane, own in zip(self.lanes, np.split(action, ends), strict=True):
            lane.send(own)

    def receive(self) -> Step:
        steps = [lane.receive() for lane in self.lanes]
        return Step(*(np.concatenate(column) for column in zip(*steps, strict=True)))

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()
