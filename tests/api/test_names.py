"""Public names of pgx: lazy, complete, and known to type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pgx
from pgx.algos import rule, rules
from pgx.config.run_config import NAMED_SECTIONS

SOURCE = ast.parse(Path(pgx.__file__).read_text())


def test_type_checkers_see_the_names_of_the_table() -> None:
    typed = {
        alias.name: node.module
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pgx.")
        for alias in node.names
    }
    assert typed == pgx._MODULES


@pytest.mark.parametrize("name", pgx.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(pgx, name)
    assert name in dir(pgx) and (name in ("__version__", "STOP") or value.__doc__)


def test_every_rule_and_spec_of_the_config_is_public() -> None:
    classes = [rule(name) for name in rules()]
    classes += [
        each
        for section, choices in NAMED_SECTIONS.items()
        if section != "runner"
        for each in choices.values()
    ]
    assert all(getattr(pgx, each.__name__) is each for each in classes)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pgx' has no attribute 'trian'"):
        pgx.trian  # noqa: B018


def test_import_pgx_imports_no_library() -> None:
    """Which is why it takes milliseconds; their number is measured by scripts/bench.py."""
    code = "import sys; before = set(sys.modules); import pgx; print(*sorted(set(sys.modules) - before))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch" not in said and "numpy" not in said and "hydra" not in said
