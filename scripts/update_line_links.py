"""Update the links from docs/algorithms to the lines of functions in pgx/algos.

python scripts/update_line_links.py    rewrite the pages whose line numbers are out of date, and print their names
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def definitions(path: Path) -> dict[str, int]:
    """Return the first line of each function and method of a file."""
    tree = ast.parse(path.read_text())
    return {node.name: node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def with_lines(page: str, name: str) -> str:
    """Return a page whose table of steps has a link to the line of each function of pgx/algos/<name>.py."""
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
            continue  # an algo that only configures another rule
        text = path.read_text()
        updated = with_lines(text, path.stem)
        if updated != text:
            path.write_text(updated)
            print(path.relative_to(ROOT))
