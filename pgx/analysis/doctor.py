"""Diagnosis of a run: search for every problem of the table, causes before consequences."""

from dataclasses import dataclass

from pgx.analysis.curves import DiagnosedRun
from pgx.analysis.detectors import Detection, RunEnd, run_end
from pgx.analysis.diagnostics import PROBLEMS, Problem
from pgx.runs.metrics import tag

# Keys of metrics that only some runs have. A run without them cannot have the problems that they show.
_OPTIONAL = {"updates_skipped", "clipped_action_fraction", "clipped_reward_fraction"}
_MIN_UPDATES = 5  # medians of fewer updates mean little


@dataclass(frozen=True)
class Finding:
    """Problem of a run.

    Args:
        problem: row of the table.
        evidence: metric values that met the problem's criterion.
        caused_by: name of an earlier finding that explains this one; None: none does.
    """

    problem: Problem
    evidence: Detection
    caused_by: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Result of a diagnosis.

    Args:
        found: problems of the run, causes first.
        missing_metrics: tags that the run lacks, by the name of the problem that needs them.
        too_short: the run has too few updates to be called healthy.
        end: how the run ended before its last step; None: it finished, or is running.
    """

    found: tuple[Finding, ...]
    missing_metrics: dict[str, tuple[str, ...]]
    too_short: bool
    end: RunEnd | None = None

    @property
    def has_problem(self) -> bool:
        """True if a problem was found or the run failed."""
        return bool(self.found) or (self.end is not None and self.end.is_failure)


def diagnose(run: DiagnosedRun) -> Diagnosis:
    """Search for every problem that applies to a run, in the order of the table, which is the order of causes."""
    short = run.logged_updates() < _MIN_UPDATES and len(run.rows) < _MIN_UPDATES
    found: list[Finding] = []
    missing_metrics: dict[str, tuple[str, ...]] = {}
    for problem in PROBLEMS:
        if not problem.applies_to.matches(run) or (short and len(run.rows) < problem.min_rows):
            continue
        missing = tuple(key for key in problem.metrics if len(run.curve(key)) == 0)
        expected = tuple(tag(key) for key in missing if key not in _OPTIONAL)
        if expected and not short:
            missing_metrics[problem.name] = expected
        if expected:
            continue
        evidence = problem.detector(run, problem.bound)
        if evidence is not None:
            causes = (cause.problem.name for cause in found if problem.name in cause.problem.consequences)
            found.append(Finding(problem, evidence, next(causes, None)))
    return Diagnosis(tuple(found), missing_metrics, short, run_end(run))


def advice(problem: Problem, run: DiagnosedRun) -> list[str]:
    """Return the remedies for a problem, with the run's values; keys that its config does not have are left out."""
    lines = []
    for remedy in problem.remedies:
        action, _, what = remedy.partition(" ")
        key, _, wanted = what.partition("=")
        if "." not in key or "/" in key or action == "check":
            lines.append(remedy)
        elif wanted == "true":
            if run.value(key) is False:
                lines.append(remedy)
        elif _has_key(run, key):
            value = run.value(key)
            if value is None and action in ("raise", "lower"):
                continue  # an unset limit can be neither raised nor lowered
            now = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            lines.append(f"{action} {key}{'=' + wanted if wanted else ''} (now {now})")
        elif not run.config:
            lines.append(remedy)
    return lines


def _has_key(run: DiagnosedRun, key: str) -> bool:
    section, _, name = key.rpartition(".")
    inside = run.value(section)
    return hasattr(inside, "__contains__") and name in inside
