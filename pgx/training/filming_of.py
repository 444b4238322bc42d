"""From a checked config to the videos of `trainer.record_every`."""

from collections.abc import Callable
from functools import partial

import torch

from pgx.config.sections import Env, TrainerSection
from pgx.core.agent import Agent
from pgx.core.errors import RunError, UserError
from pgx.core.seeding import derive
from pgx.envs.render.camera import Camera
from pgx.envs.render.episode import clip_of
from pgx.envs.render.videos import LIMITS
from pgx.runs.loggers import Clip
from pgx.training.filming import Filming


def refuse_unfilmable(env: Env, training: TrainerSection) -> None:
    """Find out whether there can be videos, if there are to be any, before the first is due.

    Raises:
        UserError: this environment cannot be filmed here.
    """
    if training.record_every is not None:
        try:
            _open_camera(env, training).close()
        except (UserError, RunError) as error:
            raise UserError(f"trainer.record_every={training.record_every}: {error}") from error


def _open_camera(env: Env, training: TrainerSection) -> Camera:
    return Camera(env.id, env.kwargs, None, env.worker_timeout, LIMITS["gif"], training.record_seconds)


def filming(agent: Agent, env: Env, training: TrainerSection, seed: int, device: torch.device) -> Filming:
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
