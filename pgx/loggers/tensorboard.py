"""TensorBoard: scalars over environment steps, and the config with the final results as HParams."""

from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from pgx.types import Metrics

_RESULTS = ("final_return", "best_return", "steps", "seconds")


class TensorBoard:
    """Event files in a run's folder.

    Args:
        run_dir: the folder.
        config: the run's values by dotted key, for the HParams tab.
        keep_until: events past this step, of an earlier life of the run, are hidden; None if there was none.
    """

    def __init__(self, run_dir: Path, config: dict[str, bool | str | float], keep_until: int | None) -> None:
        self._config = config
        self._writer = SummaryWriter(str(run_dir), purge_step=None if keep_until is None else keep_until + 1)

    def write(self, steps: int, metrics: Metrics) -> None:
        # One record of all scalars; SummaryWriter.add_scalar would hand one after the other to its thread.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._write(Summary(value=values), steps)

    def _write(self, record: Summary, steps: int | None = None) -> None:
        self._writer._get_file_writer().add_summary(record, steps)  # type: ignore[no-untyped-call]

    def close(self, summary: dict[str, Any]) -> None:
        results = {f"result/{key}": float(summary[key]) for key in _RESULTS if summary.get(key) is not None}
        # SummaryWriter.add_hparams would open a second run in a folder of its own; the same records go here.
        for record in hparams(self._config, results):  # type: ignore[no-untyped-call]
            self._write(record)
        self.write(summary["steps"], results)
        self._writer.close()
