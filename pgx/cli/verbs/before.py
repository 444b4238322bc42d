"""Verbs that need no run: check, envs, algos."""

import argparse

from pgx.cli.verbs.verb import Verb


def _take_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="as for pgx train, e.g. env=Walker2d-v4 env.num_envs=8")


def _check(options: argparse.Namespace) -> int:
    from pgx.cli.commands.check_env import check_environment

    return check_environment(options.overrides)


def _take_envs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="", help="only ids that contain this")


def _envs(options: argparse.Namespace) -> int:
    from pgx.cli.commands.listing import list_environments

    return list_environments(options.pattern)


def _take_nothing(parser: argparse.ArgumentParser) -> None:
    pass


def _algos(options: argparse.Namespace) -> int:
    from pgx.cli.commands.listing import list_rules

    return list_rules()


CHECK = Verb(
    "check",
    "look whether an environment is what a run takes it for, e.g. pgx check env=my_module:MyEnv-v0",
    "Look at an environment (docs/environments.md).",
    _take_check,
    _check,
)
ENVS = Verb(
    "envs",
    "list the environments that env= takes",
    "List the environments that env= takes.",
    _take_envs,
    _envs,
)
ALGOS = Verb(
    "algos",
    "list the update rules that algo= takes",
    "List the rules that algo= takes.",
    _take_nothing,
    _algos,
)
