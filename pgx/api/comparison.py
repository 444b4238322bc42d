"""Comparison of runs from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgx.analysis.comparison import Comparison, Request, compare_groups
from pgx.analysis.find import parse_run_folder, read_runs
from pgx.analysis.reading import RecordedRun
from pgx.analysis.statistics import Resampling
from pgx.analysis.tables import TextTable, comparison_tables, markdown_report
from pgx.api.arguments import config_errors
from pgx.api.run import Run
from pgx.config.stored import present_key
from pgx.core.errors import UserError
from pgx.core.imports import require
from pgx.runs.metrics import present_tag, tag

CONFIDENCE_LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class RunComparison:
    """Result of a comparison: scores with intervals, curves, costs and health metrics of groups of runs.

    Args:
        result: all values.
        skipped: a line for each run that could not be read.
    """

    result: Comparison
    skipped: Sequence[str]

    @property
    def tables(self) -> list[TextTable]:
        """Return the tables that `pgx compare` prints."""
        return comparison_tables(self.result)

    def to_markdown(self) -> str:
        """Return verdicts, tables and notes as Markdown."""
        return markdown_report(self.result, self.tables, figures=(), command=None)

    def write(self, folder: str | Path) -> list[Path]:
        """Write an HTML page, figures, CSV, JSON and Markdown to a folder; return their paths, the page first.

        Raises:
            ConfigError: the folder cannot be written, or matplotlib is missing.
        """
        with config_errors():
            require("RunComparison.write", "matplotlib")
            from pgx.analysis.report import write_report

            return write_report(self.result, Path(folder), "pgx.compare(...)")

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        return self.to_markdown()


def compare(
    runs: Sequence[Run | str | Path],
    by: Sequence[str] = ("algo",),
    metric: str | None = None,
    at: int | None = None,
    reference: Mapping[str, tuple[float, float]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> RunComparison:
    """Compare groups of runs: by default all seeds of one rule on one environment are a group.

    Scores are interquartile means over seeds with bootstrap intervals (docs/compare.md).

    Args:
        runs: runs, or folders with runs, also of other libraries.
        by: config keys that define a group.
        metric: tag to compare; None: the return of the last 20 episodes.
        at: environment step of the scores; None: the last that all runs of an environment reach.
        reference: scores that become 0 and 1, by environment; None: lowest and highest score of the runs.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: there is no run with the metric, or an argument is wrong.
    """
    with config_errors():
        if isinstance(runs, str | Path | Run):
            raise UserError(f"runs: expected a list, got {runs!r}; write pgx.compare([...])")
        if not runs:
            raise UserError("runs: expected runs or folders, got an empty list")
        objects = dict.fromkeys(run for run in runs if isinstance(run, Run))  # each once
        recorded: list[RecordedRun] = [run.recorded() for run in objects if run.run_dir is None]
        folders = [run.run_dir if isinstance(run, Run) else run for run in runs]
        found, problems = read_runs([parse_run_folder(str(each)) for each in folders if each is not None])
        if not recorded and not found:
            places = " ".join(map(str, runs))
            raise UserError(f"{places}: no run with metrics", *problems)
        request = comparison_request(
            metric, (by,) if isinstance(by, str) else by, at, reference, resamples, seed
        )
        return RunComparison(compare_groups([*recorded, *found], request), problems)


def comparison_request(
    metric: str | None,
    by: Sequence[str],
    at: int | None,
    reference: Mapping[str, tuple[float, float]] | None,
    resamples: int,
    seed: int,
) -> Request:
    """Return the parameters of a comparison, under the present names of keys and tags. Args as in `compare`."""
    return Request(
        metric=present_tag(metric or tag("episode_return_recent")),
        by=tuple(present_key(key.strip()) for key in by),
        at=at,
        reference=reference,
        resampling=Resampling(resamples, CONFIDENCE_LEVEL, seed),
    )
