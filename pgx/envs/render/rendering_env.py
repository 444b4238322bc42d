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

import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.distributed.worker_process import WorkerProcess, WorkerTraceback, stop
from pgx.envs.gymnasium_backend import GymEnv, GymnasiumVector, make_single
from pgx.envs.registry import pickle_env, unpickle_env
from pgx.envs.vector import AnyArray, Step

_MUJOCO_GL = "MUJOCO_GL"  # environment variable that MuJoCo and Gymnasium read
_PROBE_SECONDS = 60.0  # limit for creating an OpenGL context, which takes less than one
_PLATFORMS = ("egl", "osmesa")  # EGL first, because it uses a graphics card if there is one
_OPENGL_VARIABLES = (
    "EGL",
    "__EGL",
    "LIBGL",
    "GALLIUM",
    "MESA",
    "PYOPENGL",
    "MUJOCO",
    "LD_",
    "CUDA",
    "NVIDIA",
)
_PROBE = "from mujoco.{platform} import GLContext; context = GLContext(8, 8); context.make_current()"
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_SYSTEM_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}


@dataclass(frozen=True)
class OpenGLChoice:
    """OpenGL platform for a process that renders."""

    platform: str | None  # value of MUJOCO_GL; None: no platform works
    problem: str  # message and fix if rendering fails


def choose_opengl() -> OpenGLChoice:
    """Return the platform in MUJOCO_GL if it is set, else the first of EGL and OSMesa that creates a context.

    Each is tried in its own process, because a process chooses OpenGL once and a broken driver can crash it.
    """
    requested = os.environ.get(_MUJOCO_GL)
    if requested:
        return OpenGLChoice(
            requested, f"{_MUJOCO_GL}={requested}: does not work here; unset it and pgx chooses a platform"
        )
    for platform in _PLATFORMS:
        if _platform_works(platform, _opengl_variables()):
            return OpenGLChoice(
                platform, f"{_MUJOCO_GL}={platform} was chosen, and does not work for this environment"
            )
    return OpenGLChoice(None, f"MuJoCo has no OpenGL for rendering: {_missing_packages()}")


def _opengl_variables() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that select an OpenGL implementation."""
    return tuple(
        (key, value) for key, value in sorted(os.environ.items()) if key.startswith(_OPENGL_VARIABLES)
    )


@cache
def _platform_works(platform: str, variables: tuple[tuple[str, str], ...]) -> bool:
    """Try to create a context. The result is cached: a trial takes a second, and every video of a run needs it.

    Args:
        platform: egl or osmesa.
        variables: environment variables that the result depends on, as part of the cache key.
    """
    command = [sys.executable, "-P", "-c", _PROBE.format(platform=platform)]
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {_MUJOCO_GL: platform}
    try:
        return (
            subprocess.run(command, env=environment, capture_output=True, timeout=_PROBE_SECONDS).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def _missing_packages() -> str:
    """Return which libraries are missing or broken, and the system packages to install."""
    found = {platform: ctypes.util.find_library(name) is not None for platform, name in _LIBRARIES.items()}
    state = "libEGL is installed without a driver" if found["egl"] else "libEGL is missing"
    state += "; libOSMesa fails" if found["osmesa"] else "; libOSMesa is missing"
    either = " (or apt-get install ".join(_SYSTEM_PACKAGES[platform] for platform in _PLATFORMS)
    return f"{state}; apt-get install {either})"


_DEFAULT_FPS = 30.0  # of environments whose metadata has no render_fps
RGBImage = NDArray[np.uint8]  # [height, width, 3]


@dataclass(frozen=True)
class RenderSettings:
    """Settings of the child process."""

    env_id: str
    pickled_env: bytes  # from `pickle_env`; its keywords include render_mode and the size of images
    platform: str | None  # of OpenGL, for MUJOCO_GL
    max_fps: int  # maximum frames per second
    seconds: float | None  # rendered beginning of an episode; None: all of it


@dataclass(frozen=True)
class RenderReady:
    """Message: the environment was created and rendered."""

    obs: ObsSpec
    action: ActionSpec
    fps: float  # frames per second that play in real time
    rendered_steps: float  # of the beginning of an episode; infinite: all


@dataclass(frozen=True)
class RenderFailure:
    """Message: a call failed."""

    problem: str
    traceback: str  # of the environment's exception; empty: there was none
    uses_opengl: bool


class ResetResult(NamedTuple):
    """Message: the first observation of an episode."""

    obs: AnyArray
    mask: NDArray[np.bool_] | None
    image: RGBImage


class StepResult(NamedTuple):
    """Message: the result of a step."""

    step: Step
    success: NDArray[np.int8] | None
    mask: NDArray[np.bool_] | None
    image: RGBImage | None  # after the step; None: not rendered


def serve_rendering(channel: "Connection[Any, Any]") -> None:
    """Create the environment in a child process, and step and render it until the parent closes it.

    Args:
        channel: to the parent, which first sends RenderSettings, then a seed to reset, actions [1, ...] to step, and
            None to close.
    """
    _configure_headless()
    settings: RenderSettings = channel.recv()
    if settings.platform is not None:  # before MuJoCo is imported
        os.environ[_MUJOCO_GL] = settings.platform
    try:
        kwargs = unpickle_env(settings.env_id, settings.pickled_env)
        envs = GymnasiumVector(settings.env_id, 1, kwargs, first_index=0)
        track_robot(envs.first_env)
        envs.reset(seed=0)
        _render(envs)
    except (RunError, UserError) as error:
        problem = _render_problem(settings)
        channel.send(_render_failure(error) if problem is None else RenderFailure(problem, "", False))
        return
    fps = _render_fps(envs.first_env.metadata)
    interval = max(1, math.ceil(fps / settings.max_fps - 1e-9))  # steps per frame
    rendered_steps = math.inf if settings.seconds is None else settings.seconds * fps
    channel.send(RenderReady(envs.obs_spec, envs.action_spec, fps / interval, rendered_steps))
    _run_commands(channel, envs, interval, rendered_steps)
    envs.close()


def _render_fps(metadata: object) -> float:
    """Return `render_fps` of an environment's metadata if it is a number > 0, else the default."""
    value = metadata.get("render_fps") if isinstance(metadata, Mapping) else None
    with suppress(TypeError, ValueError):
        fps = float(value)  # type: ignore[arg-type]  # metadata may contain anything
        if 0 < fps < math.inf:
            return fps
    return _DEFAULT_FPS


def _configure_headless() -> None:
    """Keep SDL and Wayland, which pygame and EGL load, from printing that there is no screen."""
    for key in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(key, "dummy")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or not Path(runtime).is_dir():
        os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    warnings.filterwarnings("ignore", module="glfw")  # the error has more information
    warnings.filterwarnings("ignore", message=".*render_mode")  # `_render_problem` reports it


def _render_problem(settings: RenderSettings) -> str | None:
    """Return the render modes of an environment that has no 'rgb_array'; None: it has, or cannot be created."""
    kwargs = {
        key: value
        for key, value in unpickle_env(settings.env_id, settings.pickled_env).items()
        if key != "render_mode"
    }
    try:
        with closing(make_single(settings.env_id, kwargs)) as env:
            modes = (env.metadata or {}).get("render_modes") or []
    except Exception:  # the original error says why it cannot be created
        return None
    if "rgb_array" in modes:
        return None
    return (
        f"env.id={settings.env_id}: cannot be rendered: its metadata['render_modes'] is {list(modes)}; "
        "a video needs 'rgb_array' among them, and a render() that returns images"
    )


def _run_commands(
    channel: "Connection[Any, Any]", envs: GymnasiumVector, interval: int, rendered_steps: float
) -> None:
    """Execute the parent's commands; of the first `rendered_steps` steps, render each `interval`-th and the last."""
    step, ended = 0, False
    while (command := channel.recv()) is not None:
        try:
            if isinstance(command, int):
                obs, step, ended = envs.reset(command), 0, False
                channel.send(ResetResult(obs, envs.action_mask, _render(envs)))
            else:
                envs.send(command)
                result = envs.receive()
                step = 0 if ended else step + 1
                ended = bool(result.terminated[0] or result.truncated[0])
                rendered = step <= rendered_steps and (ended or step % interval == 0)
                image = _render(envs) if rendered else None
                channel.send(StepResult(result, envs.success, envs.action_mask, image))
        except RunError as error:
            channel.send(_render_failure(error))


def track_robot(env: GymEnv) -> None:
    """Let the camera follow a MuJoCo robot if its model has a camera for it and the user chose no other.

    Gymnasium 1.4 leaves the camera at the origin.
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
    """Return an image of the environment's current state."""
    try:
        image = np.asarray(envs.first_env.render())
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise TypeError(f"expected an image uint8 [height, width, 3], got {image.dtype} {image.shape}")
    except Exception as error:
        raise RunError(f"{envs.id}: render() raised {type(error).__name__}: {error}") from error
    return image


def _render_failure(error: RunError | UserError) -> RenderFailure:
    cause = error.__cause__
    text = "".join(traceback.format_exception(cause)) if cause else ""
    # Without OpenGL, importing mujoco may fail, so it is looked for in the traceback too.
    return RenderFailure(str(error), text, "mujoco" in sys.modules or "mujoco" in text)


class Frame(NamedTuple):
    """Rendered state of an episode."""

    image: RGBImage
    episode: int  # from 0
    step: int  # number of steps of the episode so far
    episode_return: float  # raw, of these steps


class RenderingEnv:
    """Vector environment of one environment, stepped and rendered in a child process.

    Args:
        env_id: Gymnasium id.
        kwargs: of the environment's constructor.
        size: width and height of the images in pixels, None for the environment's default; None: both default.
        timeout: seconds within which the environment must be created, reset, or stepped and rendered.
        max_fps: maximum frames per second. Every n-th step is rendered, so that frames play in real time, and the last.
        seconds: length of an episode's beginning that is rendered; None: all of it.

    Raises:
        UserError: the environment cannot be created or rendered here; the message says what is missing.
        RunError: it raised, or its process crashed or did not answer in time.
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
        self.on_frame: Callable[[Frame], None] = _ignore_frame  # assigned by the caller
        self._episode, self._step, self._return, self._resetting = -1, 0, 0.0, False
        sizes = {} if size is None else dict(zip(("width", "height"), size, strict=True))
        requested_size = {key: pixels for key, pixels in sizes.items() if pixels is not None}
        try:
            pickled_env = pickle_env(env_id, kwargs | {"render_mode": "rgb_array"} | requested_size)
        except ValueError as error:
            raise UserError(str(error)) from error
        gl = choose_opengl()
        self._worker = WorkerProcess(
            "pgx.envs.render.rendering_env:serve_rendering", f"{env_id}: the rendering process"
        )
        self._end = weakref.finalize(self, stop, [self._worker], _request_close)
        self._worker.send(RenderSettings(env_id, pickled_env, gl.platform, max_fps, seconds))
        try:
            ready = self._receive_message()
            if isinstance(ready, RenderFailure):
                raise self._render_error(ready, gl, bool(requested_size))
        except BaseException:
            self.close()
            raise
        assert isinstance(ready, RenderReady)
        self.obs_spec, self.action_spec, self.fps = ready.obs, ready.action, ready.fps
        self.rendered_steps = ready.rendered_steps

    def _render_error(self, failure: RenderFailure, gl: OpenGLChoice, has_size: bool) -> UserError:
        text = failure.problem
        if "pygame is not installed" in text:
            return UserError(
                f"env.id={self.id}: rendering it needs the package pygame; pip install 'pgx-rl[video]'"
            )
        if failure.uses_opengl:
            text += f"; {gl.problem}"
        if has_size and "unexpected keyword" in text:
            text += "; remove --width and --height, which this environment does not support (MuJoCo's do)"
        error = UserError(text)
        error.__cause__ = WorkerTraceback(failure.traceback) if failure.traceback else None
        return error

    def reset(self, seed: int) -> AnyArray:
        self._worker.send(seed)
        result = self._receive_result()
        assert isinstance(result, ResetResult)
        self._episode, self._step, self._return, self._resetting = self._episode + 1, 0, 0.0, False
        self.action_mask = result.mask
        self.on_frame(Frame(result.image, self._episode, 0, 0.0))
        return result.obs

    def send(self, action: AnyArray) -> None:
        self._worker.send(action)

    def receive(self) -> Step:
        result = self._receive_result()
        assert isinstance(result, StepResult)
        step, self.success, self.action_mask = result.step, result.success, result.mask
        if self._resetting:
            self._episode, self._step, self._return = self._episode + 1, 0, 0.0
        else:
            self._step, self._return = self._step + 1, self._return + float(step.reward[0])
        self._resetting = bool(step.terminated[0] or step.truncated[0])
        if result.image is not None:
            self.on_frame(Frame(result.image, self._episode, self._step, self._return))
        return step

    def _receive_result(self) -> Any:
        """Return the result of the last command.

        Raises:
            RunError: the command failed.
        """
        message = self._receive_message()
        if isinstance(message, RenderFailure):
            cause = WorkerTraceback(message.traceback) if message.traceback else None
            raise RunError(message.problem) from cause
        return message

    def _receive_message(self) -> Any:
        self._worker.wait(self._timeout)
        return self._worker.receive()

    def close(self) -> None:
        self._end()


def _ignore_frame(frame: Frame) -> None:
    pass


def _request_close(worker: WorkerProcess) -> None:
    worker.send(None)
