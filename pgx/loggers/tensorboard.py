"""TensorBoard: scalars over environment steps, videos, and the config with the final results as HParams."""

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams

from pgx.loggers import Clip
from pgx.loggers.append import AppendOnly
from pgx.loggers.layout import layout
from pgx.metrics import VIDEO
from pgx.types import Metrics

_RESULTS = ("final_return", "best_return", "steps", "seconds")
_FORMAT = "brain.Event:2"  # of event files; the first event of each says it
_numbers = itertools.count()


class TensorBoard:
    """Event files in a run's folder.

    Written here and now rather than by the thread of a SummaryWriter, which holds events back for minutes: a killed run
    would lack rows that its checkpoint is past, and what a full disk refused would be lost.

    Args:
        run_dir: the folder.
        config: the run's values by dotted key, for the HParams tab.
        keep_until: events past this step, of an earlier life of the run, are hidden; None if there was none.
    """

    def __init__(self, run_dir: Path, config: dict[str, bool | str | float], keep_until: int | None) -> None:
        self._config = config
        self._file = AppendOnly(run_dir / _file_name())
        self._append(Event(file_version=_FORMAT))
        if keep_until is not None:
            # TensorBoard forgets what it has read of this step and later.
            self._append(Event(step=keep_until + 1, session_log=SessionLog(status=SessionLog.START)))
        self._append(Event(summary=layout()))

    def write(self, steps: int, metrics: Metrics) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._append(Event(step=steps, summary=Summary(value=values)))

    def film(self, steps: int, clip: Clip) -> None:
        # A browser plays an animated GIF wherever it shows an image.
        image = Summary.Image(
            width=clip.width, height=clip.height, colorspace=3, encoded_image_string=clip.gif
        )
        self._append(Event(step=steps, summary=Summary(value=[Summary.Value(tag=VIDEO, image=image)])))

    def settle(self) -> None:
        self._file.settle()

    def finish(self, summary: dict[str, Any]) -> None:
        results = {f"result/{key}": float(summary[key]) for key in _RESULTS if summary.get(key) is not None}
        # SummaryWriter.add_hparams would open a second run in a folder of its own; the same records go here.
        for record in hparams(self._config, results):  # type: ignore[no-untyped-call]
            self._append(Event(summary=record))
        self.write(summary["steps"], results)

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def close(self) -> None:
        self._file.close()


def _file_name() -> str:
    """As TensorBoard looks for it, and later in the alphabet than those of earlier lives: its order of reading."""
    return f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
