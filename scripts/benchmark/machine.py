"""Where and with what the numbers were taken."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OURS = ("torch", "numpy", "gymnasium", "mujoco", "envpool")
SB3 = ("stable-baselines3", "sb3-contrib", *OURS)
TIANSHOU = ("tianshou", *OURS)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that this Python has."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def installed_elsewhere(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """The same of another Python."""
    program = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
        f"from benchmark.machine import installed; print(json.dumps(installed({packages!r})))"
    )
    done = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _after(path: str, key: str) -> str:
    """What follows `key:` in a file of /proc."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def _commit(root: Path) -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--tags"], cwd=root, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def describe(root: Path, others: dict[str, dict[str, str]]) -> dict[str, object]:
    """The first JSON line: machine, date, versions.

    Args:
        root: of the repository.
        others: versions in the peers' environments, by peer.
    """
    kilobytes = int(_after("/proc/meminfo", "MemTotal").split()[0])
    return {
        "kind": "machine",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _after("/proc/cpuinfo", "model name"),
        "cores": cores(),
        "ram_gib": round(kilobytes / 2**20, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": _commit(root),
        "versions": {"pgx": installed(OURS), **others},
    }


def in_words(machine: dict[str, object]) -> str:
    """The machine's line for people, for above the table."""
    versions = machine["versions"]
    assert isinstance(versions, dict)
    environments = "; ".join(
        f"{side}: " + ", ".join(f"{name} {number}" for name, number in found.items())
        for side, found in versions.items()
    )
    return (
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB RAM, "
        f"kernel {machine['kernel']}, load before {machine['load_before']}, commit {machine['commit']}. "
        f"{environments}."
    )
