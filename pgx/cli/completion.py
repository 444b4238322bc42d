"""Shell completion: names of commands, and Hydra's completion of overrides after `pgx train`."""

import os
import sys
from collections.abc import Iterable

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from pgx.core.errors import UserError
from pgx.core.paths import ROOT_CONFIG, config_dir


def complete(arguments: list[str], commands: Iterable[str]) -> int:
    """Print the script that installs completion in a shell, or the completions of a command line.

    Hydra's script calls `pgx -sc query=SHELL`, with the command line in the variable COMP_LINE. A query prints
    nothing on an error, so that a shell shows no message while the user types.

    Args:
        arguments: -sc and install=SHELL, uninstall=SHELL or query=SHELL.
        commands: names of the commands of `pgx`.

    Raises:
        UserError: the arguments are wrong.
    """
    query = any(argument.startswith("query=") for argument in arguments)
    if query and not _strip_command(commands):
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them
    sys.argv = ["pgx", *arguments]
    try:
        hydra.main(config_path=str(config_dir()), config_name=ROOT_CONFIG, version_base="1.3")(_nothing)()
    except (HydraException, ValueError) as error:
        if not query:
            raise UserError(f"{' '.join(arguments)}: {error}; use -sc install=bash") from error
    return 0


def _strip_command(commands: Iterable[str]) -> bool:
    """Remove the word `train` from COMP_LINE, where Hydra expects overrides only; return whether it was there.

    Print the names of commands if the first word is not complete.
    """
    command, separator, words = os.environ.get("COMP_LINE", "").partition(" ")[2].lstrip().partition(" ")
    if not separator:
        print(*(name for name in commands if name.startswith(command)), sep="\n")
    if command != "train" or not separator or "--resume" in words:
        return False
    os.environ["COMP_LINE"] = f"pgx {words}"
    return True


def _nothing(cfg: DictConfig) -> None:
    """Do nothing: Hydra requires a job even when it only prints."""
