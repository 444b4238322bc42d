"""Choice of the OpenGL platform with which MuJoCo renders without a screen: EGL, else OSMesa."""

import ctypes.util
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

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
