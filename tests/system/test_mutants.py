"""The tests of `make test` fail for ten mutations, which are chosen by a hash of the code."""

import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_ten_mutations_are_caught() -> None:
    """The choice changes with the code; `make mutants` tries all mutations."""
    code = b"".join(path.read_bytes() for path in sorted((ROOT / "pgx").rglob("*.py")))
    seed = zlib.crc32(code)
    command = [sys.executable, "scripts/mutate.py", "--sample", "10", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
