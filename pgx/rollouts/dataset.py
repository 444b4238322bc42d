"""Episodes of a dataset in place of the agent's own: what another policy did, in shuffled passes."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from pgx.core.agent import Agent, Metrics, State
from pgx.core.data import Rollout
from pgx.core.errors import UserError
from pgx.core.schema import Count
from pgx.core.seeding import generator
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.rollouts.dataset_files import RecordedEpisode, join_episodes, read_dataset
from pgx.rollouts.sources import Episode


class DatasetRunner:
    """Gives out rollouts of so many whole episodes, each in a column of its own.

    A pass over the dataset gives every episode once; where one ends within a rollout, the next goes on.

    Args:
        envs: of the kind that was recorded; never stepped.
        reward_scaler: rescales the rewards of a rollout; None leaves them raw.
        trajectories: the dataset.
        episodes_per_rollout: N, episodes of a rollout; at most as many as there are.
        seed: of the run; the shuffles draw a stream of their own from it.
        device: where the networks are.
    """

    env_seconds = 0.0
    policy_seconds = 0.0
    steps_taken = 0

    def __init__(
        self,
        envs: VectorEnv,
        reward_scaler: RewardScaler | None,
        trajectories: list[RecordedEpisode],
        episodes_per_rollout: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.envs = envs
        self.reward_scaler = reward_scaler
        self.trajectories = trajectories
        self.episodes_per_rollout = episodes_per_rollout
        self.device = device
        self.episodes: list[Episode] = []  # always empty: the returns are of the policy that was recorded
        self.steps = 0
        self._shuffles = generator(seed, "dataset")
        self._order = torch.empty(0, dtype=torch.int64)  # what is left of the pass

    def __str__(self) -> str:
        return f"{self.episodes_per_rollout} of {len(self.trajectories)} recorded episodes"

    def begin(self, iteration: int) -> None:
        """Nothing is under way between rollouts."""

    def collect(self, agent: Agent) -> Rollout:
        """The next episodes of the pass; log_prob is of the policy that was recorded, whatever the agent."""
        if len(self._order) < self.episodes_per_rollout:
            again = torch.randperm(len(self.trajectories), generator=self._shuffles)
            self._order = torch.cat([self._order, again])
        chosen, self._order = self._order.tensor_split([self.episodes_per_rollout])
        rollout = self._joined(chosen.tolist())
        self.steps = rollout.steps
        return rollout

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """All recorded episodes once, in their order; takes no steps."""
        self.steps = 0
        numbers = list(range(len(self.trajectories)))
        for first in range(0, len(numbers), self.episodes_per_rollout):
            yield self._joined(numbers[first : first + self.episodes_per_rollout])

    def _joined(self, episodes: list[int]) -> Rollout:
        rollout = join_episodes([self.trajectories[i] for i in episodes])
        if self.reward_scaler is not None:
            self.reward_scaler.begin()
            rollout = replace(
                rollout, reward=self.reward_scaler.scale(rollout.reward, rollout.done, rollout.valid)
            )
        return _on(rollout, self.device)

    def metrics(self) -> Metrics:
        return {}

    def state_dict(self) -> State:
        return {
            "shuffles": self._shuffles.get_state(),
            "order": self._order,
            "reward_scaler": None if self.reward_scaler is None else self.reward_scaler.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self._shuffles.set_state(state["shuffles"])
        self._order = state["order"]
        if self.reward_scaler is not None:
            self.reward_scaler.load_state_dict(state["reward_scaler"])

    def close(self) -> None:
        self.envs.close()


def _on(rollout: Rollout, device: torch.device) -> Rollout:
    columns: dict[str, Tensor | None] = {c.name: getattr(rollout, c.name) for c in fields(rollout)}
    return Rollout(**{name: None if x is None else x.to(device) for name, x in columns.items()})  # type: ignore[arg-type]


def make_dataset_runner(
    envs: VectorEnv,
    reward_scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    path: str | None,
    episodes: Count,
) -> DatasetRunner:
    """A DatasetRunner on what is at a path.

    Args:
        path: of the dataset; a config without one is refused before this.
        episodes: of a rollout; the others as in DatasetRunner.

    Raises:
        UserError: it cannot be read, does not fit the environments, or has fewer episodes.
    """
    assert path is not None
    trajectories = read_dataset(Path(path), envs)
    if episodes > len(trajectories):
        raise UserError(
            f"runner.episodes: {episodes} in a rollout, of {len(trajectories)} in {path}; expected at most those"
        )
    return DatasetRunner(envs, reward_scaler, trajectories, episodes, seed, device)
