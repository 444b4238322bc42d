"""Rules of style for docstrings that a program can check."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pgx"
FILES = sorted(PACKAGE.rglob("*.py"))

# Summaries of functions are imperative sentences. Noun phrases and clauses begin with these words.
NOT_A_VERB = {
    *(
        "What",
        "Who",
        "Where",
        "Whether",
        "Why",
        "When",
        "How",
        "Of",
        "In",
        "For",
        "From",
        "With",
        "So",
        "As",
        "If",
    ),
    *(
        "The",
        "A",
        "An",
        "One",
        "All",
        "Every",
        "Each",
        "Some",
        "No",
        "It",
        "That",
        "This",
        "These",
        "Those",
        "There",
    ),
}


def functions(path: Path) -> list[tuple[int, str, str]]:
    """Return line, name and docstring of each function with a docstring."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            found.append((node.lineno, node.name, text))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_summaries_of_functions_begin_with_a_verb(path: Path) -> None:
    for line, name, text in functions(path):
        word = re.split(r"\W", text, maxsplit=1)[0]
        summary = text.splitlines()[0]
        assert word[:1].isupper() and word not in NOT_A_VERB, f"{path}:{line}: {name}: {summary}"
