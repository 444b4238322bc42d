"""TensorBoard: scalars over environment steps, videos, and a row of config and results under HParams."""

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pgx.core.plain import Metrics
from pgx.runs.loggers import Clip, hparams
from pgx.runs.loggers.append import AppendOnly
from pgx.runs.loggers.layout import layout
from pgx.runs.metrics import VIDEO

_FORMAT = "brain.Event:2"  # of event files; the first event of each says it
_numbers = itertools.count()


class TensorBoard:
    """Event files in a run's folder.

    Written here and now rather than by the thread of a SummaryWriter, which holds events back for minutes: a killed run
    would lack rows that its checkpoint is past, and what a full disk refused would be lost.

    Args:
        run_dir: the folder.
        config: the run's values by dotted key, for the HParams tab.
        others: keys that other runs may have, for its columns.
        keep_until: events past this step, of an earlier life of the run, are hidden; None if there was none.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, hparams.Value | None],
        others: Mapping[str, hparams.Column],
        keep_until: int | None,
    ) -> None:
        self._file = AppendOnly(run_dir / _file_name())
        self._append(Event(file_version=_FORMAT))
        if keep_until is None:
            self._append(_session(0))
        else:
            # TensorBoard drops what it has read of this step and later, unless this is the first start that it reads:
            # the second record is for runs whose first process did not write one.
            for _ in range(2):
                self._append(_session(keep_until + 1))
        for summary in (layout(), hparams.columns(config, others), hparams.start(config)):
            self._append(Event(summary=summary))

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
        found = {key: summary[key] for key in hparams.RESULTS if summary.get(key) is not None}
        self.write(summary["steps"], {hparams.result_tag(key): float(value) for key, value in found.items()})
        if summary["status"] != "interrupted":
            self._append(Event(summary=hparams.end(failed=summary["status"] == "failed")))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def close(self) -> None:
        self._file.close()


def _session(step: int) -> Event:
    return Event(step=step, session_log=SessionLog(status=SessionLog.START))


def _file_name() -> str:
    """As TensorBoard looks for it, and later in the alphabet than those of earlier lives: its order of reading."""
    return f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
