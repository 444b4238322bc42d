"""`pgx collect`: write episodes of a trained agent, with sampled actions, as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import Command, add_checkpoint, add_max_steps, add_run, count
from pgx.core.errors import UserError
from pgx.core.text import override, shown

if TYPE_CHECKING:
    from pgx.config.run_config import RunConfig
    from pgx.core.agent import Agent
    from pgx.rollouts.collector import RolloutCollector
    from pgx.rollouts.dataset_files import RecordedEpisode
    from pgx.training.evaluation import OnStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "outputs/CartPole-v1/ppo/2026-...")
    parser.add_argument("--episodes", type=count, required=True, help="number of episodes")
    parser.add_argument(
        "--out", metavar="PATH", required=True, help="folder of the dataset, which is created"
    )
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
    "Write sampled episodes of a trained run as a dataset.",
    add_arguments,
    run,
)


def collect(
    run: str, checkpoint: str, count: int, max_steps: int | None, out: str, seed: int, trust: bool
) -> int:
    """Play episodes and write the dataset; return the exit code."""
    import torch

    from pgx.cli.run_folder import load_trusted_config
    from pgx.compiler import Eager
    from pgx.core.seeding import derive
    from pgx.envs.gymnasium_backend import make_single
    from pgx.envs.rewards.spec import NO_SHAPING
    from pgx.rollouts.collector import RolloutCollector
    from pgx.rollouts.dataset_files import write_dataset
    from pgx.training.build import load_agent
    from pgx.training.evaluation import live_progress

    cfg = load_trusted_config(Path(run), trust)
    if cfg.values["policy"].get("continuous") == "squashed_gaussian":
        raise UserError(
            f"{run}: policy.continuous=squashed_gaussian: cannot be collected, because an action at a bound of the "
            "environment does not determine the sampled action; use a run with policy.continuous=gaussian"
        )
    # The dataset has the environment's own reward, also if the run was trained on a shaped one.
    agent, envs, device = load_agent(replace(cfg, reward=NO_SHAPING), Path(run), checkpoint, max_envs=count)
    # A separate random stream, so that episodes do not start like those that the agent was trained on.
    stream = derive(seed, "collection")
    collector = RolloutCollector(envs, None, stream, 0, torch.device(device), Eager())
    limit = max_steps or cfg.trainer.eval_max_steps
    single = make_single(envs.id, dict(cfg.env.kwargs))
    lengths: list[int] = []

    def recorded(on_step: OnStep) -> Iterator[RecordedEpisode]:
        for episode in _play(collector, agent, count, limit, on_step):
            lengths.append(len(episode))
            yield episode

    try:
        with live_progress(count) as on_step:
            written = write_dataset(
                Path(out),
                recorded(on_step),
                single.observation_space,
                single.action_space,
                _metadata(cfg, checkpoint, seed, single.spec),
            )
    finally:
        single.close()
        envs.close()
    print(
        f"{out}: {written.episodes:,} episodes, {written.steps:,} steps, mean return {shown(written.mean_return)}, "
        f"of {run}, checkpoint {checkpoint}"
    )
    if cut := sum(length == limit for length in lengths):
        print(f"  {cut:,} episodes were truncated after {limit:,} steps (--max-steps)")
    print(f"  train    {_training_command(cfg, out, written.episodes)}")
    return 0


def _training_command(cfg: RunConfig, out: str, episodes: int) -> str:
    """Return a command that trains on the dataset, with the same environment and no more episodes than it has."""
    from pgx.config.compose import compose
    from pgx.config.stored import command

    chosen = ["algo=off_policy_reinforce", override("env", cfg.env.id)]
    kwargs = cfg.env.kwargs
    chosen += [override(f"env.kwargs.{key}", value) for key, value in kwargs.items()]
    defaults = compose(["algo=off_policy_reinforce"])
    if episodes < defaults.runner.episodes:
        chosen.append(override("runner.episodes", episodes))
    return command("train", *chosen, override("dataset", out))


def _play(
    collector: RolloutCollector, agent: Agent, count: int, max_steps: int, on_step: OnStep
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
        left = np.ones(collector.envs.num_envs, dtype=np.bool_)
        while left.any():
            collector.advance(agent, buffer, steps=1)
            buffer["valid"][-1] &= left
            if buffer.steps == max_steps:  # all began together
                buffer["truncated"][-1] |= left
            left &= ~(buffer["terminated"][-1] | buffer["truncated"][-1])
            steps += len(left)
            on_step(done, steps)
        played = split_episodes(collector.rollout(buffer))[: count - done]
        collector.episodes.clear()
        done += len(played)
        yield from played


def _metadata(cfg: RunConfig, checkpoint: str, seed: int, spec: Any) -> dict[str, Any]:
    """Return the origin of the episodes, for Minari's metadata.json."""
    metadata = {
        "algorithm_name": cfg.names.algo,
        "description": (
            f"Sampled actions of a pgx run on {cfg.env.id} (run seed {cfg.seed}, checkpoint {checkpoint}, collection "
            f"seed {seed}); infos/log_prob: log mu(a|s), nats, of actions as sampled, before clipping to their bounds."
        ),
    }
    try:
        return metadata | {"env_spec": spec.to_json()}
    except (AttributeError, TypeError, ValueError):  # a spec without JSON, e.g. of an environment class
        return metadata
