"""Entry point of the `pgx` command line. Each command imports heavy modules itself, when it runs."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pgx import __version__
from pgx.cli import (
    algos,
    check,
    collect,
    compare,
    doctor,
    envs,
    eval,
    export,
    record,
    replay,
    runs,
    sweep,
    tensorboard,
)
from pgx.cli.process_exit import INTERRUPTED
from pgx.core.errors import Preempted, RunError, UserCodeError, UserError
from pgx.core.schema import nearest
from pgx.core.stopping import QuietInterrupt
from pgx.core.streams import guarded, report_and_continue

_TRAIN_HELP = "train a policy, e.g. pgx train algo=trpo env=Walker2d-v4; pgx train --help lists all keys"
COMMANDS = tuple(
    module.COMMAND
    for module in (
        sweep,
        runs,
        eval,
        record,
        doctor,
        compare,
        tensorboard,
        export,
        collect,
        replay,
        check,
        envs,
        algos,
    )
)

# Commands that write files: they continue when standard output fails.
_FILE_WRITERS = ("train", "sweep", "record", "export", "collect", "replay")


COMPLETION_FLAGS = ("--shell-completion", "-sc")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 success, 1 failed run, 2 user error, 130 interrupted, 143 preempted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    writes_files = bool(arguments) and arguments[0] in _FILE_WRITERS
    with guarded(report_and_continue if writes_files else _fail_without_output):
        code = _run(arguments)
    sys.exit(code)


def _fail_without_output(error: OSError) -> NoReturn:
    """Raise the error of a command whose only result is its output."""
    if isinstance(error, BrokenPipeError):  # the reader, for example `head`, has exited
        raise error
    raise RunError(f"standard output: cannot be written: {error.strerror}") from error


def _run(arguments: list[str]) -> int:
    """Run a command, report its error if any, and return the exit code."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except (UserError, RunError) as error:
        if isinstance(error, UserCodeError) and os.environ.get("PGX_DEBUG") != "1":
            _print_own_traceback(error.__cause__)
        _report(str(error))
        code = error.exit_code
    except QuietInterrupt:
        code = INTERRUPTED
    except KeyboardInterrupt:
        print("pgx: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except Preempted as error:
        code = error.exit_code
    except BrokenPipeError:
        code = RunError.exit_code
    except Exception as error:
        _report(
            f"{type(error).__name__}: {error} (a bug in pgx or in the environment; set PGX_DEBUG=1 for the traceback)"
        )
        code = RunError.exit_code
    return code


def _print_own_traceback(error: BaseException | None) -> None:
    """Print the traceback of an exception without the frames of pgx."""
    if error is None:
        return
    package = str(Path(__file__).parents[1])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(package)]
    lines = ["Traceback of your code (most recent call last):\n", *traceback.format_list(frames)]
    print("".join([*lines, *traceback.format_exception_only(error)]), end="", file=sys.stderr)


def _report(message: str) -> None:
    if os.environ.get("PGX_DEBUG") == "1":
        traceback.print_exc()
    lines = message.splitlines()
    head = "pgx: error: " if len(lines) == 1 else f"pgx: {len(lines)} errors:\n  "
    print(head + "\n  ".join(lines), file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    # Modules in the current folder can register environments. The folder is last, so that its files hide no library.
    sys.path.append("")
    names = ["train", *(command.name for command in COMMANDS)]
    if arguments and arguments[0] in ("train", *COMPLETION_FLAGS) and set(COMPLETION_FLAGS) & set(arguments):
        from pgx.cli.completion import complete

        return complete([argument for argument in arguments if argument != "train"], names)
    if arguments and arguments[0] == "train":
        from pgx.cli.train import train_command

        return train_command(arguments[1:])
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        raise UserError(
            f"{arguments[0]}: no such command{nearest(arguments[0], names)}; choose one of {', '.join(names)}"
        )
    parser = _Parser(
        prog="pgx",
        description="A laboratory for policy-gradient methods.",
        epilog="pgx COMMAND --help lists the options of a command. docs/commands.md shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"pgx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    commands.add_parser("train", help=_TRAIN_HELP, add_help=False)
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.help, description=command.description)
        command.add_arguments(subparser)
        subparser.set_defaults(run_command=command.run)
    if not arguments:
        parser.print_help()
        return UserError.exit_code
    options = _parse(parser, arguments)
    run: Callable[[argparse.Namespace], int] = options.run_command
    return run(options)


def _parse(parser: _Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options. Overrides may follow an option: `pgx eval RUN --episodes 4 env.num_envs=2`."""
    options, rest = parser.parse_known_args(arguments)
    if rest and not (hasattr(options, "words") and not any(word.startswith("-") for word in rest)):
        raise UserError(f"unrecognized arguments: {' '.join(rest)} (see pgx {arguments[0]} --help)")
    if rest:
        options.words += rest
    return options


if __name__ == "__main__":
    main()
