"""What a run was made with: the bits of a run that goes on elsewhere are those of the same versions."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pgx

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "envpool", "hydra-core")


@cache
def versions() -> dict[str, str]:
    """Python's, pgx's and those of the packages whose numbers a run consists of; absent ones are left out."""
    found = {"python": platform.python_version(), "pgx": pgx.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if (commit := _commit(Path(pgx.__file__).parent)) is not None:
        found["pgx commit"] = commit
    if (commit := _commit(Path.cwd())) is not None:
        found["commit"] = commit
    return found


def _commit(folder: Path) -> str | None:
    """The git commit of a folder's files, with a + where they are not those of the commit; None: no repository."""
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        files = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(files, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def differences(then: dict[str, str]) -> list[str]:
    """What is of another version than it was then, in words; but for the user's own files, which change often."""
    now = versions()
    return [
        f"{name} {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted((then.keys() | now.keys()) - {"commit"})
        if then.get(name) != now.get(name)
    ]
