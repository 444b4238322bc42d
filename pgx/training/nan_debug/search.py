"""Search for the first NaN or infinity: an update is repeated, and every operation is checked."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pgx
from pgx.core.agent import Agent, State
from pgx.core.algorithm import Algorithm, Learner
from pgx.core.data import Rollout
from pgx.core.nonfinite import FailedUpdate
from pgx.training.nan_debug.post_mortem import rollback

_PACKAGE = Path(pgx.__file__).parent
_SHOWN_FRAMES = 4  # functions of the chain that are named


@dataclass(frozen=True)
class FirstNonfinite:
    """First operation whose result is NaN or infinite."""

    operation: str
    step: int  # number of operations before it
    chain: tuple[traceback.FrameSummary, ...]  # calling functions of pgx, outermost first

    def __str__(self) -> str:
        innermost = self.chain[-1]
        within = " < ".join(frame.name for frame in reversed(self.chain[-_SHOWN_FRAMES:]))
        place = f"{Path(innermost.filename).relative_to(_PACKAGE.parent)}:{innermost.lineno}"
        return f"{self.tensor}: {self.operation} at {place}, in {within}"

    @property
    def tensor(self) -> str:
        """Kind of the computation: estimate, loss, gradient or step."""
        names = [frame.name for frame in self.chain]
        if "estimate" in names or names[-1].endswith(("_batch", "_returns")):
            return "estimate"
        if "gradient" in names:
            inside = names[names.index("gradient") + 1 :]
            return "loss" if any(name != "clip_by_norm" for name in inside) else "gradient"
        return "step"


class _NonfiniteDetector(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that checks the arguments and results of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nan: FirstNonfinite | None = None
        self.infinity: FirstNonfinite | None = None
        self._steps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(_tensors((args, kwargs or {})))
        finite_given = all(bool(x.isfinite().all()) for x in given)
        results = func(*args, **(kwargs or {}))
        self._steps += 1
        found = list(_tensors(results))
        if self.nan is None and any(bool(x.isnan().any()) for x in found):
            self.nan = self._locate(func)
        elif self.infinity is None and finite_given and any(bool(x.isinf().any()) for x in found):
            self.infinity = self._locate(func)
        return results

    def _locate(self, operation: Any) -> FirstNonfinite:
        stack = [
            frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(_PACKAGE)
        ]
        own = [frame for frame in stack if frame.filename != __file__]
        return FirstNonfinite(str(operation), self._steps, tuple(own))


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in nested arguments."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def find_first_nonfinite(
    attempt: FailedUpdate, agent: Agent, algorithm: Algorithm, learner: Learner
) -> str | None:
    """Repeat an update and return where a number first becomes NaN or infinite; None if all stay finite.

    Args:
        attempt: failed update.
        agent, learner: agent and learner of the run's config, with an eager engine; the update changes them.
        algorithm: update rule of the run.
    """
    given = _not_finite_in(attempt.before, "before the update") or _not_finite_in(
        _columns(attempt.rollout), "rollout"
    )
    if given is not None:
        return given
    rollback(agent, learner, attempt.before)
    detector, raised = _NonfiniteDetector(), None
    try:
        with detector:
            algorithm.update(agent, learner, attempt.rollout, attempt.progress)
    except Exception as error:  # a consequence of the NaN or infinity that is searched for
        raised = f"{type(error).__name__}: {error}"
    if detector.nan is None:
        return raised if detector.infinity is None else f"infinite {detector.infinity}"
    said = f"NaN {detector.nan}"
    # Masked actions have the logit -inf, so infinity counts only if no NaN follows, or as the origin of a NaN.
    if detector.infinity is not None and detector.infinity.step < detector.nan.step:
        said += f"; infinite before that, {detector.infinity}"
    return said


def _columns(rollout: Rollout) -> State:
    return {column.name: getattr(rollout, column.name) for column in fields(rollout)}


def _not_finite_in(state: Any, where: str) -> str | None:
    """Return the path of the first tensor with NaN or infinity in a nested state."""
    if isinstance(state, Tensor):
        return where if state.is_floating_point() and not bool(state.isfinite().all()) else None
    if isinstance(state, dict):
        items = [(f"{where}, {key}", value) for key, value in state.items()]
    elif isinstance(state, list | tuple):
        items = [(f"{where}[{i}]", value) for i, value in enumerate(state)]
    else:
        return None
    return next((found for name, value in items if (found := _not_finite_in(value, name))), None)
