"""How MuJoCo draws where there is no screen: through EGL, or else OSMesa, whichever works here.

The process behind a camera: it steps one environment and draws it.

Apart from the trainer: OpenGL and its drivers stay out of it, and take nothing with them when they crash.
What this file imports that process imports: no torch.
"""

import math
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgx.core.errors import RunError, UserError
from pgx.core.specs import ActionSpec, ObsSpec
from pgx.envs.gymnasium_backend import GymnasiumVector, make_single
from pgx.envs.pickling import unpickle_env
from pgx.envs.render.opengl import MUJOCO_GL
from pgx.envs.vector import Array, Step

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
