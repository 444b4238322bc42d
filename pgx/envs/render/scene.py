"""How MuJoCo draws where there is no screen: through EGL, or else OSMesa, whichever works here.

The process behind a camera: it steps one environment and draws it.

Apart from the trainer: OpenGL and its drivers stay out of it, and take nothing with them when they crash.
What this file imports that process imports: no torch.
"""

import ctypes.util
import math
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
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
from pgx.distributed.child import end_with_parent, show_when_asked
from pgx.envs.gymnasium_backend import GymnasiumVector, make_single
from pgx.envs.recipe import unpack
from pgx.envs.vector import Array, Step

CHOICE = "MUJOCO_GL"  # what MuJoCo and Gymnasium read
TIMEOUT = 60.0  # seconds for a context to be made; it takes less than one
TRIED = ("egl", "osmesa")  # EGL first: it takes a graphics card where there is one
_DECIDE = ("EGL", "__EGL", "LIBGL", "GALLIUM", "MESA", "PYOPENGL", "MUJOCO", "LD_", "CUDA", "NVIDIA")
_PROBE = "from mujoco.{platform} import GLContext; context = GLContext(8, 8); context.make_current()"
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}


@dataclass(frozen=True)
class OpenGL:
    """What MUJOCO_GL shall be for a process that draws; None: nothing works, and what would help, in words."""

    platform: str | None
    problem: str


def choose() -> OpenGL:
    """What the user says in MUJOCO_GL, or else the first that makes a context.

    In a process each: which OpenGL a process has is decided once, and a broken driver can take it down.
    """
    said = os.environ.get(CHOICE)
    if said:
        return OpenGL(said, f"{CHOICE}={said} is set, and does not work here; unset, pgx chooses")
    for platform in TRIED:
        if _works(platform, _of_opengl()):
            return OpenGL(platform, f"{CHOICE}={platform} was chosen, and does not work for this environment")
    return OpenGL(None, f"MuJoCo has no OpenGL to draw with: {missing()}")


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
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {CHOICE: platform}
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def missing() -> str:
    """Which system package would bring what is not there."""
    found = {platform: ctypes.util.find_library(name) is not None for platform, name in _LIBRARIES.items()}
    what = "libEGL is there, and no driver for it" if found["egl"] else "there is no libEGL"
    what += "; libOSMesa fails" if found["osmesa"] else " and no libOSMesa"
    either = " (or apt-get install ".join(_PACKAGES[platform] for platform in TRIED)
    return f"{what}; apt-get install {either})"


UNSAID = 30.0  # frames a second where an environment does not say
Picture = NDArray[np.uint8]  # [height, width, 3]


@dataclass(frozen=True)
class Scene:
    """What the process is told once."""

    env_id: str
    recipe: bytes  # from `pack`, with what the environment is to draw like among its keywords
    platform: str | None  # of OpenGL, for MUJOCO_GL
    limit: int  # frames a second that are drawn at most
    seconds: float | None  # of an episode's beginning that are drawn; None: all


@dataclass(frozen=True)
class Set:
    """The environment stands, and can be drawn."""

    obs: ObsSpec
    action: ActionSpec
    fps: float  # frames a second at which what is drawn plays as fast as it is
    drawn: float  # steps of an episode's beginning that are drawn; infinite: all


@dataclass(frozen=True)
class Broken:
    """What went wrong, and where an environment raised; empty: none did."""

    problem: str
    traceback: str
    draws_with_opengl: bool


class Begun(NamedTuple):
    """An episode's first moment."""

    obs: Array
    mask: NDArray[np.bool_] | None
    picture: Picture  # of its beginning


class Moved(NamedTuple):
    """A step, and what it led to looks like."""

    step: Step
    success: NDArray[np.int8] | None
    mask: NDArray[np.bool_] | None
    picture: Picture | None  # None: this one is left out


def serve(channel: "Connection[Any, Any]", lifeline: int, shows: int) -> None:
    """Make the environment and do as the parent says, until it is gone.

    Args:
        channel: a seed begins an episode, actions [1, ...] are a step; None ends it.
        lifeline: end of a pipe that nothing is ever written to; it ends when the parent does.
        shows: descriptor that it says where it is on, when it is asked.
    """
    show_when_asked(shows)
    end_with_parent(lifeline, [channel.fileno(), shows])
    _without_screen()
    try:
        scene: Scene = channel.recv()
        if scene.platform is not None:  # before anything imports MuJoCo
            os.environ[CHOICE] = scene.platform
        try:
            envs = GymnasiumVector(scene.env_id, 1, unpack(scene.env_id, scene.recipe), first=0)
            follow(envs.first)
            envs.reset(seed=0)
            _picture(envs)
        except (RunError, UserError) as error:
            refused = _undrawable(scene)
            channel.send(_broken(error) if refused is None else Broken(refused, "", False))
            return
        fps = _frames_a_second(envs.first.metadata)
        every = max(1, math.ceil(fps / scene.limit - 1e-9))
        drawn = math.inf if scene.seconds is None else scene.seconds * fps
        channel.send(Set(envs.obs_spec, envs.action_spec, fps / every, drawn))
        _obey(channel, envs, every, drawn)
        envs.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _frames_a_second(metadata: object) -> float:
    """Return `render_fps` where an environment's metadata has one that is a number > 0, else UNSAID."""
    said = metadata.get("render_fps") if isinstance(metadata, Mapping) else None
    with suppress(TypeError, ValueError):
        fps = float(said)  # type: ignore[arg-type]  # whatever it says
        if 0 < fps < math.inf:
            return fps
    return UNSAID


def _without_screen() -> None:
    """Keep SDL and Wayland, which pygame and EGL load, from looking for a screen and printing that there is none."""
    for key in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(key, "dummy")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or not Path(runtime).is_dir():
        os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    warnings.filterwarnings("ignore", module="glfw")  # the error at hand says more
    warnings.filterwarnings("ignore", message=".*render_mode")  # `_undrawable` says it in one line


def _undrawable(scene: Scene) -> str | None:
    """Say which ways of drawing an environment has, where pictures are not among them; None: they are, or who knows."""
    kwargs = {key: value for key, value in unpack(scene.env_id, scene.recipe).items() if key != "render_mode"}
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


def _obey(channel: "Connection[Any, Any]", envs: GymnasiumVector, every: int, drawn: float) -> None:
    """Play, drawing of the first `drawn` steps of each episode the every-th, and its end."""
    step, ended = 0, False
    while (order := channel.recv()) is not None:
        try:
            if isinstance(order, int):
                obs, step, ended = envs.reset(order), 0, False
                channel.send(Begun(obs, envs.action_mask, _picture(envs)))
            else:
                envs.send(order)
                took = envs.receive()
                step = 0 if ended else step + 1
                ended = bool(took.terminated[0] or took.truncated[0])
                shown = step <= drawn and (ended or step % every == 0)
                channel.send(Moved(took, envs.success, envs.action_mask, _picture(envs) if shown else None))
        except RunError as error:
            channel.send(_broken(error))


def follow(env: "gymnasium.Env[Any, Any]") -> None:
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


def _picture(envs: GymnasiumVector) -> Picture:
    """What the environment looks like now."""
    try:
        drawn = np.asarray(envs.first.render())
        if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[2] != 3 or not drawn.size:
            raise TypeError(f"expected an image uint8 [height, width, 3], got {drawn.dtype} {drawn.shape}")
    except Exception as error:
        raise RunError(f"{envs.id}: render() raised {type(error).__name__}: {error}") from error
    return drawn


def _broken(error: RunError | UserError) -> Broken:
    cause = error.__cause__
    where = "".join(traceback.format_exception(cause)) if cause else ""
    # Where there is no OpenGL even the import may fail.
    return Broken(str(error), where, "mujoco" in sys.modules or "mujoco" in where)
