"""`pgx algos`: list the update rules that algo= accepts."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

from pgx.cli.arguments import Command
from pgx.core.paths import config_choices, config_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> int:
    return list_rules()


COMMAND = Command(
    "algos",
    "list the update rules that algo= accepts",
    "List the update rules and presets that algo= accepts, with a line on each.",
    add_arguments,
    run,
)


def list_rules() -> int:
    """Print the update rules and presets, each with its first line of documentation; return the exit code."""
    from rich.table import Table

    from pgx.cli.printing import print_table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("algo=", "rule"):
        table.add_column(heading)
    folder = Path(__file__).resolve().parents[1] / "algos"
    for name in config_choices("algo"):
        path = folder / f"{name}.py"
        if path.is_file():  # read the docstring without the slow import
            line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "\n").splitlines()[0]
        else:
            comment = (config_dir() / "algo" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1]
            line = comment.removeprefix("# ").partition(" Page:")[0]
        table.add_row(name, line)
    print_table(table)
    return 0
