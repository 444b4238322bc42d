"""What configs/ and dataclasses say of their keys: values as they are written, and the comments beside them."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def values_of(path: Path) -> dict[str, Any]:
    """What a YAML file says, every number as it is written there."""
    read = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    assert isinstance(read, dict), path
    return read


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with values, of mappings and of what is in them."""
    for key, value in values.items():
        yield prefix + str(key), value
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


def head(path: Path) -> str:
    """The comment that a file begins with, without Hydra's directive and where the rest is to be found."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").strip())
    text = " ".join(lines).replace("# ", "")
    for mark in (" Fields: ", " Page: ", " page: "):
        text = text.partition(mark)[0]
    return text if not text or text.endswith(".") else f"{text}."


def comments(path: Path) -> dict[str, str]:
    """The comment of each key of a YAML file: behind its value, else above it, but for what begins the file."""
    lines, found = path.read_text().splitlines(), {}
    beginning = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    for key, first, last, column in _places(yaml.compose(path.read_text()), ""):
        behind = lines[last][column:].partition("#")[2].strip()
        above: list[str] = []
        while first > beginning and lines[first - 1].strip().startswith("#"):
            first -= 1
            above.insert(0, lines[first].strip().removeprefix("#").strip())
        if behind or above:
            found[key] = behind or " ".join(above)
    return found


def _places(node: Any, prefix: str) -> Iterator[tuple[str, int, int, int]]:
    """For each key: its name, its line, and the line and column where its value ends (of a mapping: begins)."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        key, line = prefix + name.value, name.start_mark.line
        flow = isinstance(value, yaml.ScalarNode) or value.flow_style
        end = value.end_mark if flow else name.end_mark
        yield key, line, end.line, end.column
        yield from _places(value, f"{key}.")


def field_comments(source: type) -> dict[str, str]:
    """The comment of each field of a dataclass: on its lines, else on those above it."""
    text = textwrap.dedent(inspect.getsource(source))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string.removeprefix("#").strip() for t in tokens if t.type == tokenize.COMMENT}
    (body,) = ast.parse(text).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field in body.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
            beside = [comments[line] for line in lines if line in comments]
            above: list[str] = []
            line = field.lineno - 1
            while line in comments and text.splitlines()[line - 1].strip().startswith("#"):
                above.insert(0, comments[line])
                line -= 1
            found[field.target.id] = " ".join(above + beside)
    return found
