"""`pgx envs`: list the environments that env= accepts."""

from __future__ import annotations

import argparse

from pgx.cli.arguments import Command
from pgx.core.imports import import_problem
from pgx.core.paths import config_choices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="TEXT", help="list only ids that contain TEXT"
    )


def run(options: argparse.Namespace) -> int:
    return list_environments(options.pattern)


COMMAND = Command(
    "envs",
    "list the environments that env= accepts",
    "List the registered environments, whether EnvPool has them, and the file with their config values.",
    add_arguments,
    run,
)


def list_environments(pattern: str) -> int:
    """Print registered Gymnasium ids, whether EnvPool has them, and their config file; return the exit code."""
    import gymnasium
    from rich.table import Table

    from pgx.cli.printing import print_table

    in_envpool: set[str] = set()
    if import_problem("envpool") is None:
        import envpool

        in_envpool = set(envpool.list_all_envs())
    presets = set(config_choices("env"))
    ids = sorted(i for i in gymnasium.registry if pattern.lower() in i.lower())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("env=", "EnvPool", "values"):
        table.add_column(heading, no_wrap=True)
    for env_id in ids:
        preset = f"configs/env/{env_id}.yaml" if env_id in presets else "configs/env/default.yaml"
        table.add_row(env_id, "yes" if env_id in in_envpool else "no", preset)
    print_table(table)
    print(f"{len(ids)} ids; env=module:Id imports your module, which registers the environment")
    return 0
