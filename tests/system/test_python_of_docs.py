"""The Python code of the pages about the API runs as it is there, with fewer steps, one block after the other."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/migrating.md"])
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    exec("import pgx", names)
    for block in blocks:
        few = re.sub(r"total_steps=[\d_]+", "total_steps=3_000", block).replace(
            "run_dir=None", "total_steps=3_000, run_dir=None"
        )
        exec(compile(few, page, "exec"), names)
    assert "Traceback" not in capsys.readouterr().err


def test_the_calls_of_the_table_are_python_that_the_api_has() -> None:
    """Each call of the middle column names what exists."""
    import pgx

    table = (
        (ROOT / "docs" / "migrating.md").read_text().split("| there | pgx in Python |")[1].split("\n\n")[0]
    )
    named = set(re.findall(r"\bpgx\.(\w+)", table))
    assert {"train", "load", "compare", "PPO", "MLPPolicy", "STOP", "Metric"} <= named
    assert all(hasattr(pgx, name) for name in named)
    methods = set(re.findall(r"\brun\.(\w+)", table))
    assert methods and all(hasattr(pgx.Run, name) for name in methods)
