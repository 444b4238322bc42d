"""`pgx collect`: write episodes of a trained agent, with sampled actions, as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import Command, add_checkpoint, add_max_steps, add_run, count
from pgx.core.errors import UserError
from pgx.core.text import format_number, override

if TYPE_CHECKING:
    from pgx.config.run_config import RunConfig
    from pgx.core.agent import Agent
    from pgx.rollouts.collector import RolloutCollector
    from pgx.rollouts.dataset_files import RecordedEpisode
    from pgx.training.evaluation import ProgressCallback


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "outputs/CartPole-v1/ppo/2026-...")
    parser.add_argument("--episodes", metavar="N", type=count, required=True, help="number of episodes")
    parser.add_argument("--out", metavar="PATH", required=True, help="folder to create for the dataset")
    add_max_steps(parser)
    add_checkpoint(parser, "the environments and action sampling")


def run(options: argparse.Namespace) -> int:
    return collect(
        options.run,
        options.checkpoint,
        options.episodes,
        options.max_steps,
        options.out,
        options.seed,
        options.trust,
    )


COMMAND = Command(
    "collect",
    "write episodes of a trained run as a dataset, for training with dataset=PATH",
    "Write episodes of a trained run, with sampled actions, as a dataset in Minari's layout.",
    add_arguments,
    run,
)


def collect(
    run: str, checkpoint: str, count: int, max_steps: int | None, out: str, seed: int, trust: bool
) -> int:
    """Play episodes and write them as a dataset; return the exit code."""
    import torch

    from pgx.api.run_folder import load_trusted_config
    from pgx.compiler import Eager
    from pgx.core.seeding import derive
    from pgx.envs.gymnasium_backend import make_single
    from pgx.envs.rewards.spec import NO_SHAPING
    from pgx.rollouts.collector import RolloutCollector
    from pgx.rollouts.dataset_files import write_dataset
    from pgx.runs.checkpoints import Checkpoints
    from pgx.training.build import load_agent
    from pgx.training.evaluation import show_progress

    config = load_trusted_config(Path(run), trust)
    if config.values["policy"].get("continuous") == "squashed_gaussian":
        raise UserError(
            f"{run}: policy.continuous=squashed_gaussian: cannot be collected, because an action at a bound of the "
            "environment does not determine the sampled action; use a run with policy.continuous=gaussian"
        )
    # The dataset has the environment's own reward, even if the run was trained on a shaped one.
    state = Checkpoints(Path(run)).load(checkpoint)
    agent, envs = load_agent(replace(config, reward=NO_SHAPING), state, max_envs=count)
    # A separate random stream, so that episodes differ from those that the agent was trained on.
    stream = derive(seed, "collection")
    collector = RolloutCollector(envs, None, stream, 0, torch.device(config.device), Eager())
    limit = max_steps or config.trainer.eval_max_steps
    single = make_single(envs.id, dict(config.env.kwargs))
    lengths: list[int] = []

    def recorded_episodes(on_step: ProgressCallback) -> Iterator[RecordedEpisode]:
        for episode in _play(collector, agent, count, limit, on_step):
            lengths.append(len(episode))
            yield episode

    try:
        with show_progress(count) as on_step:
            written = write_dataset(
                Path(out),
                recorded_episodes(on_step),
                single.observation_space,
                single.action_space,
                _metadata(config, checkpoint, seed, single.spec),
            )
    finally:
        single.close()
        envs.close()
    print(
        f"{out}: {written.episodes:,} episodes, {written.steps:,} steps, "
        f"mean return {format_number(written.mean_return)}, of {run}, checkpoint {checkpoint}"
    )
    if cut := sum(length == limit for length in lengths):
        print(f"  {cut:,} episodes were truncated after {limit:,} steps (--max-steps)")
    print(f"  train    {_training_command(config, out, written.episodes)}")
    return 0


def _training_command(config: RunConfig, out: str, episodes: int) -> str:
    """Return a command that trains on the dataset in the same environment."""
    from pgx.config.compose import compose
    from pgx.config.stored import pgx_command

    overrides = ["algo=off_policy_reinforce", override("env", config.env.id)]
    kwargs = config.env.kwargs
    overrides += [override(f"env.kwargs.{key}", value) for key, value in kwargs.items()]
    defaults = compose(["algo=off_policy_reinforce"])
    if episodes < defaults.runner.episodes:
        overrides.append(override("runner.episodes", episodes))
    return pgx_command("train", *overrides, override("dataset", out))


def _play(
    collector: RolloutCollector, agent: Agent, count: int, max_steps: int, on_step: ProgressCallback
) -> Iterator[RecordedEpisode]:
    """Yield `count` episodes, one from each environment in every round.

    A last round with more episodes than needed keeps those of the first environments. Keeping the episodes that end
    first would favour short ones. Episodes are truncated after `max_steps` steps.
    """
    import numpy as np

    from pgx.rollouts.collector import RolloutBuffer
    from pgx.rollouts.dataset_files import split_episodes

    done, steps, rounds = 0, 0, 0
    while done < count:
        collector.begin(rounds)
        rounds += 1
        buffer = RolloutBuffer(capacity=1024)
        running = np.ones(collector.envs.num_envs, dtype=np.bool_)
        while running.any():
            collector.advance(agent, buffer, steps=1)
            buffer["valid"][-1] &= running
            if buffer.steps == max_steps:  # all episodes of a round start together
                buffer["truncated"][-1] |= running
            running &= ~(buffer["terminated"][-1] | buffer["truncated"][-1])
            steps += len(running)
            on_step(done, steps)
        episodes = split_episodes(collector.rollout(buffer))[: count - done]
        collector.episodes.clear()
        done += len(episodes)
        yield from episodes


def _metadata(config: RunConfig, checkpoint: str, seed: int, spec: Any) -> dict[str, Any]:
    """Return the metadata of the dataset for Minari's metadata.json: the origin of the episodes."""
    metadata = {
        "algorithm_name": config.names.algo,
        "description": (
            f"Sampled actions of a pgx run on {config.env.id} (run seed {config.seed}, checkpoint {checkpoint}, "
            f"collection seed {seed}); "
            "infos/log_prob: log mu(a|s), nats, of actions as sampled, before clipping to their bounds."
        ),
    }
    try:
        return metadata | {"env_spec": spec.to_json()}
    except (AttributeError, TypeError, ValueError):  # a spec without JSON, e.g. of an environment class
        return metadata
