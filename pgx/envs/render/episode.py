"""One episode of an agent that is learning, filmed for TensorBoard."""

import copy
from collections.abc import Callable

import torch

from pgx.core.agent import Agent
from pgx.envs.render.camera import Camera, Frame
from pgx.envs.render.pictures import captioned
from pgx.envs.render.videos import GIF
from pgx.runs.loggers import Clip
from pgx.training.evaluation import play, unwatched


def clip_of(
    agent: Agent,
    open_camera: Callable[[], Camera],
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

        def show(frame: Frame) -> None:
            gif.add(captioned(frame))

        camera.show = show
        # What comes after the steps that are drawn is not in the clip.
        limit = max(1, int(min(max_steps, camera.drawn)))
        play(still, still.act_greedily, camera, 1, seed, device, limit, should_stop, unwatched)
    finally:
        camera.close()
    return Clip(gif.finish(), *gif.size)
