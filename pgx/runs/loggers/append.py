"""A file that grows by whole records."""

import os
from pathlib import Path


class AppendOnly:
    """Appends records to a file: each is there in full, or nothing of it is.

    Nothing is held back in this process, so that a killed run keeps all that it had written.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._file).st_size  # of the last whole record
        self._torn = False

    def append(self, record: bytes) -> None:
        """Write a record.

        Raises:
            OSError: it could not be written in full; what follows will stand where it began.
        """
        if self._torn:
            os.ftruncate(self._file, self._end)
            self._torn = False
        left = memoryview(record)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except OSError:
                self._torn = True
                raise
        self._end += len(record)

    def settle(self) -> None:
        """Have the disk hold what was written.

        Raises:
            OSError: it does not.
        """
        if self._torn:
            os.ftruncate(self._file, self._end)
            self._torn = False
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)
