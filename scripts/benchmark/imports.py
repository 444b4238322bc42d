"""Measure the memory of a process that only imports the modules of a run; print a JSON line.

python imports.py FILE    FILE holds a JSON list of module names, in the order in which a run imported them
"""

import contextlib
import importlib
import json
import sys
from pathlib import Path


def resident_mb(key: str) -> float:
    """Return VmRSS (current) or VmHWM (peak) of this process, MB of 2**20 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")


def main() -> None:
    sys.path.insert(0, "")  # as `python -m` does
    names = json.loads(Path(sys.argv[1]).read_text())
    for name in names:
        # Some names in sys.modules cannot be imported.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    imported = sum(name in sys.modules for name in names)
    print(json.dumps({"rss_mb": resident_mb("VmRSS"), "imported": imported, "names": len(names)}))


if __name__ == "__main__":
    main()
