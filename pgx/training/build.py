"""From a checked config to the objects of a run, in the order in which they need each other."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pgx.algos import rule
from pgx.compiler import Eager, aloud, choose_engine, make_engine, silently
from pgx.config.check import check, check_inputs, plain_values
from pgx.config.choices import NAMED
from pgx.config.sections import (
    RUNNERS,
    A3CRunner,
    ActorLearnerRunner,
    DatasetRunner,
    Env,
    EpisodesRunner,
    Health,
    Logger,
    SyncRunner,
    Top,
    TrainerSection,
)
from pgx.core.agent import Agent
from pgx.core.engine import Engine
from pgx.core.errors import UserError
from pgx.core.nonfinite import Attempt
from pgx.core.ranks import ALONE, Ranks
from pgx.core.rule import Algorithm, Learner, Optimizer
from pgx.core.seeding import derive, generator
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.core.streams import utf8
from pgx.envs.make import BackendChoice, choose_backend, make_envs, nan_keywords
from pgx.envs.normalizers import RewardScaler
from pgx.envs.rewards.plan import OWN, RewardPlan
from pgx.envs.vector import VectorEnv
from pgx.ops.optim import make_optimizer
from pgx.rollouts.actor import ActorPlan
from pgx.rollouts.actor_learner import actor_learner
from pgx.rollouts.dataset import dataset
from pgx.rollouts.episodes import episodes
from pgx.rollouts.sizes import cores, worker_count
from pgx.rollouts.sync import sync
from pgx.rollouts.types import Episode, Runner
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.writer import complain
from pgx.training.a3c import A3C
from pgx.training.evaluation import play
from pgx.training.loop import Iterations, Synchronous
from pgx.training.nan_debug.search import find_fault
from pgx.training.outputs import make_records
from pgx.training.plans import actor_plan, agent_plan, reward_clip, threads_of, worker_plan
from pgx.training.progress import INTERVAL, line_progress
from pgx.training.rank_checks import check_ranks
from pgx.training.trainer import Evaluate, Trainer
from pgx.training.videos import filming, refuse_unfilmable


def build(cfg: DictConfig, ranks: Ranks = ALONE) -> Trainer:
    """The Trainer that a config describes.

    Args:
        cfg: from `compose`, or read back from a run's config.yaml.
        ranks: who train it together; each is given its share of the environments.

    Raises:
        UserError: the config has problems (all of them, before any environment exists), or the environment or
            the run's folder cannot be made.
    """
    check(cfg)
    check_inputs(cfg)
    check_ranks(cfg, ranks.size)
    values = plain_values(cfg)
    text = OmegaConf.to_yaml(OmegaConf.create(values | {"run_dir": utf8(values["run_dir"])}))
    top = Top(**{key: value for key, value in values.items() if not isinstance(value, dict)})
    env, training = Env(**values["env"]), TrainerSection(**values["trainer"])
    logger = Logger(**values["logger"])
    device, run_dir = torch.device(top.device), Path(top.run_dir)
    if ranks.rank == 0:
        _make_writable(run_dir)
        refuse_unfilmable(env, training)
        for warning in nan_keywords(env.kwargs):
            complain(warning)
    use_threads(cfg)
    chosen = choose_engine(
        training.compile, training.total_steps, training.compile_min_steps, top.device, ranks.size
    )
    engine = make_engine(chosen, top.device, silently if logger.console == "off" else aloud)

    section = _runner_section(values["runner"])
    # Actors and workers have environments of their own.
    num_envs = 1 if isinstance(section, ActorLearnerRunner | A3CRunner) else env.num_envs // ranks.size
    threads = threads_of(env, ranks.local_size)
    reward = RewardPlan(**values["reward"])
    choice = choose_backend(env.id, env.backend, env.kwargs, num_envs, threads, reward)
    envs = make_envs(choice, env.id, num_envs, env.kwargs, threads, env.worker_timeout, reward)
    agent = agent_plan(values, env).make(envs.obs_spec, envs.action_spec, device)
    algorithm: Algorithm = rule(values["algo"]["name"])(**_but(values["algo"], "name"))
    learner = _learner(values, agent, engine, ranks)
    scaler = _scaler(env, algorithm.discount, ranks)
    runner: Runner | A3C
    iterations: Iterations
    if isinstance(section, A3CRunner):
        workers = worker_count(env.num_envs, section.workers, cores())
        runner = iterations = A3C(
            agent=agent,
            learner=learner,
            reward_scaler=scaler,
            envs=envs,
            plan=worker_plan(values, env, algorithm, chosen, workers, section.rollout_steps),
            max_restarts=section.max_restarts,
            warmup_steps=_warmup_steps(env, training),
            checkpoint_every=training.checkpoint_every,
        )
    else:
        plan = partial(actor_plan, values, env, chosen)
        source = _runner(section, envs, scaler, top.seed, device, engine, ranks, env.num_envs, plan)
        runner, iterations = source, _synchronous(values, env, agent, algorithm, learner, source, ranks)
    return Trainer(
        agent=agent,
        algorithm=algorithm,
        learner=learner,
        runner=runner,
        iterations=iterations,
        ranks=ranks,
        records=make_records(values, logger, training, run_dir, text),
        total_steps=training.total_steps,
        checkpoint_every=training.checkpoint_every,
        backend_reason=choice.reason,
        engine=chosen,
        eval_every=training.eval_every,
        evaluate=_evaluator(agent, env, reward, choice, training, top.seed, device),
        filming=filming(agent, env, training, top.seed, device),
        diagnose=partial(_diagnose, values, env, algorithm, (envs.obs_spec, envs.action_spec), device),
    )


def _runner_section(values: Mapping[str, Any]) -> Any:
    """Return the runner's section as an instance of its dataclass."""
    return RUNNERS[values["name"]](**_but(values, "name"))


def _runner(
    section: SyncRunner | EpisodesRunner | DatasetRunner | ActorLearnerRunner,
    envs: VectorEnv,
    scaler: RewardScaler | None,
    seed: int,
    device: torch.device,
    engine: Engine,
    ranks: Ranks,
    num_envs: int,
    plan: Callable[[int], ActorPlan],
) -> Runner:
    match section:
        case SyncRunner():
            return sync(envs, scaler, seed, device, engine, ranks, section.rollout_steps, section.lag)
        case EpisodesRunner():
            each, longest = section.episodes_per_env, section.max_episode_steps
            return episodes(envs, scaler, seed, device, engine, each, longest)
        case DatasetRunner():
            return dataset(envs, scaler, seed, device, section.path, section.episodes)
        case ActorLearnerRunner():
            return actor_learner(
                envs=envs,
                reward_scaler=scaler,
                device=device,
                engine=engine,
                num_envs=num_envs,
                actor_plan=plan,
                rollout_steps=section.rollout_steps,
                workers=section.workers,
                trajectories=section.trajectories,
                queue=section.queue,
                inference=section.inference,
                max_restarts=section.max_restarts,
                backend=section.backend,
                address=section.address,
                connect_seconds=section.connect_seconds,
            )


def use_threads(cfg: DictConfig) -> None:
    """Give torch the threads of a run's config. Whatever makes an agent calls this: `build` and `load_agent_for`."""
    torch.set_num_threads(cfg.torch_threads)


def load_agent(
    cfg: DictConfig, run_dir: Path, checkpoint: str, max_envs: int
) -> tuple[Agent, VectorEnv, str]:
    """The agent of a checkpoint, with environments of its kind, max_envs at most, and its device.

    Raises:
        UserError: no such checkpoint, or the config does not hold here.
    """
    Checkpoints(run_dir).path(checkpoint)  # before environments are made in vain
    check(cfg)
    values = plain_values(cfg)
    env, device = Env(**values["env"]), values["device"]
    num_envs = min(max_envs, env.num_envs)
    threads, reward = threads_of(env), RewardPlan(**values["reward"])
    choice = choose_backend(env.id, env.backend, env.kwargs, num_envs, threads, reward)
    envs = make_envs(choice, env.id, num_envs, env.kwargs, threads, env.worker_timeout, reward)
    try:
        agent = load_agent_for(cfg, run_dir, checkpoint, envs.obs_spec, envs.action_spec)
    except UserError:
        envs.close()
        raise
    return agent, envs, device


def unshaped(cfg: DictConfig) -> DictConfig:
    """A copy of a run's config with the environment's own reward, for those who want no other of it."""
    changed = cfg.copy()
    changed.reward = asdict(OWN)
    return changed


def load_agent_for(
    cfg: DictConfig, run_dir: Path, checkpoint: str, obs: ObsSpec, action: ActionSpec
) -> Agent:
    """The agent of a checkpoint, for environments that are already there.

    Raises:
        UserError: no such checkpoint, or it cannot be used.
    """
    use_threads(cfg)
    state = Checkpoints(run_dir).load(checkpoint)
    values = plain_values(cfg)
    agent = agent_plan(values, Env(**values["env"])).make(obs, action, torch.device(values["device"]))
    agent.load_state_dict(state["agent"])
    return agent


def _make_writable(run_dir: Path) -> None:
    """The run's folder, made now, so that a run does not find out after an hour that it cannot be written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK):
            raise PermissionError(f"{run_dir} is not writable")
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot write there: {error.strerror or error}") from error


def _learner(values: Mapping[str, Any], agent: Agent, engine: Engine, ranks: Ranks) -> Learner:
    return Learner(
        _optimizer(values, "optimizer", agent.policy, engine, ranks),
        _optimizer(values, "critic_optimizer", agent.critic, engine, ranks),
        engine,
        generator(values["seed"], "minibatches"),
    )


def _warmup_steps(env: Env, training: TrainerSection) -> int:
    """Environment steps for the statistics, of which a short run takes fewer, so that it learns all the same."""
    return min(env.normalizer_warmup_steps, training.total_steps // 10)


def _synchronous(
    values: Mapping[str, Any],
    env: Env,
    agent: Agent,
    algorithm: Algorithm,
    learner: Learner,
    runner: Runner,
    ranks: Ranks,
) -> Synchronous:
    training = TrainerSection(**values["trainer"])
    return Synchronous(
        agent,
        algorithm,
        learner,
        runner,
        total_steps=training.total_steps,
        log_every=values["logger"]["every"],
        clip_range=Health(**values["health"]).clip_range,
        warmup_steps=_warmup_steps(env, training),
        reward_clip=reward_clip(env),
        on_nan=training.on_nan,
        ranks=ranks,
    )


def _scaler(env: Env, discount: float, ranks: Ranks) -> RewardScaler | None:
    clip = reward_clip(env)
    return None if clip is None else RewardScaler(discount, clip, ranks)


def _optimizer(
    values: Mapping[str, Any], section: str, network: Any, engine: Engine, ranks: Ranks
) -> Optimizer:
    return make_optimizer(NAMED[section][0], values[section], network, engine, ranks)


def _evaluator(
    agent: Agent,
    env: Env,
    reward: RewardPlan,
    choice: BackendChoice,
    training: TrainerSection,
    seed: int,
    device: torch.device,
) -> Evaluate:
    """Return what plays deterministic episodes in environments of their own, made anew for each evaluation."""
    episodes, max_steps = training.eval_episodes, training.eval_max_steps
    told = False  # of episodes that were cut

    def evaluate(iteration: int, should_stop: Callable[[], bool]) -> list[Episode]:
        nonlocal told
        still = copy.deepcopy(agent)  # workers may change it meanwhile
        num_envs, threads = min(episodes, env.num_envs), threads_of(env)
        envs = make_envs(choice, env.id, num_envs, env.kwargs, threads, env.worker_timeout, reward)
        try:
            first = derive(seed, "evaluation", iteration)
            act = still.act_greedily
            on_step = line_progress("evaluation: ", episodes, INTERVAL)
            played = play(still, act, envs, episodes, first, device, max_steps, should_stop, on_step)
        finally:
            envs.close()
        if should_stop():
            return []
        if (cut := sum(episode.cut for episode in played)) and not told:
            told = True
            complain(
                f"evaluation: {cut} of {episodes} episodes were cut at trainer.eval_max_steps={max_steps:,}"
            )
        return played

    return evaluate


def _diagnose(
    values: Mapping[str, Any],
    env: Env,
    algorithm: Algorithm,
    specs: tuple[ObsSpec, ActionSpec],
    device: torch.device,
    attempt: Attempt,
) -> str | None:
    """Where in an update a number first ceases to be finite, with an agent and a learner made for this alone."""
    agent = agent_plan(values, env).make(*specs, device)
    learner = _learner(values, agent, Eager(), ALONE)
    return find_fault(attempt, agent, algorithm, learner)


def _but(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != key}
