"""`pgx tensorboard`: TensorBoard on the runs of a folder, under readable names, new ones as they begin."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from pgx.cli.arguments import (
    Command,
)
from pgx.core.errors import RunError, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", default="outputs", help="with runs in it (outputs)"
    )
    parser.add_argument(
        "--port", type=int, help="0: any that is free (6006, or one of the next that is free)"
    )
    parser.add_argument(
        "--host", default="localhost", help="the address that it listens on; 0.0.0.0: all (localhost)"
    )


def run(options: argparse.Namespace) -> int:
    return show(options.folder, options.port, options.host)


COMMAND = Command(
    "tensorboard",
    "look at runs in the browser, under readable names",
    "Look at runs in the browser (docs/show.md).",
    add_arguments,
    run,
)


LOOK = 5.0  # seconds between looks for new runs, as often as TensorBoard reads the old
VIDEOS = 200  # that are kept of a run; TensorBoard's own choice is 10, picked at random


def show(folder: str, port: int | None, host: str) -> int:
    """Serve until Ctrl-C; returns the exit code.

    Raises:
        UserError: there is no such folder, or no such port to be had.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; runs are in outputs/ where pgx train was started")
    from tensorboard import default, program

    with tempfile.TemporaryDirectory(prefix="pgx-tensorboard-") as where:
        view = View(Path(folder), Path(where))
        count = view.renew()
        print(
            f"{count:,} run{'' if count == 1 else 's'} below {folder}; more are shown as they begin",
            flush=True,
        )
        board = program.TensorBoard(plugins=default.get_plugins())
        options = ["--logdir", where, "--host", host, "--samples_per_plugin", f"images={VIDEOS}"]
        options += [] if port is None else ["--port", str(port)]
        board.configure(["tensorboard", *options, "--window_title", f"pgx: {folder}"])
        threading.Thread(target=view.keep, daemon=True).start()
        # TensorBoard's handler raises SystemExit, which removes the folder, once a handler before it has returned.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if board.main() != 0:
            raise RunError("TensorBoard could not be started; it says why above")
    return 0


class View:
    """A folder of links to runs, which TensorBoard reads in place of theirs.

    Args:
        folder: that runs are looked for in.
        links: an empty folder, where the links stand.
    """

    def __init__(self, folder: Path, links: Path) -> None:
        from pgx.runs.names import Names

        self._folder = folder
        self._links = links
        self._names = Names(folder)
        self._linked: dict[Path, Path] = {}  # run: its link

    def renew(self) -> int:
        """Link what is new, drop what is gone; returns how many runs there are."""
        from pgx.runs.names import runs_below

        found = list(runs_below(self._folder))
        for run in found:
            if run not in self._linked:
                link = self._links / self._names.of(run)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(run.resolve(), target_is_directory=True)
                self._linked[run] = link
        for run in self._linked.keys() - set(found):
            self._linked.pop(run).unlink()
        return len(found)

    def keep(self) -> None:
        """Renew, again and again."""
        while True:
            time.sleep(LOOK)
            with suppress(
                OSError
            ):  # a run that is removed at this moment; the next look sees it as it is then
                self.renew()
