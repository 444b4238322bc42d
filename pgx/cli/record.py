"""`pgx record`: write a video of a trained agent."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pgx.cli.arguments import Command, add_checkpoint, add_max_steps, add_run, add_sampling, count
from pgx.core.errors import UserError
from pgx.core.text import format_number

if TYPE_CHECKING:
    from pgx.envs.render.rendering_env import Frame, RenderingEnv
    from pgx.envs.render.videos import VideoFormat
    from pgx.rollouts.sources import Episode


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
    import torch

    from pgx.cli.run_folder import load_trusted_config
    from pgx.core.seeding import derive, generator
    from pgx.envs.render.rendering_env import RenderingEnv
    from pgx.envs.render.videos import MAX_FPS, format_of
    from pgx.training.build import load_agent_for
    from pgx.training.evaluation import never_stop, play, show_progress

    path = Path(out)
    video_format = format_of(path)
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: folder {path.parent} does not exist; create it")
    config = load_trusted_config(Path(run), trust)
    env = RenderingEnv(
        config.env.id,
        dict(config.env.kwargs),
        size,
        config.env.worker_timeout,
        fps or MAX_FPS[video_format],
        seconds=None,
    )
    try:
        agent = load_agent_for(config, Path(run), checkpoint, env.obs_spec, env.action_spec)
        device = torch.device(config.device)
        act = agent.act_greedily
        if stochastic:
            act = partial(agent.act, generator=generator(seed, "evaluation actions", device))

        def play_episodes() -> list[Episode]:
            limit = max_steps or config.trainer.eval_max_steps
            with show_progress(episodes) as on_step:
                start = derive(seed, "evaluation")
                return play(agent, act, env, episodes, start, device, limit, never_stop, on_step)

        played, frames = _write(env, play_episodes, path, video_format)
    finally:
        env.close()
    returns = ", ".join(format_number(episode.episode_return) for episode in played)
    print(f"{out}: {frames:,} frames, {frames / env.fps:,.1f} s at {env.fps:.3g} frames per second")
    # The video uses a separate environment, without a shaped reward.
    is_shaped = config.reward.is_shaped
    if cut := [episode for episode in played if episode.cut]:
        print(f"  {len(cut)} of {episodes} episodes were cut after {cut[0].length:,} steps (--max-steps)")
    which = "return in the environment's own reward" if is_shaped else "return"
    print(f"  {run}, checkpoint {checkpoint}; {which} {returns}")
    return 0


def _write(
    env: RenderingEnv, play_all: Callable[[], list[Episode]], path: Path, video_format: VideoFormat
) -> tuple[list[Episode], int]:
    """Record a video, which is complete or absent; return the episodes and the number of frames."""
    from pgx.envs.render.videos import GIF, MP4, add_caption
    from pgx.runs.checkpoints import write_atomically

    part = path.with_name(f".{path.name}.part")
    video = MP4(part, env.fps) if video_format == "mp4" else GIF(env.fps, None)
    frames = 0

    def show(frame: Frame) -> None:
        nonlocal frames
        video.add(add_caption(frame))
        frames += 1

    env.on_frame = show
    try:
        played = play_all()
        if isinstance(video, MP4):
            video.finish()
            part.replace(path)
        else:
            write_atomically(path, video.finish())
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return played, frames
