"""Remove files from the page cache without administrator rights."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def forget(folders: Iterable[Path]) -> None:
    """Drop the files of folders from the page cache, so that the next process reads them from disk.

    Pages that a process has mapped stay, so no other process should use these folders.
    """
    os.sync()  # unwritten pages cannot be dropped
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    _forget_file(path)


def _forget_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
