"""Values that are right by themselves and contradict each other: what no single one shows."""

from collections.abc import Mapping
from typing import Any

import torch

from pgx.algos import rule
from pgx.algos.common.sequences import stretch_conflicts
from pgx.config.run_config import NAMED
from pgx.core.algorithm import Algorithm, Setting
from pgx.core.extras import import_problem
from pgx.distributed.ray_cluster import address_problem, hush
from pgx.envs.make import id_problem
from pgx.envs.rewards.plan import OWN, RewardPlan, reward_problems
from pgx.networks import WITH_ACTION_VALUES, WITH_MEMORY, WITH_VALUE_HEAD, WITHOUT_PARAMETERS
from pgx.ops.optim import OPTIMIZERS
from pgx.rollouts.sizes import Sizes, cores, misfits, share_misfits, sizes, worker_count


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """Every contradiction, in words; empty when there is none."""
    found = [problem for problem in [id_problem(values["env"]["id"])] if problem]
    reward, env = RewardPlan(**values["reward"]), values["env"]
    found += reward_problems(reward, env["id"], env["kwargs"])
    if values["runner"]["name"] == "dataset" and (reward.environment, reward.terms) != (
        OWN.environment,
        OWN.terms,
    ):
        found.append(
            "reward: runner=dataset learns from recorded rewards, which are the environment's own; reward=none"
        )
    if not values["run_dir"].strip():
        found.append("run_dir: expected a folder, got an empty text")
    if values["device"] == "cuda" and not torch.cuda.is_available():
        found.append("device=cuda: torch finds no CUDA device here; device=cpu runs everywhere")
    shared = _actor_misfits(values) + _a3c_misfits(values)
    # Before environments are shared out evenly nobody knows how many an update sees.
    of_rows = [] if shared else _budget_misfits(values) + _lone_row_misfits(values)
    return found + _dataset_misfits(values) + shared + of_rows + _misfits(values)


def _budget_misfits(values: Mapping[str, Any]) -> list[str]:
    """A run that would be over before its first rollout is."""
    total, steps = values["trainer"]["total_steps"], values["runner"].get("rollout_steps")
    if steps is None:
        return []
    num_envs = _envs_of_an_update(values)
    if total >= steps * num_envs:
        return []
    return [
        f"trainer.total_steps={total}: less than one rollout, runner.rollout_steps {steps} x {num_envs} environments = "
        f"{steps * num_envs} steps; at least that, or a smaller rollout"
    ]


def _lone_row_misfits(values: Mapping[str, Any]) -> list[str]:
    """Advantages that are normalised over a single row, A - mean A = 0, so that nothing would be learned.

    For every rule with a key `algo.normalize_advantage`: false or "off", true or "batch" (over the batch), or
    "minibatch". Whole episodes have an unknown number of rows and are not checked.
    """
    normalize, steps = values["algo"].get("normalize_advantage", False), values["runner"].get("rollout_steps")
    written = str(normalize).lower()
    if written in ("false", "off"):
        return []
    if written == "minibatch":
        rows, source, larger = (
            values["algo"].get("minibatch_size"),
            "algo.minibatch_size 1",
            "algo.minibatch_size",
        )
        smaller = "algo.normalize_advantage=batch"
    else:
        rows = None if steps is None else steps * _envs_of_an_update(values)
        source, larger = "runner.rollout_steps 1 x env.num_envs 1", "runner.rollout_steps or env.num_envs"
        smaller = f"algo.normalize_advantage={'false' if written == 'true' else 'off'}"
    if rows != 1:
        return []
    return [
        f"algo.normalize_advantage={written}: {source} = 1 row, whose normalised advantage is A - mean A = 0, so "
        f"nothing would be learned; set {larger} to 2 or more, or {smaller}"
    ]


def _envs_of_an_update(values: Mapping[str, Any]) -> int:
    """Environments whose steps are in one rollout."""
    num_envs: int = values["env"]["num_envs"]
    if values["runner"]["name"] == "actor_learner":
        size = _sizes(values)
        return size.trajectories * size.envs_each
    if values["runner"]["name"] == "a3c":
        return num_envs // worker_count(num_envs, values["runner"]["workers"], cores())
    return num_envs


def _dataset_misfits(values: Mapping[str, Any]) -> list[str]:
    """A dataset that nothing reads, or what cannot learn from one."""
    runner, path, name = values["runner"]["name"], values["dataset"], values["algo"]["name"]
    if runner != "dataset":
        return [] if path is None else [f"dataset={path}: runner={runner} does not read it; runner=dataset"]
    found = []
    if values["runner"]["path"] is None:
        found.append(
            "runner=dataset: of which dataset? dataset=PATH, a folder that "
            "`pgx collect RUN --episodes 100 --out PATH` wrote"
        )
    if "recorded" not in _algorithm(values).uses:
        found.append(
            f"runner=dataset: {name} takes every step for one of its own policy; algo=off_policy_reinforce weighs "
            "those of another"
        )
    if values["policy"].get("continuous") == "squashed_gaussian":
        found.append(
            "policy.continuous=squashed_gaussian: actions are recorded as the environment has them, where one at a "
            "bound no longer tells what was sampled; policy.continuous=gaussian"
        )
    return found


def _sizes(values: Mapping[str, Any]) -> Sizes:
    """Of a run with actors of its own."""
    runner = values["runner"]
    return sizes(
        values["env"]["num_envs"], runner["workers"], runner["trajectories"], runner["queue"], cores()
    )


def _actor_misfits(values: Mapping[str, Any]) -> list[str]:
    """Actors that do not share the environments out, or a rule that cannot take what they bring."""
    runner, name = values["runner"]["name"], values["algo"]["name"]
    if runner != "actor_learner":
        return []
    found = misfits(_sizes(values))
    if "off_policy" not in _algorithm(values).uses:
        found.append(
            f"runner={runner}: its steps are of what the policy was some updates ago, and {name} takes every step "
            "for one of the policy that learns; algo=impala weighs them, or runner=sync"
        )
    return found + _backend_misfits(values["runner"])


def _backend_misfits(runner: Mapping[str, Any]) -> list[str]:
    """What only one of the places where actors run can do."""
    address, found = runner["address"], []
    if runner["backend"] == "local":
        if address is not None:
            found.append(
                f"runner.address={address}: actors of runner.backend=local have none; runner.backend=ray"
            )
        return found
    hush()
    if problem := import_problem("ray"):
        found.append(f"runner.backend=ray: {problem}")
    if address is not None and (problem := address_problem("runner.address", address)):
        found.append(problem)
    if runner["inference"] == "learner":
        found.append(
            "runner.inference=learner: actors ask through memory that they share with the learner, and with "
            "runner.backend=ray they share none; runner.inference=actor, or runner.backend=local"
        )
    return found


def _a3c_misfits(values: Mapping[str, Any]) -> list[str]:
    """Workers that do not share the environments out, or what cannot be changed by several at once."""
    runner, name = values["runner"]["name"], values["algo"]["name"]
    if runner != "a3c":
        return []
    num_envs = values["env"]["num_envs"]
    found = share_misfits(num_envs, worker_count(num_envs, values["runner"]["workers"], cores()))
    if "shared_parameters" not in _algorithm(values).uses:
        found.append(
            f"runner=a3c: others change the parameters during an update, and {name} takes them for its own; "
            "algo=a3c takes no more than gradient steps, or runner=sync"
        )
    if values["critic_optimizer"]["name"] == "lbfgs":
        found.append(
            "critic_optimizer=lbfgs: runner=a3c takes single steps of shared parameters, which a line search would see "
            f"change; one of {', '.join(OPTIMIZERS)}"
        )
    if values["trainer"]["on_nan"] == "skip_update":
        found.append(
            "trainer.on_nan=skip_update: runner=a3c has no update of its own to undo, workers change the parameters "
            "one upon the other; trainer.on_nan=stop"
        )
    if values["device"] != "cpu":
        found.append(
            f"device={values['device']}: runner=a3c shares parameters in the processor's memory; device=cpu"
        )
    return found


def _algorithm(values: Mapping[str, Any]) -> Algorithm:
    algorithm: Algorithm = rule(values["algo"]["name"])(
        **{key: value for key, value in values["algo"].items() if key != "name"}
    )
    return algorithm


def _misfits(values: Mapping[str, Any]) -> list[str]:
    """Where the rule and what is chosen around it do not fit each other."""
    name, policy, critic = (values[section]["name"] for section in ("algo", "policy", "critic"))
    algorithm = _algorithm(values)
    uses, values_states = algorithm.uses, critic not in WITHOUT_PARAMETERS
    found = algorithm.conflicts(
        Setting(
            rollout_steps=values["runner"].get("rollout_steps"),
            num_envs=_envs_of_an_update(values),
            policy=policy,
            critic=critic,
            sequence_length=values["policy"]["sequence_length"] if policy in WITH_MEMORY else None,
        )
    )
    if policy in WITH_MEMORY:
        found += stretch_conflicts(
            rollout_steps=values["runner"].get("rollout_steps"),
            sequence_length=values["policy"]["sequence_length"],
            burn_in=values["policy"]["burn_in"],
        )
    if values_states and "critic_optimizer" not in uses:
        found.append(f"critic={critic}: {name}, as configured, has no use for a critic; critic=none")
    found += _optimizer_misfits("optimizer", values, name, "optimizer" in uses)
    learner, learns = (name, "critic_optimizer" in uses) if values_states else ("critic=none", False)
    found += _optimizer_misfits("critic_optimizer", values, learner, learns)
    for use, group, having, words in (
        ("value_head", "policy", WITH_VALUE_HEAD, "a value head"),
        ("action_values", "critic", WITH_ACTION_VALUES, "values of actions"),
    ):
        chosen = values[group]["name"]
        offers = having if use in uses else set(NAMED[group][0]) - having
        if chosen not in offers:
            verb = "needs" if use in uses else "has no use for"
            found.append(
                f"{group}={chosen}: {name}, as configured, {verb} {words}; {group}={' or '.join(sorted(offers))}"
            )
    return found


def _optimizer_misfits(group: str, values: Mapping[str, Any], name: str, used: bool) -> list[str]:
    """An optimizer that does nothing, or one that is missing."""
    chosen = values[group]["name"]
    if used and chosen is None:
        return [f"{group}=none: {name} takes steps with one; choose one of {', '.join(NAMED[group][0])}"]
    if not used and chosen is not None:
        return [f"{group}={chosen}: {name} takes no step with it and it would do nothing; {group}=none"]
    return []
