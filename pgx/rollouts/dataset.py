"""Runner that returns recorded episodes of another policy."""

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
    """Runner that returns rollouts of recorded whole episodes, one in each column.

    Each pass over the dataset returns every episode once, in shuffled order. A rollout in which a pass ends is filled
    from the next pass.

    Args:
        envs: environments like the recorded ones; they are not stepped.
        reward_scaler: divides the rewards of a rollout; None: rewards stay raw.
        recorded: the dataset.
        episodes_per_rollout: N, at most the number of recorded episodes.
        seed: seed of the run, from which the stream of shuffles is derived.
        device: device of the networks.
    """

    env_seconds = 0.0
    policy_seconds = 0.0
    steps_taken = 0

    def __init__(
        self,
        envs: VectorEnv,
        reward_scaler: RewardScaler | None,
        recorded: list[RecordedEpisode],
        episodes_per_rollout: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.envs = envs
        self.reward_scaler = reward_scaler
        self.recorded = recorded
        self.episodes_per_rollout = episodes_per_rollout
        self.device = device
        self.episodes: list[Episode] = []  # always empty: recorded returns are not the agent's
        self.steps = 0
        self._shuffles = generator(seed, "dataset")
        self._order = torch.empty(0, dtype=torch.int64)  # remaining episodes of the pass

    def __str__(self) -> str:
        return f"{self.episodes_per_rollout} of {len(self.recorded)} recorded episodes"

    def begin(self, iteration: int) -> None:
        """Do nothing, since rollouts consist of whole episodes."""

    def collect(self, agent: Agent) -> Rollout:
        """Return the next episodes of the pass. `log_prob` is that of the recorded policy; the agent is not used."""
        if len(self._order) < self.episodes_per_rollout:
            next_pass = torch.randperm(len(self.recorded), generator=self._shuffles)
            self._order = torch.cat([self._order, next_pass])
        chosen, self._order = self._order.tensor_split([self.episodes_per_rollout])
        rollout = self._rollout(chosen.tolist())
        self.steps = rollout.steps
        return rollout

    def warm_up(self, agent: Agent, steps: int) -> Iterator[Rollout]:
        """Yield all recorded episodes once, in order, without steps."""
        self.steps = 0
        indices = list(range(len(self.recorded)))
        for first in range(0, len(indices), self.episodes_per_rollout):
            yield self._rollout(indices[first : first + self.episodes_per_rollout])

    def _rollout(self, indices: list[int]) -> Rollout:
        rollout = join_episodes([self.recorded[i] for i in indices])
        if self.reward_scaler is not None:
            self.reward_scaler.begin()
            rollout = replace(
                rollout, reward=self.reward_scaler.scale(rollout.reward, rollout.done, rollout.valid)
            )
        return _to_device(rollout, self.device)

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


def _to_device(rollout: Rollout, device: torch.device) -> Rollout:
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
    """Return a DatasetRunner of the dataset at a path.

    Args:
        path: folder of the dataset; not None, which config checks ensure.
        episodes: number in a rollout. Other arguments as in `DatasetRunner`.

    Raises:
        UserError: the dataset cannot be read, does not fit the environments, or has fewer episodes.
    """
    assert path is not None
    recorded = read_dataset(Path(path), envs)
    if episodes > len(recorded):
        raise UserError(
            f"runner.episodes={episodes}: the dataset {path} has {len(recorded)} episodes; set at most {len(recorded)}"
        )
    return DatasetRunner(envs, reward_scaler, recorded, episodes, seed, device)
