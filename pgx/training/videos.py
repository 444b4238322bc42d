"""Videos of deterministic episodes during training (`trainer.record_every`)."""

import copy
from collections.abc import Callable
from functools import partial

import torch

from pgx.config.run_config import EnvConfig, TrainerConfig
from pgx.core.agent import Agent
from pgx.core.errors import RunError, UserError
from pgx.core.periodic import PeriodicTrigger
from pgx.core.seeding import derive
from pgx.envs.render.rendering_env import Frame, RenderingEnv
from pgx.envs.render.videos import GIF, MAX_FPS, add_caption
from pgx.runs.loggers import Clip
from pgx.runs.writer import Records
from pgx.training.evaluation import play, unwatched


def clip_of(
    agent: Agent,
    open_camera: Callable[[], RenderingEnv],
    width: int,
    seed: int,
    device: torch.device,
    max_steps: int,
    should_stop: Callable[[], bool],
) -> Clip:
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
        play(still, still.act_greedily, camera, 1, seed, device, limit, should_stop, unwatched)
    finally:
        camera.close()
    return Clip(gif.finish(), *gif.size)


class Filming:
    """Puts a video into a run's records every so many environment steps; the run goes on without one that fails.

    Args:
        every: environment steps between videos; None for none.
        record: a video of the agent as it is now, given the iteration for its seed, and what asks it to stop.
    """

    def __init__(self, every: int | None, record: Callable[[int, Callable[[], bool]], Clip]) -> None:
        self._every = PeriodicTrigger(every)
        self._record = record

    def look(
        self, before: int, steps: int, iteration: int, records: Records, should_stop: Callable[[], bool]
    ) -> None:
        """Make one if it is due, after an iteration that went from `before` to `steps` environment steps.

        Once `should_stop` returns true, the video under way is dropped.
        """
        if not self._every.due(before, steps) or should_stop():
            return
        try:
            clip = self._record(iteration, should_stop)
            if not should_stop():
                records.film(steps, clip)
        except RunError as error:
            records.warn(f"no video at {steps:,} steps: {error}")


def refuse_unfilmable(env: EnvConfig, training: TrainerConfig) -> None:
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


def filming(
    agent: Agent, env: EnvConfig, training: TrainerConfig, seed: int, device: torch.device
) -> Filming:
    """Deterministic episodes, each filmed in an environment of its own."""
    open_camera = partial(_open_camera, env, training)

    def record(iteration: int, should_stop: Callable[[], bool]) -> Clip:
        return clip_of(
            agent,
            open_camera,
            training.record_width,
            derive(seed, "videos", iteration),
            device,
            training.eval_max_steps,
            should_stop,
        )

    return Filming(training.record_every, record)
