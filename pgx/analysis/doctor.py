"""What went wrong in a run: every sickness of the table looked for, causes before what follows from them."""

from dataclasses import dataclass

from pgx.analysis.curves import RecordedCurves
from pgx.analysis.detectors import Ending, Evidence, ending_of
from pgx.analysis.diagnostics import PROBLEMS, Problem
from pgx.runs.metrics import tag

# Keys that only some runs have, without which there is nothing to report.
OPTIONAL = {"updates_skipped", "clipped_action_fraction", "clipped_reward_fraction"}
FEWEST_LOOKS = 5  # fewer have no medians to speak of


@dataclass(frozen=True)
class Found:
    """A sickness that a run has."""

    sickness: Problem
    evidence: Evidence
    follows_from: str | None  # the name of a sickness found before it that explains it


@dataclass(frozen=True)
class Diagnosis:
    """All that was found, and what could not be looked for."""

    found: tuple[Found, ...]  # causes first
    untold: dict[str, tuple[str, ...]]  # sickness: tags that it is seen by and that the run has not
    too_short: bool  # to say that a run without findings is healthy
    ending: Ending | None = None  # of a run that did not finish

    @property
    def sick(self) -> bool:
        """Whether something was found, or the run failed."""
        return bool(self.found) or (self.ending is not None and self.ending.bad)


def examine(run: RecordedCurves) -> Diagnosis:
    """Look for every sickness that can befall a run.

    Args:
        run: what is known of it.

    Returns:
        What it has. A sickness that one found before it explains says so; the table is in the order of causes.
    """
    short = run.looks() < FEWEST_LOOKS and len(run.rows) < FEWEST_LOOKS
    found: list[Found] = []
    untold: dict[str, tuple[str, ...]] = {}
    for sickness in PROBLEMS:
        if not sickness.of.holds(run) or (short and len(run.rows) < sickness.fewest):
            continue
        missing = tuple(key for key in sickness.metrics if len(run.curve(key)) == 0)
        expected = tuple(tag(key) for key in missing if key not in OPTIONAL)
        if expected and not short:
            untold[sickness.name] = expected
        if expected:
            continue
        evidence = sickness.look(run, sickness.bound)
        if evidence is not None:
            causes = (cause.sickness.name for cause in found if sickness.name in cause.sickness.explains)
            found.append(Found(sickness, evidence, next(causes, None)))
    return Diagnosis(tuple(found), untold, short, ending_of(run))


def advice(sickness: Problem, run: RecordedCurves) -> list[str]:
    """What to turn, with the values of the run; knobs that its config has not are left out."""
    said = []
    for turn in sickness.turn:
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


def _has_key(run: RecordedCurves, key: str) -> bool:
    section, _, name = key.rpartition(".")
    inside = run.value(section)
    return hasattr(inside, "__contains__") and name in inside
