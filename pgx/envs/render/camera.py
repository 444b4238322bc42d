"""An environment that is filmed: a vector of one, whose moments are shown to somebody.

Frames as they are shown: with what the episode has earned so far written on them.
"""

import os
import select
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pgx.core.errors import RunError, UserError
from pgx.core.formatting import shown
from pgx.distributed.child_process import LOOK, Process, WorkerTraceback, ending, reap, start
from pgx.distributed.stuck import hung
from pgx.envs.recipe import pack
from pgx.envs.render import scene
from pgx.envs.render.scene import Begun, Broken, Moved, Picture, Scene, Set
from pgx.envs.vector import Array, Step


class Frame(NamedTuple):
    """A moment of an episode."""

    picture: Picture
    episode: int  # from 0
    step: int  # steps of the episode before this moment
    episode_return: float  # raw, of these steps


class Camera:
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
        limit: int,
        seconds: float | None,
    ) -> None:
        self.id = env_id
        self.action_mask: NDArray[np.bool_] | None = None
        self.success: NDArray[np.int8] | None = None
        self._timeout = timeout
        self.show: Callable[[Frame], None] = _to_nobody  # set from outside
        self._episode, self._step, self._return, self._resetting = -1, 0, 0.0, False
        asked = {} if size is None else dict(zip(("width", "height"), size, strict=True))
        wanted = {key: pixels for key, pixels in asked.items() if pixels is not None}
        drawn = {"render_mode": "rgb_array"} | wanted
        try:
            recipe = pack(env_id, kwargs | drawn)
        except ValueError as error:
            raise UserError(str(error)) from error
        gl = scene.choose()
        (theirs, lifeline), (self._shown, shows) = os.pipe(), os.pipe()
        self._process, self._channel = start("pgx.envs.render.scene", [theirs, shows])
        self._end = weakref.finalize(
            self, _end, self._process, self._channel, [lifeline, self._shown], os.getpid()
        )
        os.close(theirs)
        os.close(shows)
        self._tell(Scene(env_id, recipe, gl.platform, limit, seconds))
        try:
            ready = self._hear()
            if isinstance(ready, Broken):
                raise self._cannot_be_filmed(ready, gl, bool(wanted))
        except BaseException:
            self.close()
            raise
        assert isinstance(ready, Set)
        self.obs_spec, self.action_spec, self.fps = ready.obs, ready.action, ready.fps
        self.drawn = ready.drawn

    def _cannot_be_filmed(self, broken: Broken, gl: scene.OpenGL, sized: bool) -> UserError:
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
        self._tell(seed)
        begun = self._heard()
        assert isinstance(begun, Begun)
        self._episode, self._step, self._return, self._resetting = self._episode + 1, 0, 0.0, False
        self.action_mask = begun.mask
        self.show(Frame(begun.picture, self._episode, 0, 0.0))
        return begun.obs

    def send(self, action: Array) -> None:
        self._tell(action)

    def receive(self) -> Step:
        moved = self._heard()
        assert isinstance(moved, Moved)
        step, self.success, self.action_mask = moved.step, moved.success, moved.mask
        if self._resetting:
            self._episode, self._step, self._return = self._episode + 1, 0, 0.0
        else:
            self._step, self._return = self._step + 1, self._return + float(step.reward[0])
        self._resetting = bool(step.terminated[0] or step.truncated[0])
        if moved.picture is not None:
            self.show(Frame(moved.picture, self._episode, self._step, self._return))
        return step

    def _tell(self, order: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever waits for the answer notices
            self._channel.send(order)

    def _heard(self) -> Any:
        """The answer to an order."""
        answer = self._hear()
        if isinstance(answer, Broken):
            cause = WorkerTraceback(answer.traceback) if answer.traceback else None
            raise RunError(answer.problem) from cause
        return answer

    def _hear(self) -> Any:
        """What the process says next. Time is counted in looks, as in `WorkerProcess.wait`."""
        answers = select.poll()
        answers.register(self._channel.fileno(), select.POLLIN)
        waited, look = 0.0, min(LOOK, self._timeout)
        while not answers.poll(look * 1000):
            waited += look
            if waited >= self._timeout:
                what = f"{self.id}: the process that films it has not answered"
                raise hung(self._process, self._shown, what, self._timeout)
        try:
            return self._channel.recv()
        except (EOFError, ConnectionResetError):
            raise RunError(f"{self.id}: the process that films it {ending(self._process)}") from None

    def close(self) -> None:
        self._end()


def _to_nobody(frame: Frame) -> None:
    """Before somebody is there to see it."""


def _end(process: Process, channel: "Connection[Any, Any]", descriptors: list[int], owner: int) -> None:
    """End the process; nothing happens in a fork of the one that started it."""
    if os.getpid() != owner:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        channel.send(None)
    reap([process])
    channel.close()
    for descriptor in descriptors:
        os.close(descriptor)


_MARGIN = 0.02  # of the height
_LETTERS = 0.045  # of the height
_SMALLEST = 9  # pixels of letters that can be read


def captioned(frame: Frame) -> Picture:
    """A frame with its return and its step in the corner."""
    image = Image.fromarray(frame.picture)
    size = max(_SMALLEST, round(_LETTERS * image.height))
    margin = max(2, round(_MARGIN * image.height))
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(size)
    text = f"return {shown(frame.episode_return)}   step {frame.step:,}"
    left, top, right, bottom = draw.textbbox((2 * margin, 2 * margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 150))
    draw.text((2 * margin, 2 * margin), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
