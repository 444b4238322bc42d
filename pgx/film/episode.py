"""One episode of an agent that is learning, filmed for TensorBoard."""

import copy
from collections.abc import Callable

import torch

from pgx.evaluation import play
from pgx.film.camera import Camera, Frame
from pgx.film.pictures import captioned
from pgx.film.videos import GIF
from pgx.loggers import Clip
from pgx.types import Agent


def clip_of(
    agent: Agent, open_camera: Callable[[], Camera], width: int, seed: int, device: torch.device
) -> Clip:
    """A deterministic episode.

    Args:
        agent: who plays; workers may change it meanwhile, and the episode is of what it is now.
        open_camera: opens one for this episode; it is closed after it.
        width: pixels of the video at most.
        seed: of the episode.
        device: where the networks are.

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
        play(still, still.act_greedily, camera, 1, seed, device)
    finally:
        camera.close()
    return Clip(gif.finish(), *gif.size)
