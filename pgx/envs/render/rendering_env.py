"""Vector environment of one environment that is stepped and rendered in a child process.

OpenGL and its drivers are loaded in the child alone, so a crash of a driver does not stop the caller. The child imports
this module, which therefore does not import torch.
"""

import ctypes.util
import math
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.gymnasium_backend import GymnasiumVector, make_single
from pgx.envs.registry import pickle_env, unpickle_env
from pgx.envs.vector import Array, Step

MUJOCO_GL = "MUJOCO_GL"  # what MuJoCo and Gymnasium read
TIMEOUT = 60.0  # seconds for a context to be made; it takes less than one
PLATFORMS = ("egl", "osmesa")  # EGL first: it takes a graphics card where there is one
_DECIDE = ("EGL", "__EGL", "LIBGL", "GALLIUM", "MESA", "PYOPENGL", "MUJOCO", "LD_", "CUDA", "NVIDIA")
_PROBE = "from mujoco.{platform} import GLContext; context = GLContext(8, 8); context.make_current()"
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}


@dataclass(frozen=True)
class OpenGL:
    """What MUJOCO_GL shall be for a process that draws; None: nothing works, and what would help, in words."""

    platform: str | None
    problem: str


def choose_opengl() -> OpenGL:
    """What the user says in MUJOCO_GL, or else the first that makes a context.

    In a process each: which OpenGL a process has is decided once, and a broken driver can take it down.
    """
    said = os.environ.get(MUJOCO_GL)
    if said:
        return OpenGL(said, f"{MUJOCO_GL}={said} is set, and does not work here; unset, pgx chooses")
    for platform in PLATFORMS:
        if _works(platform, _of_opengl()):
            return OpenGL(
                platform, f"{MUJOCO_GL}={platform} was chosen, and does not work for this environment"
            )
    return OpenGL(None, f"MuJoCo has no OpenGL to draw with: {missing_packages()}")


def _of_opengl() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that decide which OpenGL there is."""
    return tuple((key, value) for key, value in sorted(os.environ.items()) if key.startswith(_DECIDE))


@cache
def _works(platform: str, variables: tuple[tuple[str, str], ...]) -> bool:
    """Try a platform, once in a process: an attempt takes a second, and every video of a run asks.

    Args:
        platform: egl or osmesa.
        variables: that decide what works, so that another answer is looked for where they change.
    """
    command = [sys.executable, "-P", "-c", _PROBE.format(platform=platform)]
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {MUJOCO_GL: platform}
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def missing_packages() -> str:
    """Which system package would bring what is not there."""
    found = {platform: ctypes.util.find_library(name) is not None for platform, name in _LIBRARIES.items()}
    what = "libEGL is there, and no driver for it" if found["egl"] else "there is no libEGL"
    what += "; libOSMesa fails" if found["osmesa"] else " and no libOSMesa"
    either = " (or apt-get install ".join(_PACKAGES[platform] for platform in PLATFORMS)
    return f"{what}; apt-get install {either})"


DEFAULT_FPS = 30.0  # frames a second where an environment does not say
RGBImage = NDArray[np.uint8]  # [height, width, 3]


@dataclass(frozen=True)
class RenderSettings:
    """What the process is told once."""

    env_id: str
    pickled_env: bytes  # from `pickle_env`, with what the environment is to draw like among its keywords
    platform: str | None  # of OpenGL, for MUJOCO_GL
    max_fps: int  # frames a second that are drawn at most
    seconds: float | None  # of an episode's beginning that are drawn; None: all


@dataclass(frozen=True)
class RenderReady:
    """The environment stands, and can be drawn."""

    obs: ObsSpec
    action: ActionSpec
    fps: float  # frames a second at which what is drawn plays as fast as it is
    drawn: float  # steps of an episode's beginning that are drawn; infinite: all


@dataclass(frozen=True)
class RenderFailure:
    """What went wrong, and where an environment raised; empty: none did."""

    problem: str
    traceback: str
    draws_with_opengl: bool


class ResetResult(NamedTuple):
    """An episode's first moment."""

    obs: Array
    mask: NDArray[np.bool_] | None
    image: RGBImage  # of its beginning


class StepResult(NamedTuple):
    """A step, and what it led to looks like."""

    step: Step
    success: NDArray[np.int8] | None
    mask: NDArray[np.bool_] | None
    image: RGBImage | None  # None: this one is left out


def serve(channel: "Connection[Any, Any]") -> None:
    """Make the environment and do as the parent says, until it is gone.

    Args:
        channel: a seed begins an episode, actions [1, ...] are a step; None ends it.
    """
    _configure_headless()
    scene: RenderSettings = channel.recv()
    if scene.platform is not None:  # before anything imports MuJoCo
        os.environ[MUJOCO_GL] = scene.platform
    try:
        envs = GymnasiumVector(scene.env_id, 1, unpickle_env(scene.env_id, scene.pickled_env), first=0)
        track_robot(envs.first)
        envs.reset(seed=0)
        _render(envs)
    except (RunError, UserError) as error:
        refused = _render_problem(scene)
        channel.send(_render_failure(error) if refused is None else RenderFailure(refused, "", False))
        return
    fps = _render_fps(envs.first.metadata)
    every = max(1, math.ceil(fps / scene.max_fps - 1e-9))
    drawn = math.inf if scene.seconds is None else scene.seconds * fps
    channel.send(RenderReady(envs.obs_spec, envs.action_spec, fps / every, drawn))
    _run_commands(channel, envs, every, drawn)
    envs.close()


def _render_fps(metadata: object) -> float:
    """Return `render_fps` where an environment's metadata has one that is a number > 0, else UNSAID."""
    said = metadata.get("render_fps") if isinstance(metadata, Mapping) else None
    with suppress(TypeError, ValueError):
        fps = float(said)  # type: ignore[arg-type]  # whatever it says
        if 0 < fps < math.inf:
            return fps
    return DEFAULT_FPS


def _configure_headless() -> None:
    """Keep SDL and Wayland, which pygame and EGL load, from looking for a screen and printing that there is none."""
    for key in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(key, "dummy")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or not Path(runtime).is_dir():
        os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    warnings.filterwarnings("ignore", module="glfw")  # the error at hand says more
    warnings.filterwarnings("ignore", message=".*render_mode")  # `_render_problem` says it in one line


def _render_problem(scene: RenderSettings) -> str | None:
    """Say which ways of drawing an environment has, where pictures are not among them; None: they are, or who knows."""
    kwargs = {
        key: value
        for key, value in unpickle_env(scene.env_id, scene.pickled_env).items()
        if key != "render_mode"
    }
    try:
        with closing(make_single(scene.env_id, kwargs)) as env:
            modes = (env.metadata or {}).get("render_modes") or []
    except Exception:  # it cannot be made at all: the error at hand says why
        return None
    if "rgb_array" in modes:
        return None
    return (
        f"env.id={scene.env_id}: cannot be filmed: its metadata['render_modes'] is {list(modes)}; "
        "a video needs 'rgb_array' among them, and a render() that returns images"
    )


def _run_commands(channel: "Connection[Any, Any]", envs: GymnasiumVector, every: int, drawn: float) -> None:
    """Play, drawing of the first `drawn` steps of each episode the every-th, and its end."""
    step, ended = 0, False
    while (order := channel.recv()) is not None:
        try:
            if isinstance(order, int):
                obs, step, ended = envs.reset(order), 0, False
                channel.send(ResetResult(obs, envs.action_mask, _render(envs)))
            else:
                envs.send(order)
                took = envs.receive()
                step = 0 if ended else step + 1
                ended = bool(took.terminated[0] or took.truncated[0])
                shown = step <= drawn and (ended or step % every == 0)
                channel.send(
                    StepResult(took, envs.success, envs.action_mask, _render(envs) if shown else None)
                )
        except RunError as error:
            channel.send(_render_failure(error))


def track_robot(env: "gymnasium.Env[Any, Any]") -> None:
    """Have the camera go with a robot of MuJoCo's: Gymnasium 1.4 leaves it behind at the origin.

    Only where the model has a camera for it, and nobody chose another.
    """
    bare: Any = env.unwrapped
    chosen = {"camera_id", "camera_name"} & (env.spec.kwargs if env.spec else {}).keys()
    if chosen or not hasattr(bare, "mujoco_renderer"):
        return
    import mujoco

    number = mujoco.mj_name2id(bare.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if number >= 0:
        bare.mujoco_renderer.camera_id = number


def _render(envs: GymnasiumVector) -> RGBImage:
    """What the environment looks like now."""
    try:
        drawn = np.asarray(envs.first.render())
        if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[2] != 3 or not drawn.size:
            raise TypeError(f"expected an image uint8 [height, width, 3], got {drawn.dtype} {drawn.shape}")
    except Exception as error:
        raise RunError(f"{envs.id}: render() raised {type(error).__name__}: {error}") from error
    return drawn


def _render_failure(error: RunError | UserError) -> RenderFailure:
    cause = error.__cause__
    where = "".join(traceback.format_exception(cause)) if cause else ""
    # Where there is no OpenGL even the import may fail.
    return RenderFailure(str(error), where, "mujoco" in sys.modules or "mujoco" in where)


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
        self._worker = WorkerProcess(
            "pgx.envs.render.rendering_env:serve", f"{env_id}: the process that films it"
        )
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
