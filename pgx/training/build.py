"""From a checked config to what writes a run's folder.

Agents, actors and workers as plain values, from a checked config.

What can be trained by several ranks together, and how many of them.

From a checked config to the objects of a run, in the order in which they need each other.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pgx.algos import rule, rules
from pgx.compiler import Eager, EngineChoice, aloud, choose_engine, make_engine, silently
from pgx.compiler.choose import why_not
from pgx.config.check import check, check_inputs, plain_values
from pgx.config.run_config import (
    NAMED,
    RUNNERS,
    A3CConfig,
    ActorLearnerConfig,
    DatasetConfig,
    EnvConfig,
    EpisodesConfig,
    HealthConfig,
    LoggerConfig,
    SyncConfig,
    Top,
    TrainerConfig,
    keys_of,
)
from pgx.core.agent import Agent
from pgx.core.algorithm import Algorithm, Engine, Learner, Optimizer
from pgx.core.errors import UserError
from pgx.core.nonfinite import Attempt
from pgx.core.ranks import SINGLE_PROCESS, Ranks
from pgx.core.schema import fits, signature
from pgx.core.seeding import derive, generator
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.core.streams import utf8
from pgx.envs.make import BackendChoice, EnvsPlan, choose_backend, make_envs, nan_keywords, plan_envs
from pgx.envs.normalizers import RewardScaler
from pgx.envs.rewards.plan import OWN, RewardPlan
from pgx.envs.vector import VectorEnv
from pgx.networks import WITH_MEMORY
from pgx.networks.agents import AgentPlan
from pgx.ops.optim import make_optimizer
from pgx.rollouts.actor import ActorPlan
from pgx.rollouts.actor_learner import actor_learner
from pgx.rollouts.dataset import dataset
from pgx.rollouts.episodes import episodes
from pgx.rollouts.sizes import cores, worker_count
from pgx.rollouts.sync import sync
from pgx.rollouts.types import Episode, Runner
from pgx.runs.checkpoints import Checkpoints
from pgx.runs.loggers import Sink
from pgx.runs.loggers.console import make_console
from pgx.runs.loggers.jsonl import METRICS, JsonLines
from pgx.runs.loggers.patient import RetryingLogger
from pgx.runs.loggers.tensorboard import Column, TensorBoard, Value
from pgx.runs.loggers.weights_and_biases import WeightsAndBiases
from pgx.runs.writer import Records, complain
from pgx.training.a3c import A3C, A3CPlan
from pgx.training.evaluation import INTERVAL, line_progress, play
from pgx.training.loop import Iterations, SyncLoop
from pgx.training.nan_debug.search import find_fault
from pgx.training.trainer import Evaluate, Trainer
from pgx.training.videos import filming, refuse_unfilmable


def make_records(
    values: Mapping[str, Any], logger: LoggerConfig, training: TrainerConfig, run_dir: Path, config: str
) -> Records:
    checkpoints = Checkpoints(run_dir, training.keep_checkpoints)
    open_sinks = partial(_open_sinks, logger, run_dir, values, training.total_steps)
    return Records(run_dir, config, checkpoints, open_sinks, training.write_patience, complain)


def _open_sinks(
    logger: LoggerConfig,
    run_dir: Path,
    values: Mapping[str, Any],
    total_steps: int,
    steps: int | None,
    rows: int,
) -> Sequence[Sink]:
    """Open the loggers of a run after `steps` environment steps (None: a new run) and `rows` rows of metrics."""
    sinks: list[Sink] = []
    if logger.wandb is not None:  # first: where it refuses to start, nothing else has been written
        sinks.append(WeightsAndBiases(logger.wandb, run_dir, _flat(values), complain))
    sinks.append(RetryingLogger(JsonLines(run_dir / METRICS, steps, rows), METRICS, complain))
    if logger.tensorboard:
        events = TensorBoard(run_dir, _flat(values), _keys(), keep_until=steps)
        sinks.append(RetryingLogger(events, "TensorBoard's events", complain))
    console = make_console(logger.console, logger.console_interval, steps or 0, total_steps)
    return [*sinks, console] if console else sinks


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Value | None]:
    """Return nested values by dotted key; a list as text."""
    flat: dict[str, Value | None] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | None) else str(value)
    return flat


def _keys() -> dict[str, Column]:
    """Return the keys of every rule and every named choice, with what their values are."""
    hints = {f"algo.{key}": hint for name in rules() for key, hint in signature(rule(name)).items()}
    for section, (registry, _) in NAMED.items():
        hints |= {
            f"{section}.{key}": hint for name in registry for key, hint in keys_of(section, name).items()
        }
    return {key: "number" if fits(1, hint) or fits(0.5, hint) else "text" for key, hint in hints.items()}


def agent_plan(values: Mapping[str, Any], env: EnvConfig) -> AgentPlan:
    return AgentPlan(
        values["policy"], values["critic"], env.normalize_obs, bound(env.obs_clip), values["seed"]
    )


def envs_plan(values: Mapping[str, Any], env: EnvConfig, sharers: int, threads: int) -> EnvsPlan:
    """The environments of one of so many who share a run's."""
    reward = RewardPlan(**values["reward"])
    each = env.num_envs // sharers
    return plan_envs(env.id, env.backend, each, env.kwargs, threads, env.worker_timeout, reward)


def actor_plan(values: Mapping[str, Any], env: EnvConfig, engine: EngineChoice, actors: int) -> ActorPlan:
    """What each of so many actors is made of; it has no critic."""
    threads = max(1, threads_of(env) // actors)
    envs = envs_plan(values, env, actors, threads)
    agent = replace(agent_plan(values, env), critic={"name": "none"})
    return ActorPlan(agent, envs, values["runner"]["rollout_steps"], values["seed"], engine)


def worker_plan(
    values: Mapping[str, Any],
    env: EnvConfig,
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


def threads_of(env: EnvConfig, sharers: int = 1) -> int:
    """Of one process, where so many share the cores."""
    return env.num_threads or max(1, cores() // sharers)


def bound(clip: float | None) -> float:
    return float("inf") if clip is None else clip


def reward_clip(env: EnvConfig) -> float | None:
    """Return the bound on the scaled reward, infinite for none; None: rewards are not scaled."""
    return bound(env.reward_clip) if env.scale_reward else None


def check_ranks(cfg: DictConfig, size: int) -> None:
    """Refuse a config, in itself sound, that so many ranks cannot train together.

    Raises:
        UserError: naming every reason.
    """
    if size > 1 and (found := rank_problems(plain_values(cfg), size)):
        raise UserError(*found)


def rank_problems(values: Mapping[str, Any], size: int) -> list[str]:
    """Every reason, in words; empty when there is none.

    Args:
        values: of a config that is sound in itself.
        size: ranks, > 1.
    """
    num_envs, runner, policy = values["env"]["num_envs"], values["runner"], values["policy"]["name"]
    found = []
    if num_envs % size:
        below = num_envs - num_envs % size
        nearest = f"{below} or {below + size}" if below else f"{size}"
        found.append(
            f"env.num_envs={num_envs}: {size} ranks share the environments out, {num_envs} / {size} = "
            f"{num_envs / size:.4g} each; expected a multiple of {size}: {nearest}"
        )
    name = values["algo"]["name"]
    algorithm = rule(name)(**{key: value for key, value in values["algo"].items() if key != "name"})
    if "ranks" not in algorithm.uses:
        found.append(
            f"algo={name}: as configured, it takes the rows of one rank for all there are; {', '.join(_able())} "
            "average over ranks"
        )
    if runner["name"] != "sync":
        found.append(
            f"runner={runner['name']}: ranks step their environments together, in rollouts of one length; runner=sync"
        )
    elif runner["lag"] > 0:
        found.append(
            f"runner.lag={runner['lag']}: a checkpoint holds the rollouts that wait, and rank 0 has its own alone; "
            "runner.lag=0"
        )
    if policy in WITH_MEMORY:
        found.append(
            f"policy={policy}: minibatches over ranks are dealt out by rows, and a policy with memory needs whole "
            "stretches; a policy without memory"
        )
    if values["trainer"]["compile"] is True:
        found.append(f"trainer.compile=true: {why_not('cpu', size)}; trainer.compile=auto runs without")
    return found


def _able() -> list[str]:
    """Rules that average over ranks, however they are configured."""
    uses = {name: rule(name).uses for name in rules()}
    return [name for name, own in uses.items() if isinstance(own, frozenset) and "ranks" in own]


def build(cfg: DictConfig, ranks: Ranks = SINGLE_PROCESS) -> Trainer:
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
    env, training = EnvConfig(**values["env"]), TrainerConfig(**values["trainer"])
    logger = LoggerConfig(**values["logger"])
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
    num_envs = 1 if isinstance(section, ActorLearnerConfig | A3CConfig) else env.num_envs // ranks.size
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
    if isinstance(section, A3CConfig):
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
    section: SyncConfig | EpisodesConfig | DatasetConfig | ActorLearnerConfig,
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
        case SyncConfig():
            return sync(envs, scaler, seed, device, engine, ranks, section.rollout_steps, section.lag)
        case EpisodesConfig():
            each, longest = section.episodes_per_env, section.max_episode_steps
            return episodes(envs, scaler, seed, device, engine, each, longest)
        case DatasetConfig():
            return dataset(envs, scaler, seed, device, section.path, section.episodes)
        case ActorLearnerConfig():
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
    env, device = EnvConfig(**values["env"]), values["device"]
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
    agent = agent_plan(values, EnvConfig(**values["env"])).make(obs, action, torch.device(values["device"]))
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


def _warmup_steps(env: EnvConfig, training: TrainerConfig) -> int:
    """Environment steps for the statistics, of which a short run takes fewer, so that it learns all the same."""
    return min(env.normalizer_warmup_steps, training.total_steps // 10)


def _synchronous(
    values: Mapping[str, Any],
    env: EnvConfig,
    agent: Agent,
    algorithm: Algorithm,
    learner: Learner,
    runner: Runner,
    ranks: Ranks,
) -> SyncLoop:
    training = TrainerConfig(**values["trainer"])
    return SyncLoop(
        agent,
        algorithm,
        learner,
        runner,
        total_steps=training.total_steps,
        log_every=values["logger"]["every"],
        clip_range=HealthConfig(**values["health"]).clip_range,
        warmup_steps=_warmup_steps(env, training),
        reward_clip=reward_clip(env),
        on_nan=training.on_nan,
        ranks=ranks,
    )


def _scaler(env: EnvConfig, discount: float, ranks: Ranks) -> RewardScaler | None:
    clip = reward_clip(env)
    return None if clip is None else RewardScaler(discount, clip, ranks)


def _optimizer(
    values: Mapping[str, Any], section: str, network: Any, engine: Engine, ranks: Ranks
) -> Optimizer:
    return make_optimizer(NAMED[section][0], values[section], network, engine, ranks)


def _evaluator(
    agent: Agent,
    env: EnvConfig,
    reward: RewardPlan,
    choice: BackendChoice,
    training: TrainerConfig,
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
    env: EnvConfig,
    algorithm: Algorithm,
    specs: tuple[ObsSpec, ActionSpec],
    device: torch.device,
    attempt: Attempt,
) -> str | None:
    """Where in an update a number first ceases to be finite, with an agent and a learner made for this alone."""
    agent = agent_plan(values, env).make(*specs, device)
    learner = _learner(values, agent, Eager(), SINGLE_PROCESS)
    return find_fault(attempt, agent, algorithm, learner)


def _but(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != key}
