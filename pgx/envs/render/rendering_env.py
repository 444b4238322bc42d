"""An environment that is filmed: a vector of one, whose moments are shown to somebody.

Frames as they are shown: with what the episode has earned so far written on them.
"""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pgx.core.errors import RunError, UserError
from pgx.core.formatting import shown
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.pickling import pickle_env
from pgx.envs.render.opengl import OpenGL, choose_opengl
from pgx.envs.render.worker import (
    RenderFailure,
    RenderReady,
    RenderSettings,
    ResetResult,
    RGBImage,
    StepResult,
)
from pgx.envs.vector import Array, Step


class Frame(NamedTuple):
    """A moment of an episode."""

    image: RGBImage
    episode: int  # from 0
    step: int  # steps of the episode before this moment
    episode_return: float  # raw, of these steps


class RenderingEnv:
    """A VectorEnv of one environment, stepped and drawn in a process of its own.

    Args:
        env_id: as Gymnasium takes it.
        kwargs: of the environment's constructor.
        size: width and height of the pictures in pixels, None for either as the environment has it; None: both.
        timeout: seconds in which the environment is made, reset or stepped, and drawn.
        limit: frames a second that are drawn at most: every n-th, so that they play in real time, and the last.
        seconds: of an episode's beginning that are drawn; None: all of it.

    Raises:
        UserError: the environment cannot be made here, or not be drawn; it says what is missing.
        RunError: it raised, or its process died or did not answer in time.
    """

    backend = "gymnasium"
    num_envs = 1

    def __init__(
        self,
        env_id: str,
        kwargs: dict[str, Any],
        size: tuple[int | None, int | None] | None,
        timeout: float,
        max_fps: int,
        seconds: float | None,
    ) -> None:
        self.id = env_id
        self.action_mask: NDArray[np.bool_] | None = None
        self.success: NDArray[np.int8] | None = None
        self._timeout = timeout
        self.on_frame: Callable[[Frame], None] = _ignore_frame  # set from outside
        self._episode, self._step, self._return, self._resetting = -1, 0, 0.0, False
        asked = {} if size is None else dict(zip(("width", "height"), size, strict=True))
        wanted = {key: pixels for key, pixels in asked.items() if pixels is not None}
        drawn = {"render_mode": "rgb_array"} | wanted
        try:
            pickled_env = pickle_env(env_id, kwargs | drawn)
        except ValueError as error:
            raise UserError(str(error)) from error
        gl = choose_opengl()
        self._worker = WorkerProcess("pgx.envs.render.worker:serve", f"{env_id}: the process that films it")
        self._end = weakref.finalize(self, stop, [self._worker], _request_close)
        self._worker.send(RenderSettings(env_id, pickled_env, gl.platform, max_fps, seconds))
        try:
            ready = self._receive()
            if isinstance(ready, RenderFailure):
                raise self._render_error(ready, gl, bool(wanted))
        except BaseException:
            self.close()
            raise
        assert isinstance(ready, RenderReady)
        self.obs_spec, self.action_spec, self.fps = ready.obs, ready.action, ready.fps
        self.drawn = ready.drawn

    def _render_error(self, broken: RenderFailure, gl: OpenGL, sized: bool) -> UserError:
        said = broken.problem
        if "pygame is not installed" in said:
            return UserError(
                f"env.id={self.id}: drawing it needs the package pygame; pip install 'pgx-rl[video]'"
            )
        if broken.draws_with_opengl:
            said += f"; {gl.problem}"
        if sized and "unexpected keyword" in said:
            said += "; --width and --height are for environments that take them, as MuJoCo's do"
        error = UserError(said)
        error.__cause__ = WorkerTraceback(broken.traceback) if broken.traceback else None
        return error

    def reset(self, seed: int) -> Array:
        self._worker.send(seed)
        begun = self._answer()
        assert isinstance(begun, ResetResult)
        self._episode, self._step, self._return, self._resetting = self._episode + 1, 0, 0.0, False
        self.action_mask = begun.mask
        self.on_frame(Frame(begun.image, self._episode, 0, 0.0))
        return begun.obs

    def send(self, action: Array) -> None:
        self._worker.send(action)

    def receive(self) -> Step:
        moved = self._answer()
        assert isinstance(moved, StepResult)
        step, self.success, self.action_mask = moved.step, moved.success, moved.mask
        if self._resetting:
            self._episode, self._step, self._return = self._episode + 1, 0, 0.0
        else:
            self._step, self._return = self._step + 1, self._return + float(step.reward[0])
        self._resetting = bool(step.terminated[0] or step.truncated[0])
        if moved.image is not None:
            self.on_frame(Frame(moved.image, self._episode, self._step, self._return))
        return step

    def _answer(self) -> Any:
        """Return the answer to an order."""
        answer = self._receive()
        if isinstance(answer, RenderFailure):
            cause = WorkerTraceback(answer.traceback) if answer.traceback else None
            raise RunError(answer.problem) from cause
        return answer

    def _receive(self) -> Any:
        """Return the next message of the process."""
        self._worker.wait(self._timeout)
        return self._worker.receive()

    def close(self) -> None:
        self._end()


def _ignore_frame(frame: Frame) -> None:
    """Before somebody is there to see it."""


def _request_close(worker: WorkerProcess) -> None:
    worker.send(None)


_MARGIN = 0.02  # of the height
_LETTERS = 0.045  # of the height
_SMALLEST = 9  # pixels of letters that can be read


def add_caption(frame: Frame) -> RGBImage:
    """A frame with its return and its step in the corner."""
    image = Image.fromarray(frame.image)
    size = max(_SMALLEST, round(_LETTERS * image.height))
    margin = max(2, round(_MARGIN * image.height))
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(size)
    text = f"return {shown(frame.episode_return)}   step {frame.step:,}"
    left, top, right, bottom = draw.textbbox((2 * margin, 2 * margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 150))
    draw.text((2 * margin, 2 * margin), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
