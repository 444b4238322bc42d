"""Checks of valid values against each other: conflicts, and keys that are set but unused.

A key is unused if the choices of a run make no code read it, for example a key of evaluation without `eval_every`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pgx.algos import rule, rules
from pgx.algos.common.sequences import sequence_conflicts
from pgx.compiler.choose import compilation_problem
from pgx.config.overrides import parse
from pgx.config.run_config import (
    NAMED_SECTIONS,
    A3CConfig,
    ActorLearnerConfig,
    DatasetConfig,
    RunConfig,
    SyncConfig,
    flatten_config,
)
from pgx.core.algorithm import Setting
from pgx.core.cpu import available_cores
from pgx.core.imports import import_problem
from pgx.core.paths import config_choices, config_dir
from pgx.core.schema import format_value
from pgx.distributed.ray_cluster import address_problem, suppress_ray_logs
from pgx.envs.registry import id_problem
from pgx.envs.rewards.spec import NO_SHAPING, reward_problems
from pgx.networks import RECURRENT, WITH_ACTION_VALUES, WITH_VALUE_HEAD, WITHOUT_PARAMETERS
from pgx.networks.recurrent import GRUPolicy, LSTMPolicy
from pgx.ops.optim import OPTIMIZERS
from pgx.rollouts.sizes import ActorSizes, resolve_sizes, resolve_workers, size_problems, worker_problems


def conflict_problems(config: RunConfig) -> list[str]:
    """Return a message for each conflict between values; empty if there is none."""
    found = [problem for problem in [id_problem(config.env.id)] if problem]
    reward, env = config.reward, config.env
    found += reward_problems(reward, env.id, env.kwargs)
    if config.names.runner == "dataset" and (reward.environment, reward.terms) != (
        NO_SHAPING.environment,
        NO_SHAPING.terms,
    ):
        found.append(
            "reward: runner=dataset learns from recorded rewards, which are those of the environment; set reward=none"
        )
    if config.run_dir is None:
        found += _memory_problems(config)
    elif not config.run_dir.strip():
        found.append("run_dir: expected a folder, got an empty text")
    if config.device == "cuda" and not torch.cuda.is_available():
        found.append("device=cuda: torch finds no CUDA device; set device=cpu")
    shared = _actor_problems(config) + _a3c_problems(config)
    # The batch of an update is unknown until the environments are divided evenly.
    of_rows = [] if shared else _budget_problems(config) + _single_row_problems(config)
    return found + _dataset_problems(config) + shared + of_rows + _rule_problems(config)


def _memory_problems(config: RunConfig) -> list[str]:
    """Return the problems of a run without a folder."""
    found = []
    if config.trainer.record_every is not None:
        found.append(
            "trainer.record_every: a run without a folder (run_dir=null) has no place for videos; name a run_dir"
        )
    sinks = [name for name in _sink_names(config.logger.sinks) if name != "tensorboard"]  # the default
    if sinks:
        found.append(
            f"logger.sinks: {', '.join(sinks)}: a run without a folder (run_dir=null) has none; name a run_dir, or "
            "pass loggers=[...] in Python"
        )
    return found


def _budget_problems(config: RunConfig) -> list[str]:
    """Return a problem if the step budget is smaller than the first rollout."""
    total, steps = config.trainer.total_steps, _rollout_steps(config)
    if steps is None:
        return []
    num_envs = _envs_per_rollout(config)
    if total >= steps * num_envs:
        return []
    return [
        f"trainer.total_steps={total}: less than one rollout, runner.rollout_steps {steps} x {num_envs} environments = "
        f"{steps * num_envs} steps; set at least that, or a smaller rollout"
    ]


def _single_row_problems(config: RunConfig) -> list[str]:
    """Return a problem if advantages are normalized over a single row: A - mean A = 0, so nothing is learned.

    Applies to rules with a key `algo.normalize_advantage`: false or "off"; true or "batch" (over the batch);
    "minibatch". Rollouts of whole episodes have an unknown number of rows and are not checked.
    """
    normalize, steps = getattr(config.algo, "normalize_advantage", False), _rollout_steps(config)
    written = str(normalize).lower()
    if written in ("false", "off"):
        return []
    if written == "minibatch":
        rows, source, larger = (
            getattr(config.algo, "minibatch_size", None),
            "algo.minibatch_size 1",
            "algo.minibatch_size",
        )
        smaller = "algo.normalize_advantage=batch"
    else:
        rows = None if steps is None else steps * _envs_per_rollout(config)
        source, larger = "runner.rollout_steps 1 x env.num_envs 1", "runner.rollout_steps or env.num_envs"
        smaller = f"algo.normalize_advantage={'false' if written == 'true' else 'off'}"
    if rows != 1:
        return []
    return [
        f"algo.normalize_advantage={written}: {source} = 1 row, whose normalized advantage is A - mean A = 0, so "
        f"nothing would be learned; set {larger} to 2 or more, or {smaller}"
    ]


def _rollout_steps(config: RunConfig) -> int | None:
    """Return T, the steps of each environment in a rollout; None for rollouts of whole episodes."""
    match config.runner:
        case SyncConfig() | ActorLearnerConfig() | A3CConfig():
            return config.runner.rollout_steps
        case _:
            return None


def _envs_per_rollout(config: RunConfig) -> int:
    """Return the number of environments whose steps are in one rollout."""
    num_envs = config.env.num_envs
    match config.runner:
        case ActorLearnerConfig():
            size = _actor_sizes(num_envs, config.runner)
            return size.trajectories * size.envs_per_actor
        case A3CConfig():
            return num_envs // resolve_workers(num_envs, config.runner.workers, available_cores())
        case _:
            return num_envs


def _dataset_problems(config: RunConfig) -> list[str]:
    """Return problems of a dataset that is unused, or of a rule that cannot learn from one."""
    path, name = config.dataset, config.names.algo
    if not isinstance(config.runner, DatasetConfig):
        unused = f"dataset={path}: runner={config.names.runner} does not use it; set runner=dataset"
        return [] if path is None else [unused]
    found = []
    if config.runner.path is None:
        found.append(
            "runner=dataset: the dataset is missing; set dataset=PATH, a folder written by "
            "`pgx collect RUN --episodes 100 --out PATH`"
        )
    if "recorded" not in config.algo.uses:
        found.append(
            f"runner=dataset: {name} learns from steps of its own policy only; set algo=off_policy_reinforce, which "
            "corrects for the policy that acted"
        )
    if getattr(config.policy, "continuous", None) == "squashed_gaussian":
        found.append(
            "policy.continuous=squashed_gaussian: datasets contain the executed actions, from which the sample of an "
            "action at a bound cannot be computed; set policy.continuous=gaussian"
        )
    return found


def _actor_sizes(num_envs: int, runner: ActorLearnerConfig) -> ActorSizes:
    """Return the sizes of a run with actors."""
    return resolve_sizes(num_envs, runner.workers, runner.trajectories, runner.queue, available_cores())


def _actor_problems(config: RunConfig) -> list[str]:
    """Return problems of actors that cannot share the environments, or whose steps the rule cannot use."""
    if not isinstance(config.runner, ActorLearnerConfig):
        return []
    found = size_problems(_actor_sizes(config.env.num_envs, config.runner))
    if "off_policy" not in config.algo.uses:
        found.append(
            f"runner={config.names.runner}: its policies are some updates old, and {config.names.algo} learns from "
            "steps of the current policy only; set algo=impala, which corrects for older policies, or runner=sync"
        )
    return found + _actor_backend_problems(config.runner)


def _actor_backend_problems(runner: ActorLearnerConfig) -> list[str]:
    """Return problems of options that only one backend of actors supports."""
    address, found = runner.address, []
    if runner.backend == "local":
        if address is not None:
            found.append(
                f"runner.address={address}: is unused with runner.backend=local; remove it or set runner.backend=ray"
            )
        return found
    suppress_ray_logs()
    if problem := import_problem("ray"):
        found.append(f"runner.backend=ray: {problem}")
    if address is not None and (problem := address_problem("runner.address", address)):
        found.append(problem)
    if runner.inference == "learner":
        found.append(
            "runner.inference=learner: needs memory that actors share with the learner, which runner.backend=ray does "
            "not have; set runner.inference=actor or runner.backend=local"
        )
    return found


def _a3c_problems(config: RunConfig) -> list[str]:
    """Return problems of workers that cannot share the environments, or of a rule that several workers cannot run."""
    if not isinstance(config.runner, A3CConfig):
        return []
    num_envs, name = config.env.num_envs, config.names.algo
    found = worker_problems(num_envs, resolve_workers(num_envs, config.runner.workers, available_cores()))
    if "shared_parameters" not in config.algo.uses:
        found.append(
            f"runner=a3c: other workers change the parameters during an update, which {name} does not support; set "
            "algo=a3c, which takes gradient steps only, or runner=sync"
        )
    if config.names.critic_optimizer == "lbfgs":
        found.append(
            "critic_optimizer=lbfgs: with runner=a3c the parameters change during its line search; choose one of "
            f"{', '.join(OPTIMIZERS)}"
        )
    if config.trainer.on_nan == "skip_update":
        found.append(
            "trainer.on_nan=skip_update: runner=a3c cannot undo an update, because other workers have changed the "
            "parameters since; set trainer.on_nan=stop"
        )
    if config.device != "cpu":
        found.append(
            f"device={config.device}: runner=a3c shares parameters in the memory of the CPU; set device=cpu"
        )
    return found


def _rule_problems(config: RunConfig) -> list[str]:
    """Return problems of a rule with the choices of other sections."""
    name, policy, critic = config.names.algo, config.names.policy, config.names.critic
    algorithm = config.algo
    recurrent = config.policy if isinstance(config.policy, GRUPolicy | LSTMPolicy) else None
    uses, values_states = algorithm.uses, critic not in WITHOUT_PARAMETERS
    found = algorithm.conflicts(
        Setting(
            rollout_steps=_rollout_steps(config),
            num_envs=_envs_per_rollout(config),
            policy=policy,
            critic=critic,
            sequence_length=None if recurrent is None else recurrent.sequence_length,
        )
    )
    if recurrent is not None:
        found += sequence_conflicts(
            rollout_steps=_rollout_steps(config),
            sequence_length=recurrent.sequence_length,
            burn_in=recurrent.burn_in,
        )
    if values_states and "critic_optimizer" not in uses:
        found.append(f"critic={critic}: {name}, as configured, does not use a critic; set critic=none")
    found += _optimizer_problems("optimizer", config.names.optimizer, name, "optimizer" in uses)
    learner, learns = (name, "critic_optimizer" in uses) if values_states else ("critic=none", False)
    found += _optimizer_problems("critic_optimizer", config.names.critic_optimizer, learner, learns)
    for use, group, chosen, having, words in (
        ("value_head", "policy", policy, WITH_VALUE_HEAD, "a value head"),
        ("action_values", "critic", critic, WITH_ACTION_VALUES, "action values"),
    ):
        offers = having if use in uses else set(NAMED_SECTIONS[group]) - having
        if chosen not in offers:
            verb = "needs" if use in uses else "does not use"
            found.append(
                f"{group}={chosen}: {name}, as configured, {verb} {words}; set {group}={' or '.join(sorted(offers))}"
            )
    return found


def _optimizer_problems(group: str, chosen: str | None, name: str, used: bool) -> list[str]:
    """Return problems of an optimizer that is unused or missing."""
    if used and chosen is None:
        return [f"{group}=none: {name} needs an optimizer; choose one of {', '.join(NAMED_SECTIONS[group])}"]
    if not used and chosen is not None:
        return [f"{group}={chosen}: is unused with {name}; set {group}=none"]
    return []


def rank_problems(config: RunConfig, size: int) -> list[str]:
    """Return why several ranks cannot train a config; empty if they can.

    Args:
        config: valid for one process.
        size: ranks, > 1.
    """
    num_envs, runner, policy = config.env.num_envs, config.runner, config.names.policy
    found = []
    if num_envs % size:
        below = num_envs - num_envs % size
        nearest = f"{below} or {below + size}" if below else f"{size}"
        found.append(
            f"env.num_envs={num_envs}: {size} ranks divide the environments evenly, {num_envs} / {size} = "
            f"{num_envs / size:.4g} each; expected a multiple of {size}: {nearest}"
        )
    if "ranks" not in config.algo.uses:
        found.append(
            f"algo={config.names.algo}: as configured, it does not average over ranks; "
            f"{', '.join(_rules_with_ranks())} do"
        )
    if not isinstance(runner, SyncConfig):
        found.append(f"runner={config.names.runner}: ranks need rollouts of equal length; set runner=sync")
    elif runner.lag > 0:
        found.append(
            f"runner.lag={runner.lag}: a checkpoint contains the queued rollouts, and rank 0 has only its own; "
            "set runner.lag=0"
        )
    if policy in RECURRENT:
        found.append(
            f"policy={policy}: ranks divide minibatches by rows, and a recurrent policy needs whole "
            "sequences; choose a feed-forward policy"
        )
    if config.trainer.compile is True:
        found.append(f"trainer.compile=true: {compilation_problem('cpu', size)}; set trainer.compile=auto")
    return found


def _rules_with_ranks() -> list[str]:
    """Return the rules that support several ranks with every configuration."""
    uses = {name: rule(name).uses for name in rules()}
    return [name for name, own in uses.items() if isinstance(own, frozenset) and "ranks" in own]


Values = Mapping[str, Any]  # of a run, by dotted key


@dataclass(frozen=True)
class UsedIf:
    """Key of the config, and the condition under which it is used.

    Args:
        key: that may be unused.
        because: key that decides. Configs without both keys are not checked.
        read: returns whether a run with these values uses the key.
    """

    key: str
    because: str
    read: Callable[[Values], bool]


def _is(key: str, *wanted: Any) -> Callable[[Values], bool]:
    return lambda values: values[key] in wanted


def _set(key: str) -> Callable[[Values], bool]:
    return lambda values: values[key] is not None


def _above(key: str, least: int) -> Callable[[Values], bool]:
    return lambda values: bool(values[key] > least)


def _num_threads_is_used(values: Values) -> bool:
    # Ray reserves these cores for an actor, whichever backend steps its environments.
    return values["env.backend"] != "gymnasium" or values.get("runner.backend") == "ray"


def _has_child_processes(values: Values) -> bool:
    if values["env.backend"] in ("auto", "processes") or values["runner.name"] == "a3c":
        return True
    return values.get("runner.backend") == "local"  # actors on this machine


def _has_sinks(values: Values) -> bool:
    return bool(values["logger.sinks"])


def _has_service(values: Values) -> bool:
    return bool({"wandb", "mlflow"} & set(_sink_names(values["logger.sinks"])))


def _sink_names(sinks: Sequence[Any]) -> list[str]:
    return [str(each.get("name") if isinstance(each, Mapping) else each) for each in sinks]


_TRUST_REGION_SOLVERS = ("cg", "exact", "compatible")

USED_IF = (
    UsedIf("env.obs_clip", "env.normalize_obs", _is("env.normalize_obs", True)),
    UsedIf("env.normalizer_warmup_steps", "env.normalize_obs", _is("env.normalize_obs", True)),
    UsedIf("env.reward_clip", "env.scale_reward", _is("env.scale_reward", True)),
    UsedIf("env.num_threads", "env.backend", _num_threads_is_used),
    UsedIf("env.worker_timeout", "env.backend", _has_child_processes),
    UsedIf("trainer.compile_min_steps", "trainer.compile", _is("trainer.compile", "auto")),
    UsedIf("trainer.record_every", "logger.sinks", _has_sinks),
    UsedIf("trainer.record_seconds", "trainer.record_every", _set("trainer.record_every")),
    UsedIf("trainer.record_width", "trainer.record_every", _set("trainer.record_every")),
    UsedIf("logger.project", "logger.sinks", _has_service),
    UsedIf("logger.console_interval", "logger.console", _is("logger.console", "auto", "plain")),
    UsedIf("runner.connect_seconds", "runner.backend", _is("runner.backend", "ray")),
    UsedIf("sweep.warmup_steps", "sweep.pruner", _is("sweep.pruner", "median", "halving")),
    # of rules
    UsedIf("algo.critic_epochs", "algo.baseline", _is("algo.baseline", "value")),
    UsedIf("algo.critic_minibatch_size", "algo.baseline", _is("algo.baseline", "value")),
    UsedIf("algo.critic_minibatch_size", "algo.critic_epochs", _above("algo.critic_epochs", 0)),
    UsedIf("algo.line_search_shrink", "algo.line_search_steps", _above("algo.line_search_steps", 0)),
    UsedIf("algo.recompute_advantages", "algo.epochs", _above("algo.epochs", 1)),
    UsedIf("algo.target_kl", "algo.epochs", _above("algo.epochs", 1)),
    UsedIf("algo.kl_target", "algo.adapt_beta", _is("algo.adapt_beta", True)),
    UsedIf("algo.max_kl", "algo.solver", _is("algo.solver", *_TRUST_REGION_SOLVERS)),
    UsedIf("algo.fisher", "algo.solver", _is("algo.solver", *_TRUST_REGION_SOLVERS)),
    UsedIf("algo.damping", "algo.solver", _is("algo.solver", *_TRUST_REGION_SOLVERS)),
    UsedIf("algo.cg_steps", "algo.solver", _is("algo.solver", "cg")),
    UsedIf("algo.cg_tolerance", "algo.solver", _is("algo.solver", "cg")),
    UsedIf("algo.euclidean_radius", "algo.solver", _is("algo.solver", "euclidean")),
)

# Used only through values that refer to them.
DEFAULTS_OF_OTHERS = {"env.discount": "algo.discount"}


def unused_keys(values: Values) -> dict[str, str]:
    """Return each key of USED_IF that a run with these values does not use, with the key that decides."""
    return {
        each.key: each.because
        for each in USED_IF
        if each.key in values and each.because in values and not each.read(values)
    }


def unused_problems(values: Values, cfg: DictConfig, asked: Sequence[str]) -> list[str]:
    """Return a problem for each key that the user set and that a run with these values does not use.

    Args:
        values: by dotted key, references resolved.
        cfg: the config with its references.
        asked: dotted keys that the user set.
    """
    idle = unused_keys(values)
    found = [
        f"{key}: unused with {idle[key]}={format_value(values[idle[key]])}; remove it or change {idle[key]}"
        for key in dict.fromkeys(asked)
        if key in idle
    ]
    written = flatten_config(OmegaConf.to_container(cfg, resolve=False))
    for key, other in DEFAULTS_OF_OTHERS.items():
        referred = any(f"${{{key}}}" in text for text in written.values() if isinstance(text, str))
        if key in asked and not referred:
            found.append(f"{key}: unused, because {other} is set as well; remove one of them")
    return found


def overridden_keys(overrides: list[str]) -> list[str]:
    """Return the keys that overrides set, including those in the file of an experiment."""
    keys: list[str] = []
    for override in parse(overrides):
        key, value = override.key_or_group, override.value()
        if override.is_delete() or override.is_hydra_override():
            continue
        if key == "experiment":
            keys += _keys_of_experiment(str(value))
        elif isinstance(value, dict):
            keys += flatten_config({key: value})
        else:
            keys.append(key)
    return keys


def _keys_of_experiment(name: str) -> list[str]:
    if name not in config_choices("experiment"):
        return []
    path = config_dir() / "experiment" / f"{name}.yaml"
    written = flatten_config(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
    return [key for key in written if key != "defaults"]
