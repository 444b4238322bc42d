"""Videos of a trained agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pgx.api.evaluation import Mode, choose_actions
from pgx.config.run_config import RunConfig
from pgx.core.agent import State
from pgx.core.errors import UserError
from pgx.core.seeding import derive
from pgx.envs.render.rendering_env import Frame, RenderingEnv
from pgx.envs.render.videos import GIF, MAX_FPS, MP4, VideoFormat, add_caption, format_of
from pgx.rollouts.sources import Episode
from pgx.runs.checkpoints import write_atomically
from pgx.training.build import load_agent_for
from pgx.training.evaluation import never_stop, play, show_progress


@dataclass(frozen=True)
class Recording:
    """Video file and the episodes that it shows.

    Args:
        path: of the file.
        frames: number of frames.
        fps: frames per second.
        episodes: with their returns in the environment's own reward: the rendered environment is not shaped.
    """

    path: Path
    frames: int
    fps: float
    episodes: Sequence[Episode]


def record_episodes(
    config: RunConfig,
    state: State,
    path: Path,
    episodes: int,
    mode: Mode,
    fps: int | None,
    size: tuple[int | None, int | None] | None,
    max_steps: int | None,
    seed: int,
) -> Recording:
    """Play episodes and write a video, which is complete or absent.

    Args:
        config: of the run.
        state: of the checkpoint that plays.
        path: file to write, .mp4 or .gif.
        episodes: number of episodes, >= 1.
        mode: how actions are chosen.
        fps: maximum frames per second; None: 60 for MP4, 25 for GIF.
        size: width and height in pixels, None for the environment's default; None: both default.
        max_steps: largest length of an episode; None: `trainer.eval_max_steps`.
        seed: of the environment and of sampled actions.

    Raises:
        UserError: the file cannot be written, or the environment cannot be rendered.
    """
    video_format = format_of(path)
    refuse_missing_folder(path)
    camera = RenderingEnv(
        config.env.id,
        dict(config.env.kwargs),
        size,
        config.env.worker_timeout,
        fps or MAX_FPS[video_format],
        seconds=None,
    )
    try:
        agent = load_agent_for(config, state, camera.obs_spec, camera.action_spec)
        act = choose_actions(agent, mode, seed, config.device)
        limit = max_steps or config.trainer.eval_max_steps

        def play_episodes() -> list[Episode]:
            with show_progress(episodes) as on_step:
                start, device = derive(seed, "evaluation"), torch.device(config.device)
                return play(agent, act, camera, episodes, start, device, limit, never_stop, on_step)

        played, frames = _write(camera, play_episodes, path, video_format)
    finally:
        camera.close()
    return Recording(path, frames, camera.fps, played)


def refuse_missing_folder(path: Path) -> None:
    """Check that the folder of a file to write exists.

    Raises:
        UserError: it does not.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {path.parent} does not exist; create it")


def _write(
    camera: RenderingEnv, play_all: Callable[[], list[Episode]], path: Path, video_format: VideoFormat
) -> tuple[list[Episode], int]:
    """Record a video; return the episodes and the number of frames."""
    part = path.with_name(f".{path.name}.part")
    video = MP4(part, camera.fps) if video_format == "mp4" else GIF(camera.fps, None)
    frames = 0

    def show(frame: Frame) -> None:
        nonlocal frames
        video.add(add_caption(frame))
        frames += 1

    camera.on_frame = show
    try:
        played = play_all()
        if isinstance(video, MP4):
            video.finish()
            part.replace(path)
        else:
            write_atomically(path, video.finish())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return played, frames
