"""What went wrong in a run: every problem of the table looked for, causes before what follows from them."""

from dataclasses import dataclass

from pgx.analysis.curves import DiagnosedRun
from pgx.analysis.detectors import Detection, RunEnd, run_end
from pgx.analysis.diagnostics import PROBLEMS, Problem
from pgx.runs.metrics import tag

# Keys that only some runs have, without which there is nothing to report.
_OPTIONAL = {"updates_skipped", "clipped_action_fraction", "clipped_reward_fraction"}
_MIN_UPDATES = 5  # fewer have no medians to speak of


@dataclass(frozen=True)
class Finding:
    """A problem that a run has."""

    problem: Problem
    evidence: Detection
    caused_by: str | None  # the name of a problem found before it that explains it


@dataclass(frozen=True)
class Diagnosis:
    """All that was found, and what could not be looked for."""

    found: tuple[Finding, ...]  # causes first
    missing_metrics: dict[str, tuple[str, ...]]  # problem: tags that it is seen by and that the run has not
    too_short: bool  # to say that a run without findings is healthy
    end: RunEnd | None = None  # of a run that did not finish

    @property
    def has_problem(self) -> bool:
        """Whether something was found, or the run failed."""
        return bool(self.found) or (self.end is not None and self.end.is_failure)


def diagnose(run: DiagnosedRun) -> Diagnosis:
    """Look for every problem that can befall a run.

    Args:
        run: what is known of it.

    Returns:
        What it has. A problem that one found before it explains says so; the table is in the order of causes.
    """
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
    """What to turn, with the values of the run; knobs that its config has not are left out."""
    said = []
    for turn in problem.remedies:
        action, _, what = turn.partition(" ")
        key, _, wanted = what.partition("=")
        if "." not in key or "/" in key or action == "look":
            said.append(turn)
        elif action == "true":
            if run.value(key) is False:
                said.append(f"{key}=true")
        elif _has_key(run, key):
            value = run.value(key)
            if value is None and action in ("raise", "lower"):
                continue  # an unset limit cannot be moved
            now = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            said.append(f"{action} {key}{'=' + wanted if wanted else ''} (now {now})")
        elif not run.config:
            said.append(turn)
    return said


def _has_key(run: DiagnosedRun, key: str) -> bool:
    section, _, name = key.rpartition(".")
    inside = run.value(section)
    return hasattr(inside, "__contains__") and name in inside
