"""Agents, actors and workers as plain values, from a checked config."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pgx.compiler import EngineChoice
from pgx.config.sections import Env
from pgx.core.rule import Algorithm
from pgx.envs.make import EnvsPlan, plan_envs
from pgx.envs.rewards.plan import RewardPlan
from pgx.networks.agents import AgentPlan
from pgx.rollouts.actor import ActorPlan
from pgx.rollouts.sizes import cores
from pgx.training.a3c_worker import A3CPlan


def agent_plan(values: Mapping[str, Any], env: Env) -> AgentPlan:
    return AgentPlan(
        values["policy"], values["critic"], env.normalize_obs, bound(env.obs_clip), values["seed"]
    )


def envs_plan(values: Mapping[str, Any], env: Env, sharers: int, threads: int) -> EnvsPlan:
    """The environments of one of so many who share a run's."""
    reward = RewardPlan(**values["reward"])
    each = env.num_envs // sharers
    return plan_envs(env.id, env.backend, each, env.kwargs, threads, env.worker_timeout, reward)


def actor_plan(values: Mapping[str, Any], env: Env, engine: EngineChoice, actors: int) -> ActorPlan:
    """What each of so many actors is made of; it has no critic."""
    threads = max(1, threads_of(env) // actors)
    envs = envs_plan(values, env, actors, threads)
    agent = replace(agent_plan(values, env), critic={"name": "none"})
    return ActorPlan(agent, envs, values["runner"]["rollout_steps"], values["seed"], engine)


def worker_plan(
    values: Mapping[str, Any],
    env: Env,
    algorithm: Algorithm,
    engine: EngineChoice,
    workers: int,
    rollout_steps: int,
) -> A3CPlan:
    """What each of so many workers of an A3C run is made of."""
    threads = max(1, threads_of(env) // workers)
    return A3CPlan(
        agent=agent_plan(values, env),
        envs=envs_plan(values, env, workers, threads),
        algorithm=algorithm,
        optimizer=values["optimizer"],
        critic_optimizer=values["critic_optimizer"],
        reward_clip=reward_clip(env),
        workers=workers,
        rollout_steps=rollout_steps,
        total_steps=values["trainer"]["total_steps"],
        log_every=values["logger"]["every"],
        clip_range=values["health"]["clip_range"],
        seed=values["seed"],
        engine=engine,
    )


def threads_of(env: Env, sharers: int = 1) -> int:
    """Of one process, where so many share the cores."""
    return env.num_threads or max(1, cores() // sharers)


def bound(clip: float | None) -> float:
    return float("inf") if clip is None else clip


def reward_clip(env: Env) -> float | None:
    """Return the bound on the scaled reward, infinite for none; None: rewards are not scaled."""
    return bound(env.reward_clip) if env.scale_reward else None
