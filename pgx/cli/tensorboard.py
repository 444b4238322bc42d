"""`pgx tensorboard`: show the runs of a folder in TensorBoard, with readable names."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from pgx.cli.arguments import Command
from pgx.core.errors import RunError, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", default="outputs", help="folder with runs (default: outputs)"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        help="port; 0: any free port (default: the first free port from 6006)",
    )
    parser.add_argument(
        "--host",
        default="localhost",
        help="address to listen on; 0.0.0.0: all addresses (default: localhost)",
    )


def run(options: argparse.Namespace) -> int:
    return show(options.folder, options.port, options.host)


COMMAND = Command(
    "tensorboard",
    "show runs in TensorBoard, with readable names",
    "Start TensorBoard on the runs of a folder; new runs appear while it runs (docs/show.md).",
    add_arguments,
    run,
)


_REFRESH_SECONDS = 5.0  # seconds between searches for new runs; TensorBoard reloads at the same interval
_MAX_IMAGES = 200  # images kept per run; by default TensorBoard keeps a random sample of 10


def show(folder: str, port: int | None, host: str) -> int:
    """Serve until Ctrl-C; return the exit code.

    Raises:
        UserError: the folder does not exist.
        RunError: TensorBoard cannot start.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; runs are in outputs/ where pgx train was started")
    from tensorboard import default, program

    with tempfile.TemporaryDirectory(prefix="pgx-tensorboard-") as links_folder:
        links = RunLinks(Path(folder), Path(links_folder))
        count = links.update()
        print(
            f"{count:,} run{'' if count == 1 else 's'} below {folder}; new runs are added",
            flush=True,
        )
        board = program.TensorBoard(plugins=default.get_plugins())
        options = ["--logdir", links_folder, "--host", host, "--samples_per_plugin", f"images={_MAX_IMAGES}"]
        options += [] if port is None else ["--port", str(port)]
        board.configure(["tensorboard", *options, "--window_title", f"pgx: {folder}"])
        threading.Thread(target=links.update_forever, daemon=True).start()
        # TensorBoard calls the previous handler, then raises SystemExit, which removes the temporary folder.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if board.main() != 0:
            raise RunError("TensorBoard cannot start; see its message above")
    return 0


class RunLinks:
    """Folder of symbolic links to runs with readable names, which TensorBoard reads.

    Args:
        folder: searched for runs.
        links: empty folder for the links.
    """

    def __init__(self, folder: Path, links: Path) -> None:
        from pgx.runs.names import RunNames

        self._folder = folder
        self._links = links
        self._names = RunNames(folder)
        self._linked: dict[Path, Path] = {}  # run: its link

    def update(self) -> int:
        """Add links to new runs and remove those to deleted ones; return the number of runs."""
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

    def update_forever(self) -> None:
        """Update the links at regular intervals, forever."""
        while True:
            time.sleep(_REFRESH_SECONDS)
            with suppress(OSError):  # a run is being removed; the next search no longer finds it
                self.update()
