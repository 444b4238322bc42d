"""Command class, and arguments that several commands share."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgx.core.errors import UserError

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@]*=")  # no folder separator before the first =


@dataclass(frozen=True)
class Command:
    """Command of `pgx`.

    Args:
        name: first word after `pgx`.
        help: line in `pgx --help`.
        description: first paragraph of `pgx NAME --help`.
        add_arguments: declares the arguments of the command.
        run: runs the command; returns the exit code.
    """

    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_run(parser: argparse.ArgumentParser, example: str = "outputs/Walker2d-v4/trpo/2026-...") -> None:
    """Add the argument RUN.

    Args:
        parser: of the command.
        example: of a run's folder, for the help text.
    """
    parser.add_argument("run", metavar="RUN", help=f"folder of the run, e.g. {example}")


def add_checkpoint(parser: argparse.ArgumentParser, seeds: str) -> None:
    """Add --checkpoint, --seed and --trust.

    Args:
        parser: of the command.
        seeds: what the seed determines, for the help text.
    """
    parser.add_argument(
        "--checkpoint", metavar="NAME", default="last", help="last, best or step_<steps> (default: last)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help=f"seed of {seeds} (default: 0)")
    add_trust(parser, "the run's config")


def add_trust(parser: argparse.ArgumentParser, source: str) -> None:
    """Add the `--trust` option.

    Args:
        parser: of the command.
        source: the files that are trusted, for the help text.
    """
    parser.add_argument(
        "--trust",
        action="store_true",
        help=f"allow {source} to import modules, for example of environments (docs/checkpoints.md)",
    )


def add_sampling(parser: argparse._ActionsContainer) -> None:
    """Add the `--stochastic` option."""
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the most likely ones"
    )


def add_max_steps(parser: argparse.ArgumentParser) -> None:
    """Add the `--max-steps` option."""
    parser.add_argument(
        "--max-steps",
        metavar="N",
        type=count,
        help="end an episode after N steps (default: the run's trainer.eval_max_steps)",
    )


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words of a command line into folders and overrides KEY=VALUE. An existing folder is never an override.

    Raises:
        UserError: no word is a folder.
    """
    folders = [word for word in words if not _OVERRIDE.match(word) or Path(word).is_dir()]
    if not folders:
        raise UserError(f"{' '.join(words)}: no RUN given; add the folder of a run before the overrides")
    return folders, [word for word in words if word not in folders]


def count(text: str) -> int:
    """Parse a whole number >= 1. As in a config, digits may be grouped: 500_000."""
    digits = text.replace("_", "")
    if not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got '{text}'")
    return int(digits)
