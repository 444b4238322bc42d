"""Puts line numbers beside the functions that the rules' pages name in their tables of steps.

python scripts/lines.py    rewrites docs/algorithms/*.md where lines have moved (tests/test_docs.py asks for it)
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def definitions(path: Path) -> dict[str, int]:
    """Functions and methods of a file, and the lines that they begin in."""
    tree = ast.parse(path.read_text())
    return {node.name: node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def with_lines(page: str, name: str) -> str:
    """A rule's page with a link to its line after each function of the rule's file, in the table of steps."""
    header = f"| step | in `pgx/algos/{name}.py` |"
    before, found, rest = page.partition(header)
    table, _, after = rest.partition("\n\n")
    lines = definitions(ROOT / "pgx" / "algos" / f"{name}.py")

    def linked(match: re.Match[str]) -> str:
        function = match[1]
        if function not in lines:
            return match[0]
        return f"`{function}` [L{lines[function]}](../../pgx/algos/{name}.py#L{lines[function]})"

    table = re.sub(r"`(\w+)`(?: \[L\d+\]\([^)]*\))?", linked, table)
    return f"{before}{found}{table}\n\n{after}" if found else page


if __name__ == "__main__":
    for path in sorted((ROOT / "docs" / "algorithms").glob("*.md")):
        if not (ROOT / "pgx" / "algos" / f"{path.stem}.py").is_file():
            continue  # a setting of another page's rule
        text = path.read_text()
        renewed = with_lines(text, path.stem)
        if renewed != text:
            path.write_text(renewed)
            print(path.relative_to(ROOT))
