"""Lock-step collection: all environments take a step, the policy answers, T times."""

from collections import deque
from collections.abc import Iterator
from dataclasses import fields

import torch

from pgx.core.agent import Agent, Metrics, State
from pgx.core.algorithm import Engine
from pgx.core.data import Rollout
from pgx.core.ranks import Ranks
from pgx.core.schema import Count, Index
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.collector import RolloutCollector
from pgx.rollouts.sources import Episode


class SyncRunner:
    """Collects rollouts of `rollout_steps` steps from each environment, going on where the last one stopped.

    Args:
        stepper: of the environments.
        rollout_steps: T.
        lag: how many updates old the policy is that acted in the rollout given out; 0 is on-policy. The rollouts in
            between wait their turn.
    """

    def __init__(self, collector: RolloutCollector, rollout_steps: int, lag: int) -> None:
        self.collector = collector
        self.rollout_steps = rollout_steps
        self.lag = lag
        self.steps = 0
        self._waiting: deque[Rollout] = deque()

    def __str__(self) -> str:
        behind = f", {self.lag} updates behind" if self.lag else ""
        size = self.collector.ranks.size
        shared = f" on {size} ranks" if size > 1 else ""
        return f"{size * self.envs.num_envs} environments x {self.rollout_steps} steps{shared}{behind}"

    @property
    def envs(self) -> VectorEnv:
        return self.collector.envs

    @property
    def episodes(self) -> list[Episode]:
        return self.collector.episodes

    @property
    def env_seconds(self) -> float:
        return self.collector.env_seconds

    @property
    def policy_seconds(self) -> float:
        return self.collector.policy_seconds

    @property
    def taken(self) -> int:
        return self.collector.taken

    def begin(self, iteration: int) -> None:
        self.collector.begin(iteration)

    def collect(self, agent: Agent) -> Rollout:
        """T steps of all environments, under the policy of `lag` updates ago.

        A rollout in which every environment only reset itself (T = 1) holds no data, and the next is collected.
        """
        if not self.collector.started:
            self.begin(iteration=0)
        self.collector.taken = 0
        while len(self._waiting) <= self.lag:
            rollout = self.collector.collect(agent, self.rollout_steps)
            if rollout.rows_of_all_ranks:
                self._waiting.append(rollout)
        return self._count(self._waiting.popleft())

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """One rollout, after which the environments go on."""
        if not self.collector.started:
            self.begin(iteration=0)
        self.collector.taken = 0
        yield self._count(self.collector.collect(agent, self.collector.steps_each(steps)))

    def _count(self, rollout: Rollout) -> Rollout:
        self.steps = rollout.steps
        return rollout

    def metrics(self) -> Metrics:
        return {}

    def state_dict(self) -> State:
        columns = [column.name for column in fields(Rollout)]
        waiting = [{name: getattr(rollout, name) for name in columns} for rollout in self._waiting]
        return self.collector.state_dict() | {"waiting": waiting}

    def load_state_dict(self, state: State) -> None:
        self.collector.load_state_dict(state)
        self._waiting = deque(Rollout.from_columns(columns) for columns in state["waiting"])

    def close(self) -> None:
        self.envs.close()


def sync(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    engine: Engine,
    ranks: Ranks,
    rollout_steps: Count,
    lag: Index,
) -> SyncRunner:
    """A SyncRunner with a Stepper of its own. Args as in both."""
    return SyncRunner(
        RolloutCollector(envs, reward_scaler, seed, 0, device, engine, ranks), rollout_steps, lag
    )
