"""Training from Python."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from pgx.api.arguments import (
    EnvArgument,
    Overrides,
    choice_overrides,
    config_errors,
    factory_of,
    listed_overrides,
    named_environment,
)
from pgx.api.execution import execute, kept_torch_threads
from pgx.api.run import Run, data_of
from pgx.api.run_folder import (
    compose_valid,
    create_unique_folder,
    folder_of,
    forget_empty,
    refuse_unusable,
)
from pgx.config.run_config import RunConfig, with_values
from pgx.core.agent import CriticSpec, PolicySpec
from pgx.core.algorithm import Algorithm, OptimizerSpec
from pgx.core.paths import config_choices
from pgx.core.text import override
from pgx.runs.loggers import Logger
from pgx.training.build import build
from pgx.training.callbacks import as_callback

_composing = Lock()  # of values of rules that are passed as objects, which are registered by class


def train(
    algo: str | Algorithm | type[Algorithm],
    env: EnvArgument,
    *,
    total_steps: int | None = None,
    seed: int | None = None,
    policy: str | PolicySpec | None = None,
    critic: str | CriticSpec | None = None,
    optimizer: str | OptimizerSpec | None = None,
    critic_optimizer: str | OptimizerSpec | None = None,
    run_dir: str | Path | None = "auto",
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Logger] = (),
    overrides: Overrides = (),
    progress: bool = True,
) -> Run:
    """Train an agent; the same bits as `pgx train` with the same values.

        run = pgx.train("trpo", "Walker2d-v4", total_steps=200_000, seed=1)
        run = pgx.train(pgx.PPO(clip_range=0.1), lambda: MyEnv(), run_dir=None, callbacks=[stop_early])

    Args:
        algo: name of an update rule (`pgx.list_algos()`), or an object such as `pgx.TRPO(max_kl=0.02)`. Values that are
            not passed are those of the rule's file in configs/algo.
        env: id of an environment, a function that makes one, or Gymnasium's EnvSpec.
        total_steps: environment steps; None: `trainer.total_steps` of the config.
        seed: of all random numbers; None: `seed` of the config.
        policy: name, or an object such as `pgx.MLPPolicy(hidden=[64, 64])`; None: the choice of the rule.
        critic: name or object, as `policy`.
        optimizer: of the policy: name, or an object such as `pgx.Adam(learning_rate=3e-4)`; None: as for `policy`.
        critic_optimizer: of the critic, as `optimizer`.
        run_dir: folder of the run; auto: a new one below outputs/; None: none, the run stays in memory.
        callbacks: functions of the state, or objects with some of on_start, on_iteration and on_end
            (pgx.training.callbacks.Callback). One that returns pgx.STOP ends the run.
        loggers: further loggers of metrics (pgx.runs.loggers.Logger).
        overrides: texts as on the command line, `["policy.hidden=[256,256]"]`, or values by key,
            `{"policy.hidden": [256, 256]}`. They override the other arguments.
        progress: print settings, progress and result.

    Returns:
        The run, with its metrics and agent.

    Raises:
        ConfigError: the request is invalid; the message has all problems, and nothing was written.
        RunError: the run failed. Its folder has the finished iterations and can be loaded.
    """
    with config_errors(), kept_torch_threads():
        environment, env_values = named_environment(env)
        with environment as env_id:
            with _composing:
                given = [
                    *choice_overrides("algo", algo),
                    override("env", env_id),
                    *env_values,
                    *_choices(policy, critic, optimizer, critic_optimizer),
                    *_values(total_steps, seed, run_dir, progress),
                    *listed_overrides(overrides),
                ]
                config = compose_valid(given)
            config = _with_folder(config, new=run_dir == "auto")
            try:
                trainer = build(config, callbacks=[as_callback(each) for each in callbacks], loggers=loggers)
                execute(trainer, config, prints=progress)
            except BaseException:
                if config.run_dir is not None:
                    forget_empty(folder_of(config))
                raise
            return Run(config, data_of(trainer.writer, config), factory_of(env))


def _choices(
    policy: str | PolicySpec | None,
    critic: str | CriticSpec | None,
    optimizer: str | OptimizerSpec | None,
    critic_optimizer: str | OptimizerSpec | None,
) -> list[str]:
    chosen = {
        "policy": policy,
        "critic": critic,
        "optimizer": optimizer,
        "critic_optimizer": critic_optimizer,
    }
    return [
        each
        for section, given in chosen.items()
        if given is not None
        for each in choice_overrides(section, given)
    ]


def _values(
    total_steps: int | None, seed: int | None, run_dir: str | Path | None, progress: bool
) -> list[str]:
    """Return the overrides of single values."""
    values: dict[str, object] = {}
    if total_steps is not None:
        values["trainer.total_steps"] = total_steps
    if seed is not None:
        values["seed"] = seed
    if run_dir != "auto":
        values["run_dir"] = None if run_dir is None else str(run_dir)
    if not progress:
        values["logger.console"] = "off"
    return [override(key, value) for key, value in values.items()]


def _with_folder(config: RunConfig, new: bool) -> RunConfig:
    """Return the config with the folder of the run, which is created if it is to be a new one."""
    if config.run_dir is None:
        return config
    if not new:
        refuse_unusable(folder_of(config))
        return config
    return with_values(config, {"run_dir": str(create_unique_folder(folder_of(config)))})


def list_algos() -> list[str]:
    """Return the names of the update rules."""
    return config_choices("algo")
