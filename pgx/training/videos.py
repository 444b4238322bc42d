"""Videos of deterministic episodes during training (`trainer.record_every`)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from pgx.config.run_config import EnvConfig, TrainerConfig
from pgx.core.agent import Agent
from pgx.core.errors import RunError, UserError
from pgx.core.periodic import PeriodicTrigger
from pgx.core.seeding import derive
from pgx.envs.render.rendering_env import Frame, RenderingEnv
from pgx.envs.render.videos import GIF, MAX_FPS, add_caption
from pgx.runs.loggers import VideoClip
from pgx.runs.writer import Writer
from pgx.training.callbacks import TrainingState
from pgx.training.evaluation import ignore_progress, play


def record_video(
    agent: Agent,
    open_camera: Callable[[], RenderingEnv],
    width: int,
    seed: int,
    device: torch.device,
    max_steps: int,
    should_stop: Callable[[], bool],
) -> VideoClip:
    """Record a deterministic episode.

    Args:
        agent: agent that plays; a copy is used, since workers may change it meanwhile.
        open_camera: creates the rendering environment; it is closed after the episode.
        width: largest width of the video in pixels.
        seed: seed of the episode.
        device: device of the networks.
        max_steps: largest length of the episode.
        should_stop: called before each step; if it returns True, the video ends.

    Raises:
        RunError: rendering failed.
    """
    still = copy.deepcopy(agent)
    camera = open_camera()
    try:
        gif = GIF(camera.fps, width)

        def on_frame(frame: Frame) -> None:
            gif.add(add_caption(frame))

        camera.on_frame = on_frame
        # Steps beyond the rendered ones are not in the video.
        limit = max(1, int(min(max_steps, camera.rendered_steps)))
        play(still, still.act_greedily, camera, 1, seed, device, limit, should_stop, ignore_progress)
    finally:
        camera.close()
    return VideoClip(gif.finish(), *gif.size)


@dataclass(frozen=True)
class PeriodicVideo:
    """Callback that records a deterministic episode at multiples of `trainer.record_every` steps.

    If a video fails, a warning is printed and the run continues.

    Args:
        every: fires when a video is due.
        record: returns a video of the current agent, given the iteration (for the seed) and a function that returns
            whether to stop.
        records: writes the run's folder.
    """

    every: PeriodicTrigger
    record: Callable[[int, Callable[[], bool]], VideoClip]
    writer: Writer

    def on_iteration(self, state: TrainingState) -> None:
        """Record a video if one is due; drop it if the run is to stop meanwhile."""
        if not self.every.due(state.previous_step, state.step) or state.stop_requested():
            return
        try:
            clip = self.record(state.iteration, state.stop_requested)
            if not state.stop_requested():
                self.writer.write_video(state.step, clip)
        except RunError as error:
            self.writer.warn(f"no video at {state.step:,} steps: {error}")


def check_rendering(env: EnvConfig, training: TrainerConfig) -> None:
    """Check that the environment can be rendered, if `trainer.record_every` is set.

    Raises:
        UserError: it cannot be rendered on this machine.
    """
    if training.record_every is not None:
        try:
            _open_camera(env, training).close()
        except (UserError, RunError) as error:
            raise UserError(f"trainer.record_every={training.record_every}: {error}") from error


def _open_camera(env: EnvConfig, training: TrainerConfig) -> RenderingEnv:
    return RenderingEnv(env.id, env.kwargs, None, env.worker_timeout, MAX_FPS["gif"], training.record_seconds)


def periodic_video(
    agent: Agent, env: EnvConfig, training: TrainerConfig, seed: int, device: torch.device, writer: Writer
) -> PeriodicVideo:
    """Return a callback that records episodes, each in a new environment."""
    open_camera = partial(_open_camera, env, training)

    def record(iteration: int, should_stop: Callable[[], bool]) -> VideoClip:
        return record_video(
            agent,
            open_camera,
            training.record_width,
            derive(seed, "videos", iteration),
            device,
            training.eval_max_steps,
            should_stop,
        )

    return PeriodicVideo(PeriodicTrigger(training.record_every), record, writer)
