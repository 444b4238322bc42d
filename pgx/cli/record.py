"""`pgx record`: write a video of a trained agent."""

import argparse
from pathlib import Path

from pgx.cli.arguments import Command, add_checkpoint, add_max_steps, add_run, add_sampling, count
from pgx.core.text import format_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="video to write: .mp4 or .gif")
    parser.add_argument(
        "--episodes", metavar="N", type=count, default=1, help="number of episodes (default: 1)"
    )
    add_max_steps(parser)
    add_sampling(parser)
    parser.add_argument(
        "--fps", metavar="N", type=count, help="maximum frames per second (default: mp4 60, gif 25)"
    )
    parser.add_argument(
        "--width",
        metavar="N",
        type=count,
        help="width in pixels, for environments that support it, such as MuJoCo's",
    )
    parser.add_argument("--height", metavar="N", type=count, help="height in pixels, as --width")
    add_checkpoint(parser, "the environment and action sampling")


def run(options: argparse.Namespace) -> int:
    size = None if options.width is None and options.height is None else (options.width, options.height)
    return record(
        options.run,
        options.checkpoint,
        options.episodes,
        options.stochastic,
        options.out,
        options.fps,
        size,
        options.max_steps,
        options.seed,
        options.trust,
    )


COMMAND = Command(
    "record",
    "record a video of a trained run, e.g. pgx record RUN --out walker.mp4",
    "Record a video of episodes of a trained run; no screen is needed (docs/show.md).",
    add_arguments,
    run,
)


def record(
    run: str,
    checkpoint: str,
    episodes: int,
    stochastic: bool,
    out: str,
    fps: int | None,
    size: tuple[int | None, int | None] | None,
    max_steps: int | None,
    seed: int,
    trust: bool,
) -> int:
    """Play episodes and write the video; return the exit code."""
    from pgx.api.recording import record_episodes
    from pgx.api.run_folder import load_trusted_config
    from pgx.envs.render.videos import format_of
    from pgx.runs.checkpoints import Checkpoints

    format_of(Path(out))  # fails before the run is read
    config = load_trusted_config(Path(run), trust)
    video = record_episodes(
        config,
        Checkpoints(Path(run)).load(checkpoint),
        Path(out),
        episodes,
        "stochastic" if stochastic else "deterministic",
        fps,
        size,
        max_steps,
        seed,
    )
    played = video.episodes
    returns = ", ".join(format_number(episode.episode_return) for episode in played)
    print(
        f"{out}: {video.frames:,} frames, {video.frames / video.fps:,.1f} s at {video.fps:.3g} frames per second"
    )
    # The video uses a separate environment, without a shaped reward.
    is_shaped = config.reward.is_shaped
    if cut := [episode for episode in played if episode.cut]:
        print(f"  {len(cut)} of {episodes} episodes were cut after {cut[0].length:,} steps (--max-steps)")
    which = "return in the environment's own reward" if is_shaped else "return"
    print(f"  {run}, checkpoint {checkpoint}; {which} {returns}")
    return 0
