"""Machine and package versions of a measurement."""

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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def installed_elsewhere(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages in another Python."""
    program = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
        f"from benchmark.machine import installed; print(json.dumps(installed({packages!r})))"
    )
    done = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _after(path: str, key: str) -> str:
    """Return the text after `key:` in a file of /proc."""
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
    """Return the first JSON record: machine, date, versions.

    Args:
        root: of the repository.
        others: versions of other libraries, by library.
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
    """Return the description of the machine as a sentence."""
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
