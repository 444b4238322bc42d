"""A command of the command line, and arguments that several have."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgx.core.errors import UserError

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@]*=")  # no folder separator before the first =


@dataclass(frozen=True)
class Command:
    """A word after `pgx`.

    Args:
        name: the word.
        help: a line in the list of commands.
        description: what `pgx NAME --help` begins with.
        add_arguments: declares its arguments.
        run: does it; gives the exit code.
    """

    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
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


def take_max_steps(parser: argparse.ArgumentParser) -> None:
    """Add the option that bounds an episode."""
    parser.add_argument(
        "--max-steps",
        type=count,
        help="cut an episode after so many steps (the run's trainer.eval_max_steps)",
    )


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return folders and overrides KEY=VALUE of a command line; a folder that exists is a folder whatever its name.

    Raises:
        UserError: there is no folder among them.
    """
    folders = [word for word in words if not _OVERRIDE.match(word) or Path(word).is_dir()]
    if not folders:
        raise UserError(f"{' '.join(words)}: no RUN; expected the folder of a run before overrides")
    return folders, [word for word in words if word not in folders]


def count(text: str) -> int:
    """A whole number >= 1, written as in a config: 500_000 is one."""
    digits = text.replace("_", "")
    if not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got '{text}'")
    return int(digits)
