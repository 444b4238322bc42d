"""Typed config of a run: the dataclass of each section, and the registries of sections with a `name`."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pgx.algos import rule
from pgx.compiler import Compile
from pgx.core.agent import CriticSpec, PolicySpec
from pgx.core.algorithm import Algorithm, OptimizerSpec
from pgx.core.schema import Count, Fraction, Index, NonNegative, Positive, parameter_types
from pgx.envs.make import Backend
from pgx.envs.rewards.spec import RewardSpec
from pgx.networks import CRITICS, POLICIES
from pgx.ops.optim import CRITIC_OPTIMIZERS, OPTIMIZERS, NoOptimizer
from pgx.rollouts.sizes import Auto

OnNaN = Literal["stop", "skip_update"]
ConsoleStyle = Literal["auto", "live", "plain", "off"]


@dataclass(frozen=True)
class TopLevelConfig:
    seed: Index
    device: Literal["cpu", "cuda"]
    torch_threads: Count
    label: str  # name of the run, in the path of its folder and on the console
    run_dir: str | None  # null: the run stays in memory, for Python's pgx.train alone
    dataset: str | None  # folder of recorded episodes; null: none
    callbacks: list[str | dict[str, Any]]  # code of the user that a run calls


@dataclass(frozen=True)
class EnvConfig:
    id: str
    num_envs: Count
    num_threads: Count | None  # threads of EnvPool, or worker processes; null: one per core
    backend: Backend
    worker_timeout: Positive  # seconds within which worker processes must answer
    kwargs: dict[str, Any]  # keyword arguments of the environment
    discount: Fraction  # default of algo.discount
    normalize_obs: bool  # by running mean and variance; integer observations are not normalized
    normalizer_warmup_steps: Index  # environment steps before the first update; 0: none
    obs_clip: Positive | None  # bound on each normalized component; null: none
    scale_reward: bool  # by the standard deviation of the running discounted return
    reward_clip: Positive | None  # bound on each scaled reward; null: none


@dataclass(frozen=True)
class TrainerConfig:
    total_steps: Count  # environment steps
    checkpoint_every: Count | None  # environment steps; null: only at the end
    keep_checkpoints: Count | None  # newest ones kept in addition to `last` and `best`; null: all
    on_nan: OnNaN  # reaction to an update that makes parameters NaN or infinite
    disk_retry_seconds: NonNegative  # seconds for which the end of a run retries failed writes
    eval_every: Count | None  # environment steps; null: never
    eval_episodes: Count
    eval_max_steps: Count  # environment steps after which an evaluated, recorded or collected episode is cut
    record_every: Count | None  # environment steps; null: never
    record_seconds: Positive  # length of a video, in real time
    record_width: Count  # maximum width in pixels
    compile: Compile  # whether to compile policies, critics and optimizers
    compile_min_steps: Index  # environment steps; compile=auto does not compile shorter runs


@dataclass(frozen=True)
class HealthConfig:
    clip_range: Positive  # clip_fraction counts ratios outside of 1 +- clip_range


@dataclass(frozen=True)
class LoggerConfig:
    every: Count  # iterations between measurements
    sinks: list[str | dict[str, Any]]  # where metrics go besides metrics.jsonl and the console
    project: str  # at Weights & Biases; experiment in MLflow
    console: ConsoleStyle
    console_interval: Positive  # seconds between lines of the plain console


@dataclass(frozen=True)
class SearchConfig:
    """Hyperparameter search (`sweep=NAME`). Each trial is one run."""

    overrides: list[str]  # of every trial; the command line takes precedence
    # Values of each key in Hydra's grammar, e.g. tag(log, interval(1e-5, 1e-2)).
    space: dict[str, str]
    trials: Count  # runs
    seed: Index  # of the sampler; the runs have their own seeds
    objective: Literal["final_return", "best_return"]  # key of summary.json, maximized
    pruner: Literal["median", "halving", "none"]  # stops trials that are worse than others at the same step
    report_every: Count  # environment steps between reports to the pruner
    startup_trials: Index  # trials with random values at the start; pruner=median prunes none of them
    warmup_steps: Index  # environment steps before which no trial is pruned


@dataclass(frozen=True)
class SyncConfig:
    """Environments that step together in this process."""

    rollout_steps: Count  # T, per environment
    lag: Index  # age in updates of the policy that acts


@dataclass(frozen=True)
class EpisodesConfig:
    """Rollouts of whole episodes."""

    episodes_per_env: Count  # of each environment, in a rollout
    max_episode_steps: Count  # environment steps after which an episode is truncated


@dataclass(frozen=True)
class DatasetConfig:
    """Recorded episodes of another policy."""

    path: str | None  # of the dataset; null is refused
    episodes: Count  # in a rollout


@dataclass(frozen=True)
class ActorLearnerConfig:
    """Actors that step environments in other processes, and a learner that uses their trajectories."""

    rollout_steps: Count  # T, length of a trajectory, per environment
    workers: Count | Auto  # actors
    trajectories: Count | Auto  # in an update
    queue: Count | Auto  # maximum number of started, unused trajectories
    inference: Literal["actor", "learner"]  # process that computes actions
    max_restarts: Index  # restarts of crashed actors over the run
    backend: Literal["local", "ray"]  # where actors run
    address: str | None  # of a Ray cluster, host:port or auto; null: start one on this machine
    connect_seconds: Positive  # seconds to wait for the cluster and for free cores


@dataclass(frozen=True)
class A3CConfig:
    """Workers that update shared parameters without locks."""

    rollout_steps: Count  # t_max, per environment
    workers: Count | Auto  # processes
    max_restarts: Index  # restarts of crashed workers over the run


RunnerConfig = SyncConfig | EpisodesConfig | DatasetConfig | ActorLearnerConfig | A3CConfig

RUNNERS: dict[str, type[Any]] = {
    "a3c": A3CConfig,
    "actor_learner": ActorLearnerConfig,
    "dataset": DatasetConfig,
    "episodes": EpisodesConfig,
    "sync": SyncConfig,
}

FIXED_SECTIONS: dict[str, type[Any]] = {
    "env": EnvConfig,
    "reward": RewardSpec,
    "trainer": TrainerConfig,
    "health": HealthConfig,
    "logger": LoggerConfig,
}


NAMED_SECTIONS: dict[str, Mapping[str, type[Any]]] = {
    # section: dataclass of each choice of `name`, whose fields are the other keys
    "policy": POLICIES,
    "critic": CRITICS,
    "optimizer": OPTIMIZERS,
    "critic_optimizer": CRITIC_OPTIMIZERS,
    "runner": RUNNERS,
}


def keys_of_choice(section: str, name: object) -> Mapping[str, Any]:
    """Return the keys of a named choice with their annotations."""
    registry = NAMED_SECTIONS[section]
    return {"name": str} | (parameter_types(registry[str(name)]) if name in registry else {})


def make_spec(section: str, values: Mapping[str, Any]) -> Any:
    """Return the choice of a section as an instance of its dataclass.

    Args:
        section: key of NAMED.
        values: `name` and the keys of that choice; name null: no optimizer.
    """
    return (
        NoOptimizer()
        if values["name"] is None
        else NAMED_SECTIONS[section][values["name"]](**_without_name(values))
    )


@dataclass(frozen=True)
class ChosenNames:
    """Names of the choices of sections; None: no choice."""

    algo: str
    policy: str
    critic: str
    optimizer: str | None
    critic_optimizer: str | None
    runner: str


@dataclass(frozen=True)
class RunConfig(TopLevelConfig):
    """Valid config of one run. `validate` makes it; nothing checks it again.

    Args:
        algo: update rule.
        policy, critic, optimizer, critic_optimizer: specs.
        runner: section of the rollout source, an instance of its dataclass.
        names: names of the choices.
        values: all values as nested plain data, for config.yaml and tables of hyperparameters.
    """

    env: EnvConfig
    reward: RewardSpec
    trainer: TrainerConfig
    health: HealthConfig
    logger: LoggerConfig
    algo: Algorithm
    policy: PolicySpec
    critic: CriticSpec
    optimizer: OptimizerSpec
    critic_optimizer: OptimizerSpec
    runner: RunnerConfig
    names: ChosenNames
    values: Mapping[str, Any]


def to_run_config(values: Mapping[str, Any]) -> RunConfig:
    """Return the typed form of values that `value_problems` accepts."""
    chosen = {section: values[section]["name"] for section in ("algo", *NAMED_SECTIONS)}
    return RunConfig(
        **{key: values[key] for key in parameter_types(TopLevelConfig)},
        env=EnvConfig(**values["env"]),
        reward=RewardSpec(**values["reward"]),
        trainer=TrainerConfig(**values["trainer"]),
        health=HealthConfig(**values["health"]),
        logger=LoggerConfig(**values["logger"]),
        algo=rule(chosen["algo"])(**_without_name(values["algo"])),
        **{section: make_spec(section, values[section]) for section in NAMED_SECTIONS},
        names=ChosenNames(**chosen),
        values=values,
    )


def with_values(config: RunConfig, changed: Mapping[str, Any]) -> RunConfig:
    """Return a config with other values, by dotted key; they are not checked."""
    values = copy.deepcopy(dict(config.values))
    for key, value in changed.items():
        *path, name = key.split(".")
        section = values
        for part in path:
            section = section[part]
        section[name] = value
    return to_run_config(values)


def _without_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a section except its name."""
    return {key: value for key, value in section.items() if key != "name"}


def flatten_config(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key. An empty mapping below the top is a value."""
    return dict(_flat_items(values, prefix)) if values else {}


def _flat_items(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from _flat_items(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values
