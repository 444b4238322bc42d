"""Versions of the software of a run, on which its exact numbers depend."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pgx

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "envpool", "hydra-core")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, pgx and the packages that determine numbers, and git commits."""
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
    """Return the git commit of a folder, with a + if files are modified; None without a repository."""
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        files = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(files, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def differences(then: dict[str, str]) -> list[str]:
    """Describe the versions that differ from `then`, except the commit of the current folder."""
    now = versions()
    return [
        f"{name} {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted((then.keys() | now.keys()) - {"commit"})
        if then.get(name) != now.get(name)
    ]
