"""Construction of a run's objects from its valid config, in the order in which they need each other."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from pgx.compiler import Eager, EngineChoice, choose_engine, discard_report, make_engine, print_report
from pgx.config.run_config import (
    A3CConfig,
    ActorLearnerConfig,
    DatasetConfig,
    EnvConfig,
    EpisodesConfig,
    RunConfig,
    SyncConfig,
)
from pgx.config.validate import check_inputs, check_ranks
from pgx.core.agent import Agent, State
from pgx.core.algorithm import Engine, Learner
from pgx.core.cpu import available_cores
from pgx.core.errors import UserError
from pgx.core.nonfinite import FailedUpdate
from pgx.core.periodic import PeriodicTrigger
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.seeding import derive, generator
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.core.streams import utf8
from pgx.envs.make import BackendChoice, EnvSpec, choose_backend, env_spec, make_envs, nan_kwargs_warnings
from pgx.envs.normalizers import RewardScaler
from pgx.envs.vector import VectorEnv
from pgx.networks.agents import AgentSpec
from pgx.networks.tabular import NoCritic
from pgx.rollouts.actor_learner import make_actor_learner
from pgx.rollouts.actors import ActorSpec
from pgx.rollouts.dataset import make_dataset_runner
from pgx.rollouts.sizes import resolve_workers
from pgx.rollouts.sources import Episode, Runner
from pgx.rollouts.sync import make_episode_runner, make_sync_runner
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers import Logger
from pgx.runs.writer import MemoryWriter, RunWriter, Writer, print_warning
from pgx.training.a3c import A3C, A3CSpec
from pgx.training.callbacks import Callback, Evaluate, PeriodicEvaluation, as_callback, configured_callbacks
from pgx.training.evaluation import PROGRESS_INTERVAL, play, print_progress
from pgx.training.logger_setup import import_sinks, open_console, open_loggers
from pgx.training.loop import SyncLoop, TrainingLoop
from pgx.training.nan_debug.search import find_first_nonfinite
from pgx.training.trainer import Trainer
from pgx.training.videos import check_rendering, periodic_video


def build(
    config: RunConfig,
    ranks: Ranks = SINGLE_PROCESS,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
) -> Trainer:
    """Build the Trainer that a config describes.

    Args:
        config: from `validate`.
        ranks: the processes that train it together; each takes its part of the environments.
        callbacks: in addition to those of the config.
        loggers: in addition to those of the config.

    Raises:
        UserError: the ranks cannot train this config, its data is missing, or the environment or the run's folder
            cannot be made.
    """
    check_inputs(config)
    check_ranks(config, ranks.size)
    import_sinks(config.logger.sinks)
    named_callbacks = configured_callbacks(config.callbacks)
    device = torch.device(config.device)
    if ranks.rank == 0:
        if config.run_dir is not None:
            _make_writable(Path(config.run_dir))
        check_rendering(config.env, config.trainer)
        for warning in nan_kwargs_warnings(config.env.kwargs):
            print_warning(warning)
    torch.set_num_threads(config.torch_threads)
    chosen = choose_engine(
        config.trainer.compile,
        config.trainer.total_steps,
        config.trainer.compile_min_steps,
        config.device,
        ranks.size,
    )
    engine = make_engine(
        chosen, config.device, discard_report if config.logger.console == "off" else print_report
    )

    # Actors and workers make environments themselves.
    elsewhere = isinstance(config.runner, ActorLearnerConfig | A3CConfig)
    num_envs = 1 if elsewhere else config.env.num_envs // ranks.size
    choice, envs = _environments(config, num_envs, threads_of(config.env, ranks.local_size))
    agent = agent_spec(config).make(envs.obs_spec, envs.action_spec, device)
    learner = _learner(config, agent, engine, ranks)
    scaler = _scaler(config, ranks)
    runner: Runner | A3C
    loop: TrainingLoop
    if isinstance(config.runner, A3CConfig):
        runner = loop = _a3c(config, config.runner, agent, learner, scaler, envs, chosen)
    else:
        source = _runner(config, config.runner, envs, scaler, device, engine, ranks, chosen)
        runner, loop = source, _sync_loop(config, agent, learner, source, ranks)
    writer = _writer(config, loggers)
    evaluation = PeriodicEvaluation(
        PeriodicTrigger(config.trainer.eval_every), _evaluator(config, agent, choice, device)
    )
    video = periodic_video(agent, config.env, config.trainer, config.seed, device, writer)
    return Trainer(
        agent=agent,
        algorithm=config.algo,
        learner=learner,
        runner=runner,
        loop=loop,
        ranks=ranks,
        writer=writer,
        total_steps=config.trainer.total_steps,
        checkpoint_every=config.trainer.checkpoint_every,
        backend_reason=choice.reason,
        engine=chosen,
        callbacks=[as_callback(evaluation), as_callback(video), *named_callbacks, *callbacks],
        diagnose=partial(_diagnose, config, (envs.obs_spec, envs.action_spec), device),
    )


def _make_writable(run_dir: Path) -> None:
    """Create the folder of the run, and check that it can be written before the run starts."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK):
            raise PermissionError(f"{run_dir} is not writable")
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot write there: {error.strerror or error}") from error


# --- agents and learners


def agent_spec(config: RunConfig) -> AgentSpec:
    """Return the specification of the run's agent."""
    return AgentSpec(
        policy=config.policy,
        critic=config.critic,
        normalize_obs=config.env.normalize_obs,
        obs_clip=_bound(config.env.obs_clip),
        seed=config.seed,
    )


def _learner(config: RunConfig, agent: Agent, engine: Engine, ranks: Ranks) -> Learner:
    return Learner(
        config.optimizer.make(agent.policy, engine, ranks),
        config.critic_optimizer.make(agent.critic, engine, ranks),
        engine,
        generator(config.seed, "minibatches"),
    )


def _scaler(config: RunConfig, ranks: Ranks) -> RewardScaler | None:
    clip = reward_clip(config.env)
    return None if clip is None else RewardScaler(config.algo.discount, clip, ranks)


def reward_clip(env: EnvConfig) -> float | None:
    """Return the bound on the scaled reward, infinite for none; None: rewards are not scaled."""
    return _bound(env.reward_clip) if env.scale_reward else None


def _bound(clip: float | None) -> float:
    return float("inf") if clip is None else clip


# --- environments


def threads_of(env: EnvConfig, processes: int = 1) -> int:
    """Return the threads of each process if several processes share the cores."""
    return env.num_threads or max(1, available_cores() // processes)


def _environments(config: RunConfig, num_envs: int, threads: int) -> tuple[BackendChoice, VectorEnv]:
    env = config.env
    choice = choose_backend(env.id, env.backend, env.kwargs, num_envs, threads, config.reward)
    envs = make_envs(choice, env.id, num_envs, env.kwargs, threads, env.worker_timeout, config.reward)
    return choice, envs


def _envs_spec(config: RunConfig, processes: int) -> EnvSpec:
    """Return the spec of the environments of one process of several."""
    env, each = config.env, config.env.num_envs // processes
    threads = max(1, threads_of(env) // processes)
    return env_spec(env.id, env.backend, each, env.kwargs, threads, env.worker_timeout, config.reward)


# --- sources of rollouts and loops


def _runner(
    config: RunConfig,
    runner: SyncConfig | EpisodesConfig | DatasetConfig | ActorLearnerConfig,
    envs: VectorEnv,
    scaler: RewardScaler | None,
    device: torch.device,
    engine: Engine,
    ranks: Ranks,
    chosen: EngineChoice,
) -> Runner:
    match runner:
        case SyncConfig():
            return make_sync_runner(
                envs, scaler, config.seed, device, engine, ranks, runner.rollout_steps, runner.lag
            )
        case EpisodesConfig():
            each, longest = runner.episodes_per_env, runner.max_episode_steps
            return make_episode_runner(envs, scaler, config.seed, device, engine, each, longest)
        case DatasetConfig():
            return make_dataset_runner(envs, scaler, config.seed, device, runner.path, runner.episodes)
        case ActorLearnerConfig():
            return make_actor_learner(
                envs=envs,
                reward_scaler=scaler,
                device=device,
                engine=engine,
                num_envs=config.env.num_envs,
                actor_spec=partial(_actor_spec, config, runner, chosen),
                rollout_steps=runner.rollout_steps,
                workers=runner.workers,
                trajectories=runner.trajectories,
                queue=runner.queue,
                inference=runner.inference,
                max_restarts=runner.max_restarts,
                backend=runner.backend,
                address=runner.address,
                connect_seconds=runner.connect_seconds,
            )


def _actor_spec(
    config: RunConfig, runner: ActorLearnerConfig, engine: EngineChoice, actors: int
) -> ActorSpec:
    """Return the spec of each actor, which has no critic."""
    agent = replace(agent_spec(config), critic=NoCritic())
    return ActorSpec(agent, _envs_spec(config, actors), runner.rollout_steps, config.seed, engine)


def a3c_spec(config: RunConfig, runner: A3CConfig, engine: EngineChoice) -> A3CSpec:
    """Return the specification of each worker of an A3C run."""
    workers = resolve_workers(config.env.num_envs, runner.workers, available_cores())
    return A3CSpec(
        agent=agent_spec(config),
        envs=_envs_spec(config, workers),
        algorithm=config.algo,
        optimizer=config.optimizer,
        critic_optimizer=config.critic_optimizer,
        reward_clip=reward_clip(config.env),
        workers=workers,
        rollout_steps=runner.rollout_steps,
        total_steps=config.trainer.total_steps,
        log_every=config.logger.every,
        clip_range=config.health.clip_range,
        seed=config.seed,
        engine=engine,
    )


def _a3c(
    config: RunConfig,
    runner: A3CConfig,
    agent: Agent,
    learner: Learner,
    scaler: RewardScaler | None,
    envs: VectorEnv,
    engine: EngineChoice,
) -> A3C:
    return A3C(
        agent=agent,
        learner=learner,
        reward_scaler=scaler,
        envs=envs,
        spec=a3c_spec(config, runner, engine),
        max_restarts=runner.max_restarts,
        warmup_steps=_warmup_steps(config),
        checkpoint_every=config.trainer.checkpoint_every,
    )


def _sync_loop(config: RunConfig, agent: Agent, learner: Learner, runner: Runner, ranks: Ranks) -> SyncLoop:
    return SyncLoop(
        agent,
        config.algo,
        learner,
        runner,
        total_steps=config.trainer.total_steps,
        log_every=config.logger.every,
        clip_range=config.health.clip_range,
        warmup_steps=_warmup_steps(config),
        reward_clip=reward_clip(config.env),
        on_nan=config.trainer.on_nan,
        ranks=ranks,
    )


def _warmup_steps(config: RunConfig) -> int:
    """Return the environment steps that warm up the normalizer: at most a tenth of the run."""
    return min(config.env.normalizer_warmup_steps, config.trainer.total_steps // 10)


# --- folder and loggers


def _writer(config: RunConfig, more_loggers: Sequence[Logger]) -> Writer:
    folder = None if config.run_dir is None else utf8(config.run_dir)
    text = OmegaConf.to_yaml(OmegaConf.create({**config.values, "run_dir": folder}))

    def console(steps: int | None) -> list[Logger]:
        return open_console(config.logger, steps, config.trainer.total_steps)

    if config.run_dir is None:

        def open_in_memory(steps: int | None, rows: int) -> Sequence[Logger]:
            return [*more_loggers, *console(steps)]

        return MemoryWriter(text, open_in_memory, print_warning)
    run_dir = Path(config.run_dir)

    def open_in_folder(steps: int | None, rows: int) -> Sequence[Logger]:
        return [*open_loggers(config, run_dir, steps, rows), *more_loggers, *console(steps)]

    checkpoints = Checkpoints(run_dir, config.trainer.keep_checkpoints)
    return RunWriter(
        run_dir, text, checkpoints, open_in_folder, config.trainer.disk_retry_seconds, print_warning
    )


# --- evaluation, diagnosis, and agents of finished runs


def _evaluator(config: RunConfig, agent: Agent, choice: BackendChoice, device: torch.device) -> Evaluate:
    """Return a function that plays deterministic episodes in new environments."""
    env, count, max_steps = config.env, config.trainer.eval_episodes, config.trainer.eval_max_steps
    warned = False  # of episodes that were cut

    def evaluate(iteration: int, should_stop: Callable[[], bool]) -> list[Episode]:
        nonlocal warned
        still = copy.deepcopy(agent)  # workers may change it meanwhile
        num_envs, threads = min(count, env.num_envs), threads_of(env)
        envs = make_envs(choice, env.id, num_envs, env.kwargs, threads, env.worker_timeout, config.reward)
        try:
            first = derive(config.seed, "evaluation", iteration)
            act = still.act_greedily
            on_step = print_progress("evaluation: ", count, PROGRESS_INTERVAL)
            played = play(still, act, envs, count, first, device, max_steps, should_stop, on_step)
        finally:
            envs.close()
        if should_stop():
            return []
        if (cut := sum(episode.cut for episode in played)) and not warned:
            warned = True
            print_warning(
                f"evaluation: {cut} of {count} episodes were cut at trainer.eval_max_steps={max_steps:,}"
            )
        return played

    return evaluate


def _diagnose(
    config: RunConfig, specs: tuple[ObsSpec, ActionSpec], device: torch.device, attempt: FailedUpdate
) -> str | None:
    """Return where in an update a number first becomes NaN or infinite, with an agent and a learner made for this."""
    agent = agent_spec(config).make(*specs, device)
    learner = _learner(config, agent, Eager(), SINGLE_PROCESS)
    return find_first_nonfinite(attempt, agent, config.algo, learner)


def load_agent(config: RunConfig, state: State, max_envs: int) -> tuple[Agent, VectorEnv]:
    """Return the agent of a checkpoint and at most `max_envs` environments of its kind.

    Args:
        config: of the run.
        state: of the checkpoint.
        max_envs: >= 1.
    """
    num_envs = min(max_envs, config.env.num_envs)
    _, envs = _environments(config, num_envs, threads_of(config.env))
    try:
        agent = load_agent_for(config, state, envs.obs_spec, envs.action_spec)
    except BaseException:
        envs.close()
        raise
    return agent, envs


def load_agent_for(config: RunConfig, state: State, obs: ObsSpec, action: ActionSpec) -> Agent:
    """Return the agent of a checkpoint, for environments with these specs."""
    torch.set_num_threads(config.torch_threads)
    agent = agent_spec(config).make(obs, action, torch.device(config.device))
    agent.load_state_dict(state["agent"])
    return agent
