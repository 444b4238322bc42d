"""Pages refer to existing files, figures and code."""

import re
import subprocess
from pathlib import Path

import pytest

from pgx.algos import rule, rules
from pgx.core.schema import parameter_types
from scripts.update_line_links import with_lines

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "tests" / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES += sorted((ROOT / "examples").glob("*.md"))
RULES = rules()


def page(name: str) -> str:
    return (ROOT / "docs" / "algorithms" / f"{name}.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_point_to_existing_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_diffs_of_contributing_apply() -> None:
    diffs = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(diffs) == 3
    for diff in diffs:
        done = subprocess.run(
            ["git", "apply", "--check", "-"],
            input=diff,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{diff}\n{done.stderr}"


@pytest.mark.parametrize("name", RULES)
def test_the_code_of_each_step_is_in_the_file_named(name: str) -> None:
    """Each name in backticks of the table of steps occurs in the rule's file or in a file named in the same row."""
    table = page(name).split(f"| step | in `pgx/algos/{name}.py` |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) >= 4
    for row in table:
        quoted = re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[2])
        files = [ROOT / text for text in quoted if text.endswith(".py")]
        source = "".join(file.read_text() for file in [ROOT / "pgx" / "algos" / f"{name}.py", *files])
        for text in quoted:
            if not text.endswith(".py"):
                assert text.split(".")[-1] in source, (
                    f"{text}: not in {name}.py, nor in {[f.name for f in files]}"
                )


@pytest.mark.parametrize("name", RULES)
def test_line_links_are_up_to_date(name: str) -> None:
    assert "#L" in page(name)
    assert with_lines(page(name), name) == page(name), "run `python scripts/update_line_links.py`"


@pytest.mark.parametrize("name", RULES)
def test_every_hyperparameter_is_on_its_page(name: str) -> None:
    for key in parameter_types(rule(name)):
        assert f"algo.{key}" in page(name), key


@pytest.mark.parametrize("name", RULES)
def test_every_page_shows_the_rule_s_curve(name: str) -> None:
    assert f"../curves/{name}.svg" in page(name)
