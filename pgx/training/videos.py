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
from pgx.runs.writer import RunWriter
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
    """Film a deterministic episode.

    Args:
        agent: who plays; workers may change it meanwhile, and the episode is of what it is now.
        open_camera: opens one for this episode; it is closed after it.
        width: pixels of the video at most.
        seed: of the episode.
        device: where the networks are.
        max_steps: of the episode, which is cut there.
        should_stop: asked before each step; once it returns true, the clip ends.

    Raises:
        RunError: it cannot be filmed any more.
    """
    still = copy.deepcopy(agent)
    camera = open_camera()
    try:
        gif = GIF(camera.fps, width)

        def on_frame(frame: Frame) -> None:
            gif.add(add_caption(frame))

        camera.on_frame = on_frame
        # What comes after the steps that are drawn is not in the clip.
        limit = max(1, int(min(max_steps, camera.rendered_steps)))
        play(still, still.act_greedily, camera, 1, seed, device, limit, should_stop, ignore_progress)
    finally:
        camera.close()
    return VideoClip(gif.finish(), *gif.size)


@dataclass(frozen=True)
class PeriodicVideo:
    """Callback that records a deterministic episode every so many environment steps (`trainer.record_every`).

    A video that fails is left out with a warning, and the run continues.

    Args:
        every: fires when a video is due.
        record: returns a video of the agent as it is now, given the iteration for its seed and a function that
            returns whether to stop.
        records: writes the run's folder.
    """

    every: PeriodicTrigger
    record: Callable[[int, Callable[[], bool]], VideoClip]
    writer: RunWriter

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
    """Find out whether there can be videos, if there are to be any, before the first is due.

    Raises:
        UserError: this environment cannot be filmed here.
    """
    if training.record_every is not None:
        try:
            _open_camera(env, training).close()
        except (UserError, RunError) as error:
            raise UserError(f"trainer.record_every={training.record_every}: {error}") from error


def _open_camera(env: EnvConfig, training: TrainerConfig) -> RenderingEnv:
    return RenderingEnv(env.id, env.kwargs, None, env.worker_timeout, MAX_FPS["gif"], training.record_seconds)


def periodic_video(
    agent: Agent, env: EnvConfig, training: TrainerConfig, seed: int, device: torch.device, writer: RunWriter
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
