"""Values that are right by themselves and contradict each other: what no single one shows."""

import torch

from pgx.algos import rule, rules
from pgx.algos.common.sequences import sequence_conflicts
from pgx.compiler.choose import why_not
from pgx.config.run_config import NAMED, A3CConfig, ActorLearnerConfig, DatasetConfig, RunConfig, SyncConfig
from pgx.core.algorithm import Setting
from pgx.core.cpu import available_cores
from pgx.core.extras import import_problem
from pgx.distributed.ray_cluster import address_problem, suppress_ray_logs
from pgx.envs.registry import id_problem
from pgx.envs.rewards.spec import NO_SHAPING, reward_problems
from pgx.networks import RECURRENT, WITH_ACTION_VALUES, WITH_VALUE_HEAD, WITHOUT_PARAMETERS
from pgx.ops.optim import OPTIMIZERS
from pgx.rollouts.sizes import ActorSizes, resolve_sizes, resolve_workers, size_problems, worker_problems


def contradictions(config: RunConfig) -> list[str]:
    """Every contradiction, in words; empty when there is none."""
    found = [problem for problem in [id_problem(config.env.id)] if problem]
    reward, env = config.reward, config.env
    found += reward_problems(reward, env.id, env.kwargs)
    if config.names.runner == "dataset" and (reward.environment, reward.terms) != (
        NO_SHAPING.environment,
        NO_SHAPING.terms,
    ):
        found.append(
            "reward: runner=dataset learns from recorded rewards, which are the environment's own; reward=none"
        )
    if not config.run_dir.strip():
        found.append("run_dir: expected a folder, got an empty text")
    if config.device == "cuda" and not torch.cuda.is_available():
        found.append("device=cuda: torch finds no CUDA device here; device=cpu runs everywhere")
    shared = _actor_misfits(config) + _a3c_misfits(config)
    # Before environments are shared out evenly nobody knows how many an update sees.
    of_rows = [] if shared else _budget_misfits(config) + _lone_row_misfits(config)
    return found + _dataset_misfits(config) + shared + of_rows + _misfits(config)


def _budget_misfits(config: RunConfig) -> list[str]:
    """A run that would be over before its first rollout is."""
    total, steps = config.trainer.total_steps, _rollout_steps(config)
    if steps is None:
        return []
    num_envs = _envs_of_an_update(config)
    if total >= steps * num_envs:
        return []
    return [
        f"trainer.total_steps={total}: less than one rollout, runner.rollout_steps {steps} x {num_envs} environments = "
        f"{steps * num_envs} steps; at least that, or a smaller rollout"
    ]


def _lone_row_misfits(config: RunConfig) -> list[str]:
    """Advantages that are normalised over a single row, A - mean A = 0, so that nothing would be learned.

    For every rule with a key `algo.normalize_advantage`: false or "off", true or "batch" (over the batch), or
    "minibatch". Whole episodes have an unknown number of rows and are not checked.
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
        rows = None if steps is None else steps * _envs_of_an_update(config)
        source, larger = "runner.rollout_steps 1 x env.num_envs 1", "runner.rollout_steps or env.num_envs"
        smaller = f"algo.normalize_advantage={'false' if written == 'true' else 'off'}"
    if rows != 1:
        return []
    return [
        f"algo.normalize_advantage={written}: {source} = 1 row, whose normalised advantage is A - mean A = 0, so "
        f"nothing would be learned; set {larger} to 2 or more, or {smaller}"
    ]


def _rollout_steps(config: RunConfig) -> int | None:
    """Return T, the steps of each environment in a rollout; None for rollouts of whole episodes."""
    match config.runner:
        case SyncConfig() | ActorLearnerConfig() | A3CConfig():
            return config.runner.rollout_steps
        case _:
            return None


def _envs_of_an_update(config: RunConfig) -> int:
    """Return the number of environments whose steps are in one rollout."""
    num_envs = config.env.num_envs
    match config.runner:
        case ActorLearnerConfig():
            size = _sizes(num_envs, config.runner)
            return size.trajectories * size.envs_per_actor
        case A3CConfig():
            return num_envs // resolve_workers(num_envs, config.runner.workers, available_cores())
        case _:
            return num_envs


def _dataset_misfits(config: RunConfig) -> list[str]:
    """A dataset that nothing reads, or what cannot learn from one."""
    path, name = config.dataset, config.names.algo
    if not isinstance(config.runner, DatasetConfig):
        unread = f"dataset={path}: runner={config.names.runner} does not read it; runner=dataset"
        return [] if path is None else [unread]
    found = []
    if config.runner.path is None:
        found.append(
            "runner=dataset: of which dataset? dataset=PATH, a folder that "
            "`pgx collect RUN --episodes 100 --out PATH` wrote"
        )
    if "recorded" not in config.algo.uses:
        found.append(
            f"runner=dataset: {name} takes every step for one of its own policy; algo=off_policy_reinforce weighs "
            "those of another"
        )
    if config.values["policy"].get("continuous") == "squashed_gaussian":
        found.append(
            "policy.continuous=squashed_gaussian: actions are recorded as the environment has them, where one at a "
            "bound no longer tells what was sampled; policy.continuous=gaussian"
        )
    return found


def _sizes(num_envs: int, runner: ActorLearnerConfig) -> ActorSizes:
    """Return the sizes of a run with actors."""
    return resolve_sizes(num_envs, runner.workers, runner.trajectories, runner.queue, available_cores())


def _actor_misfits(config: RunConfig) -> list[str]:
    """Return problems of actors that cannot share the environments, or whose steps the rule cannot use."""
    if not isinstance(config.runner, ActorLearnerConfig):
        return []
    found = size_problems(_sizes(config.env.num_envs, config.runner))
    if "off_policy" not in config.algo.uses:
        found.append(
            f"runner={config.names.runner}: its steps are of what the policy was some updates ago, and "
            f"{config.names.algo} takes every step for one of the policy that learns; algo=impala weighs them, or "
            "runner=sync"
        )
    return found + _backend_misfits(config.runner)


def _backend_misfits(runner: ActorLearnerConfig) -> list[str]:
    """What only one of the places where actors run can do."""
    address, found = runner.address, []
    if runner.backend == "local":
        if address is not None:
            found.append(
                f"runner.address={address}: actors of runner.backend=local have none; runner.backend=ray"
            )
        return found
    suppress_ray_logs()
    if problem := import_problem("ray"):
        found.append(f"runner.backend=ray: {problem}")
    if address is not None and (problem := address_problem("runner.address", address)):
        found.append(problem)
    if runner.inference == "learner":
        found.append(
            "runner.inference=learner: actors ask through memory that they share with the learner, and with "
            "runner.backend=ray they share none; runner.inference=actor, or runner.backend=local"
        )
    return found


def _a3c_misfits(config: RunConfig) -> list[str]:
    """Workers that do not share the environments out, or what cannot be changed by several at once."""
    if not isinstance(config.runner, A3CConfig):
        return []
    num_envs, name = config.env.num_envs, config.names.algo
    found = worker_problems(num_envs, resolve_workers(num_envs, config.runner.workers, available_cores()))
    if "shared_parameters" not in config.algo.uses:
        found.append(
            f"runner=a3c: others change the parameters during an update, and {name} takes them for its own; "
            "algo=a3c takes no more than gradient steps, or runner=sync"
        )
    if config.names.critic_optimizer == "lbfgs":
        found.append(
            "critic_optimizer=lbfgs: runner=a3c takes single steps of shared parameters, which a line search would see "
            f"change; one of {', '.join(OPTIMIZERS)}"
        )
    if config.trainer.on_nan == "skip_update":
        found.append(
            "trainer.on_nan=skip_update: runner=a3c has no update of its own to undo, workers change the parameters "
            "one upon the other; trainer.on_nan=stop"
        )
    if config.device != "cpu":
        found.append(
            f"device={config.device}: runner=a3c shares parameters in the processor's memory; device=cpu"
        )
    return found


def _misfits(config: RunConfig) -> list[str]:
    """Where the rule and what is chosen around it do not fit each other."""
    name, policy, critic = config.names.algo, config.names.policy, config.names.critic
    algorithm, options = config.algo, config.values["policy"]
    uses, values_states = algorithm.uses, critic not in WITHOUT_PARAMETERS
    found = algorithm.conflicts(
        Setting(
            rollout_steps=_rollout_steps(config),
            num_envs=_envs_of_an_update(config),
            policy=policy,
            critic=critic,
            sequence_length=options["sequence_length"] if policy in RECURRENT else None,
        )
    )
    if policy in RECURRENT:
        found += sequence_conflicts(
            rollout_steps=_rollout_steps(config),
            sequence_length=options["sequence_length"],
            burn_in=options["burn_in"],
        )
    if values_states and "critic_optimizer" not in uses:
        found.append(f"critic={critic}: {name}, as configured, has no use for a critic; critic=none")
    found += _optimizer_misfits("optimizer", config.names.optimizer, name, "optimizer" in uses)
    learner, learns = (name, "critic_optimizer" in uses) if values_states else ("critic=none", False)
    found += _optimizer_misfits("critic_optimizer", config.names.critic_optimizer, learner, learns)
    for use, group, chosen, having, words in (
        ("value_head", "policy", policy, WITH_VALUE_HEAD, "a value head"),
        ("action_values", "critic", critic, WITH_ACTION_VALUES, "values of actions"),
    ):
        offers = having if use in uses else set(NAMED[group]) - having
        if chosen not in offers:
            verb = "needs" if use in uses else "has no use for"
            found.append(
                f"{group}={chosen}: {name}, as configured, {verb} {words}; {group}={' or '.join(sorted(offers))}"
            )
    return found


def _optimizer_misfits(group: str, chosen: str | None, name: str, used: bool) -> list[str]:
    """An optimizer that does nothing, or one that is missing."""
    if used and chosen is None:
        return [f"{group}=none: {name} takes steps with one; choose one of {', '.join(NAMED[group])}"]
    if not used and chosen is not None:
        return [f"{group}={chosen}: {name} takes no step with it and it would do nothing; {group}=none"]
    return []


def rank_problems(config: RunConfig, size: int) -> list[str]:
    """Every reason, in words; empty when there is none.

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
            f"env.num_envs={num_envs}: {size} ranks share the environments out, {num_envs} / {size} = "
            f"{num_envs / size:.4g} each; expected a multiple of {size}: {nearest}"
        )
    if "ranks" not in config.algo.uses:
        found.append(
            f"algo={config.names.algo}: as configured, it takes the rows of one rank for all there are; "
            f"{', '.join(_able())} average over ranks"
        )
    if not isinstance(runner, SyncConfig):
        found.append(
            f"runner={config.names.runner}: ranks step their environments together, in rollouts of one length; "
            "runner=sync"
        )
    elif runner.lag > 0:
        found.append(
            f"runner.lag={runner.lag}: a checkpoint holds the rollouts that wait, and rank 0 has its own alone; "
            "runner.lag=0"
        )
    if policy in RECURRENT:
        found.append(
            f"policy={policy}: minibatches over ranks are dealt out by rows, and a recurrent policy needs whole "
            "sequences; a feed-forward policy"
        )
    if config.trainer.compile is True:
        found.append(f"trainer.compile=true: {why_not('cpu', size)}; trainer.compile=auto runs without")
    return found


def _able() -> list[str]:
    """Rules that average over ranks, however they are configured."""
    uses = {name: rule(name).uses for name in rules()}
    return [name for name, own in uses.items() if isinstance(own, frozenset) and "ranks" in own]
