"""A verb of the command line, and arguments that several have."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A word after `pgx`.

    Args:
        name: the word.
        help: a line in the list of verbs.
        description: what `pgx NAME --help` begins with.
        take: declares its arguments.
        run: does it; gives the exit code.
    """

    name: str
    help: str
    description: str
    take: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def take_run(parser: argparse.ArgumentParser, example: str = "outputs/Walker2d-v4/trpo/2026-...") -> None:
    """One run, by its folder."""
    parser.add_argument("run", metavar="RUN", help=f"the run's folder, e.g. {example}")


def take_checkpoint(parser: argparse.ArgumentParser, seeds: str) -> None:
    """Which of a run's checkpoints is played, whether its config is trusted, and the seed of what it meets."""
    parser.add_argument("--checkpoint", default="last", help="last, best or step_<steps> (last)")
    parser.add_argument("--seed", type=int, default=0, help=f"of {seeds} (0)")
    take_trust(parser, "the run's config")


def take_trust(parser: argparse.ArgumentParser, whose: str) -> None:
    """Leave to import what files name."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help=f"allow what {whose} would import: modules of environments (docs/checkpoints.md)",
    )


def take_sampling(parser: argparse._ActionsContainer) -> None:
    """Whether actions are drawn."""
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the likeliest"
    )


def count(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got '{text}'")
    return int(text)
