"""Documentation of config keys: the page of `pgx train --help`, and comments in configs/ and in dataclasses."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pgx.algos import rule, rules
from pgx.config.run_config import FIXED_SECTIONS, TopLevelConfig
from pgx.core.paths import config_choices, config_dir, config_groups

_WIDTH = 80
_USAGE = """\
pgx train [key=value ...]      train with the config below, changed by overrides
pgx train -m [key=a,b ...]     one run of every combination of the values
pgx train -m sweep=NAME ...    search; key=interval(a,b) searches that key too
pgx train -m hydra/launcher=NAME ...
                               several runs at once: joblib, ray,
                               submitit_slurm, submitit_local (docs/sweeps.md)
pgx train --cfg job ...        print the config and do nothing
pgx train --help ...           this page, for the config with these overrides
pgx train --resume RUN ...     resume a run from its last checkpoint
  --checkpoint NAME            from another checkpoint
  --trust                      allow its files to import the modules that they
                               name
                               (docs/checkpoints.md)
"""


def help_page(cfg: DictConfig) -> str:
    """Return the page for a config.

    Args:
        cfg: composed; references are shown as they are written.
    """
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    lines = [
        *_USAGE.splitlines(),
        "",
        "Groups: group=choice (env also takes every other id of Gymnasium)",
        "",
    ]
    for group in config_groups():
        lines += textwrap.wrap(
            f"{group}={', '.join(config_choices(group))}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="      ",
        )
    lines += ["", "Keys: key=value"]
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines += ["", *_keys("", top, _meanings("", {}))]
    for section, chosen in values.items():
        if isinstance(chosen, dict):
            name = f"{section!s}={chosen['name']}" if chosen.get("name") else str(section)
            lines += ["", name, *_keys(f"{section!s}.", chosen, _meanings(str(section), chosen))]
    return "\n".join(lines) + "\n"


def _keys(prefix: str, values: Mapping[Any, Any], meanings: Mapping[str, str]) -> Iterator[str]:
    for key, value in values.items():
        if key != "name":
            yield f"  {prefix}{key}={_yaml_text(value)}"
            yield from textwrap.wrap(
                meanings.get(str(key), ""), _WIDTH, initial_indent="      ", subsequent_indent="      "
            )


def _meanings(section: str, chosen: Mapping[Any, Any]) -> dict[str, str]:
    """Return the meaning of each key of a section: from its YAML file, else from its dataclass."""
    source = FIXED_SECTIONS.get(section) if section else TopLevelConfig
    found = {} if source is None else _nonempty(field_comments(source))
    below, name = "", str(chosen.get("name") or "none")
    if section in ("", "trainer", "health"):
        path, below = config_dir() / "train.yaml", f"{section}." if section else ""
    elif section in ("env", "logger"):
        path = config_dir() / section / "default.yaml"
    elif section == "reward":
        path = config_dir() / "reward" / "none.yaml"
    else:
        path = config_dir() / section / f"{name}.yaml"
    if section == "algo":
        below = "algo."
        if name in rules():
            found |= _nonempty(field_comments(rule(name)))
    if path.is_file():
        here = {
            key.removeprefix(below): said for key, said in key_comments(path).items() if key.startswith(below)
        }
        found |= {
            key: f"{found[key]}; {said}" if section == "algo" and found.get(key, said) != said else said
            for key, said in here.items()
        }
    return found


def _nonempty(meanings: Mapping[str, str]) -> dict[str, str]:
    return {key: said for key, said in meanings.items() if said}


def _yaml_text(value: Any) -> str:
    """Return a value as a user types it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_yaml_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_yaml_text(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file, with numbers as written."""
    read = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    assert isinstance(read, dict), path
    return read


def dotted_items(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with values, of a mapping and of the mappings in it."""
    for key, value in values.items():
        yield prefix + str(key), value
        if isinstance(value, dict):
            yield from dotted_items(value, f"{prefix}{key}.")


def file_description(path: Path) -> str:
    """Return the first comment of a file, without Hydra's directive and references to other files."""
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


def key_comments(path: Path) -> dict[str, str]:
    """Return the comment of each key of a YAML file: after its value, else above it; not the first comment."""
    lines, found = path.read_text().splitlines(), {}
    beginning = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    for key, first, last, column in _key_positions(yaml.compose(path.read_text()), ""):
        behind = lines[last][column:].partition("#")[2].strip()
        above: list[str] = []
        while first > beginning and lines[first - 1].strip().startswith("#"):
            first -= 1
            above.insert(0, lines[first].strip().removeprefix("#").strip())
        if behind or above:
            found[key] = behind or " ".join(above)
    return found


def _key_positions(node: Any, prefix: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield each key with its line, and the line and column where its value ends (for a mapping: begins)."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        key, line = prefix + name.value, name.start_mark.line
        flow = isinstance(value, yaml.ScalarNode) or value.flow_style
        end = value.end_mark if flow else name.end_mark
        yield key, line, end.line, end.column
        yield from _key_positions(value, f"{key}.")


def field_comments(source: type) -> dict[str, str]:
    """Return the comment of each field of a dataclass: on its lines, else above it."""
    text = textwrap.dedent(inspect.getsource(source))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    by_line = {t.start[0]: t.string.removeprefix("#").strip() for t in tokens if t.type == tokenize.COMMENT}
    (body,) = ast.parse(text).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field in body.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
            inline = [by_line[line] for line in lines if line in by_line]
            above: list[str] = []
            line = field.lineno - 1
            while line in by_line and text.splitlines()[line - 1].strip().startswith("#"):
                above.insert(0, by_line[line])
                line -= 1
            found[field.target.id] = " ".join(above + inline)
    return found
