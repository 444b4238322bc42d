"""The training loop in the open: environments, agent, learner and collector as objects, without a run folder.

    envs = pgx.create_envs("CartPole-v1", num_envs=8)
    agent = pgx.create_agent(envs, pgx.MLPPolicy(), pgx.MLPCritic(), seed=1)
    rule = pgx.PPO()
    learner = pgx.create_learner(agent, pgx.Adam(), pgx.Adam(), seed=1)
    with pgx.step_collector(envs, agent, rollout_steps=128, total_steps=50_000, seed=1) as collector:
        for rollout in collector:
            metrics = rule.update(agent, learner, rollout, collector.progress)

The collector warms up the observation normalizer and updates it after each rollout, as `pgx.train` does.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from pgx.api.arguments import (
    EnvArgument,
    Overrides,
    config_errors,
    listed_overrides,
    named_environment,
)
from pgx.api.run_folder import compose_valid
from pgx.compiler import Eager
from pgx.config.run_config import EnvConfig
from pgx.core.agent import Agent, CriticSpec, PolicySpec
from pgx.core.algorithm import Learner, OptimizerSpec
from pgx.core.data import Rollout
from pgx.core.ranks import SINGLE_PROCESS
from pgx.core.seeding import generator
from pgx.core.text import override
from pgx.envs.make import choose_backend, make_envs
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.networks.agents import AgentSpec
from pgx.ops.optim import NoOptimizer
from pgx.rollouts.sources import Episode, Runner
from pgx.rollouts.sync import make_episode_runner, make_sync_runner
from pgx.training.build import reward_clip, threads_of
from pgx.training.loop import RECENT_EPISODES

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Environments:
    """Vector environment and the section `env` of its config, with the settings of its normalizers."""

    vector: VectorEnv
    config: EnvConfig

    @property
    def num_envs(self) -> int:
        return self.vector.num_envs

    def close(self) -> None:
        self.vector.close()


def create_envs(env: EnvArgument, num_envs: int | None = None, overrides: Overrides = ()) -> Environments:
    """Create a vector environment with the values of configs/env.

    Args:
        env: id, function that makes an environment, or Gymnasium's EnvSpec.
        num_envs: N; None: `env.num_envs` of the config.
        overrides: of keys of the section env, as in `pgx.train`.

    Raises:
        ConfigError: the environment does not exist or cannot be created, or a value is wrong.
    """
    with config_errors():
        environment, keywords = named_environment(env)
        with environment as env_id:
            count = [] if num_envs is None else [override("env.num_envs", num_envs)]
            # A rule of single steps fits every number of environments.
            given = ["algo=actor_critic", override("env", env_id), *keywords, *count]
            config = compose_valid([*given, *listed_overrides(overrides), "run_dir=null"])
            section, threads = config.env, threads_of(config.env)
            choice = choose_backend(
                section.id, section.backend, section.kwargs, section.num_envs, threads, config.reward
            )
            vector = make_envs(
                choice,
                section.id,
                section.num_envs,
                section.kwargs,
                threads,
                section.worker_timeout,
                config.reward,
            )
            return Environments(vector, section)


def create_agent(envs: Environments, policy: PolicySpec, critic: CriticSpec, seed: int) -> Agent:
    """Create an untrained agent for environments.

    Args:
        envs: from `create_envs`; their config decides whether observations are normalized.
        policy: for example pgx.MLPPolicy().
        critic: for example pgx.MLPCritic(), or pgx.NoCritic().
        seed: of the initial weights.
    """
    clip = envs.config.obs_clip
    spec = AgentSpec(policy, critic, envs.config.normalize_obs, float("inf") if clip is None else clip, seed)
    return spec.make(envs.vector.obs_spec, envs.vector.action_spec, _CPU)


def create_learner(
    agent: Agent,
    optimizer: OptimizerSpec | None,
    critic_optimizer: OptimizerSpec | None,
    seed: int,
) -> Learner:
    """Create the learner of an agent: optimizers, and the random stream and state of its rule.

    Args:
        agent: to train.
        optimizer: of the policy, for example pgx.Adam(learning_rate=3e-4); None: the rule computes the step itself.
        critic_optimizer: of the critic; None: there is no critic.
        seed: of the minibatches.
    """
    engine = Eager()
    of_policy: OptimizerSpec = optimizer or NoOptimizer()
    of_critic: OptimizerSpec = critic_optimizer or NoOptimizer()
    return Learner(
        of_policy.make(agent.policy, engine, SINGLE_PROCESS),
        of_critic.make(agent.critic, engine, SINGLE_PROCESS),
        engine,
        generator(seed, "minibatches"),
    )


class Collector:
    """Iterator over rollouts, until the step budget is used.

    Before the first rollout, the observation normalizer is warmed up. Between two rollouts, it learns from the last
    one: the agent must have been updated by then. Use it as a context, which closes the environments.

    Args:
        agent: acts; a rule updates it between rollouts.
        runner: steps the environments.
        total_steps: step budget; the last rollout may exceed it.
        warmup_steps: environment steps that warm up the normalizer.
    """

    def __init__(self, agent: Agent, runner: Runner, total_steps: int, warmup_steps: int) -> None:
        self.agent = agent
        self.total_steps = total_steps
        self.steps = 0  # environment steps so far
        self.progress = 0.0  # part of the budget used before the current rollout, in [0, 1]; for schedules
        self.episodes: list[Episode] = []  # that ended in the current rollout
        self._runner = runner
        self._warmup_steps = warmup_steps
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)

    @property
    def recent_return(self) -> float:
        """Return the mean return of the last 20 episodes; NaN before the first ends."""
        return float(np.mean(self._recent)) if self._recent else float("nan")

    def __iter__(self) -> Iterator[Rollout]:
        """Yield rollouts, rows [T, N]."""
        self._runner.begin(0)
        if self._warmup_steps and self.agent.normalizer.count == 0:
            for rollout in self._runner.warm_up(self.agent, self._warmup_steps):
                self._count()
                self._observe(rollout)
        while self.steps < self.total_steps:
            self.progress = min(1.0, self.steps / self.total_steps)
            rollout = self._runner.collect(self.agent)
            self._count()
            yield rollout
            self._observe(rollout)

    def _count(self) -> None:
        self.steps += self._runner.steps
        self.episodes = list(self._runner.episodes)
        self._runner.episodes.clear()
        self._recent.extend(episode.episode_return for episode in self.episodes)

    def _observe(self, rollout: Rollout) -> None:
        self.agent.normalizer.merge(self.agent.normalizer.moments_of(rollout.obs[rollout.valid]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments."""
        self._runner.close()


def step_collector(
    envs: Environments, agent: Agent, rollout_steps: int, total_steps: int, seed: int
) -> Collector:
    """Return a collector of rollouts of `rollout_steps` steps of each environment.

    Args:
        envs: from `create_envs`.
        agent: acts.
        rollout_steps: T.
        total_steps: step budget.
        seed: of environments and actions.
    """
    runner = make_sync_runner(
        envs.vector, _scaler(envs), seed, _CPU, Eager(), SINGLE_PROCESS, rollout_steps, 0
    )
    return Collector(agent, runner, total_steps, _warmup(envs, total_steps))


def episode_collector(
    envs: Environments,
    agent: Agent,
    episodes_per_env: int,
    max_episode_steps: int,
    total_steps: int,
    seed: int,
) -> Collector:
    """Return a collector of rollouts of whole episodes.

    Args:
        envs: from `create_envs`.
        agent: acts.
        episodes_per_env: episodes of each environment in a rollout.
        max_episode_steps: steps after which an episode is truncated.
        total_steps: step budget.
        seed: of environments and actions.
    """
    runner: Any = make_episode_runner(
        envs.vector, _scaler(envs), seed, _CPU, Eager(), episodes_per_env, max_episode_steps
    )
    return Collector(agent, runner, total_steps, _warmup(envs, total_steps))


def _scaler(envs: Environments) -> RewardScaler | None:
    clip = reward_clip(envs.config)
    return None if clip is None else RewardScaler(envs.config.discount, clip, SINGLE_PROCESS)


def _warmup(envs: Environments, total_steps: int) -> int:
    """Return the environment steps that warm up the normalizer: at most a tenth of the budget."""
    return min(envs.config.normalizer_warmup_steps, total_steps // 10)
