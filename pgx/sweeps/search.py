"""Hyperparameter search with Optuna: each job asks the study for its values when it starts.

The study is a file in the folder of the sweep. Jobs of all processes and machines share it, so each result guides the
next job.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from pgx.config.overrides import parse
from pgx.config.run_config import SearchConfig
from pgx.config.stored import current_override
from pgx.core.errors import UserError
from pgx.core.imports import require
from pgx.core.schema import Index, problems
from pgx.runs.checkpoints import write_atomically
from pgx.runs.writer import read_summary
from pgx.sweeps.plan import Job
from pgx.sweeps.progress import read_progress
from pgx.training.callbacks import Stop, TrainingState

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

STUDY_FILE, TRIAL_FILE = "study.db", "trial.json"
_LOCK_SECONDS = 120  # a job waits so long for other jobs that write to the study


def distributions(search: SearchConfig) -> "dict[str, BaseDistribution]":
    """Return the search space: the distribution of each key.

    Raises:
        UserError: the values of a key are not a sweep of Hydra's grammar, or Optuna cannot be imported.
    """
    require("sweep=...", "optuna")
    found, problems = {}, []
    for override in parse([f"{key}={values}" for key, values in search.space.items()]):
        try:
            found[override.get_key_element()] = _distribution(override)
        except ValueError as error:
            problems.append(f"sweep.space: {override.input_line}: {error}")
    if problems or not found:
        raise UserError(*(problems or ["sweep.space: nothing to search for; expected key: values"]))
    return found


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = override.value()
    log = isinstance(values, IntervalSweep | RangeSweep) and "log" in values.tags
    if isinstance(values, IntervalSweep):
        assert values.start is not None and values.end is not None
        if isinstance(values.start, int) and isinstance(values.end, int):
            return IntDistribution(values.start, values.end, log=log)
        return FloatDistribution(values.start, values.end, log=log)
    if isinstance(values, RangeSweep) and isinstance(numbers := values.range(), range):
        if not numbers:
            raise ValueError("an empty range")
        return IntDistribution(numbers[0], numbers[-1], step=numbers.step, log=log)
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise ValueError(
        "one value; expected several: interval(a, b), tag(log, interval(a, b)), range(a, b), choice(a, b)"
    )


def boundary_overrides(search: SearchConfig) -> list[list[str]]:
    """Return overrides with the smallest and largest value, or each choice, of each key; all must be valid."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = []
    for key, drawn in distributions(search).items():
        if isinstance(drawn, CategoricalDistribution):
            values: Sequence[Any] = drawn.choices
        else:
            assert isinstance(drawn, FloatDistribution | IntDistribution)
            values = (drawn.low, drawn.high)
        found += [[*search.overrides, f"{key}={value}"] for value in values]
    return found


def open_study(folder: Path, search: SearchConfig, number: int = 0) -> "optuna.Study":
    """Return the study of a sweep; create it if there is none. `number` selects the sampler's random stream."""
    require("sweep=...", "optuna")
    import optuna
    from optuna.storages import RDBStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(
            n_startup_trials=search.startup_trials, n_warmup_steps=search.warmup_steps
        ),
        "halving": optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(search.warmup_steps, search.report_every), min_early_stopping_rate=0
        ),
        "none": optuna.pruners.NopPruner(),
    }
    storage = RDBStorage(
        f"sqlite:///{(folder / STUDY_FILE).absolute()}",
        engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}},
    )
    # An existing study keeps its name: earlier versions used another, and the folder may have been renamed.
    there = optuna.get_all_study_names(storage)
    return optuna.create_study(
        study_name=there[0] if there else folder.absolute().name,
        storage=storage,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=search.seed + number, n_startup_trials=search.startup_trials, constant_liar=True
        ),
        pruner=pruners[search.pruner],
        load_if_exists=True,
    )


class Trial:
    """One trial of a search, new or resumed: the values of a run, and its reports to the study.

    Args:
        folder: of the sweep.
        search: config of the search.
        run_dir: folder of the run; a file there holds the number of the trial, so that a resumed run resumes its trial.
        number: of the job.
    """

    def __init__(self, folder: Path, search: SearchConfig, run_dir: Path, number: int) -> None:
        require("sweep=...", "optuna")
        import optuna

        self.search, self.run_dir = search, run_dir
        self.study = open_study(folder, search, number)
        noted = read_trial(run_dir)
        if noted is not None and not self._frozen(noted["number"]).state.is_finished():
            self.trial = optuna.trial.Trial(self.study, self._frozen(noted["number"])._trial_id)
            self.overrides = tuple(noted["overrides"])
            return
        space = distributions(search)
        self.trial = self.study.ask(space)
        # These keys only: a study from somebody else may contain others.
        self.overrides = (*search.overrides, *(f"{key}={self.trial.params[key]}" for key in space))
        content = {"number": self.trial.number, "overrides": self.overrides}
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(
            run_dir / TRIAL_FILE, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
        )

    def describe(self, seed: int) -> None:
        """Store the folder and seed of the run in the study, for Optuna's own tools."""
        self.trial.set_user_attr("run_dir", str(self.run_dir))
        self.trial.set_user_attr("seed", seed)

    def _frozen(self, number: int) -> "optuna.trial.FrozenTrial":
        return self.study.get_trials(deepcopy=False)[number]

    def pruning(self) -> "Pruning":
        """Return a callback that ends the run when the pruner rejects the trial."""
        values = self._frozen(self.trial.number).intermediate_values  # reported before the run was resumed
        return Pruning(self.trial, self.search.report_every, max(values, default=0))


class Pruning:
    """Callback that reports the recent return to Optuna, and ends the run when the pruner rejects the trial.

    It reports at multiples of `report_every`, so that trials whose iterations differ in length are compared at the same
    steps.

    Args:
        trial: of Optuna.
        report_every: environment steps between reports.
        reported: environment step of the last report of this trial; 0: none.
    """

    def __init__(self, trial: "optuna.trial.Trial", report_every: int, reported: int) -> None:
        self._trial = trial
        self._report_every = report_every
        self._reported = reported
        self._decided = 0

    def on_start(self, state: TrainingState) -> Stop | None:
        """Decide again if the run is resumed: the previous process may have crashed before it recorded the decision."""
        return self.on_iteration(state) if state.resumed else None

    def on_iteration(self, state: TrainingState) -> Stop | None:
        """Report the recent return if a report is due."""
        return Stop("pruned") if self.rejects(state.step, state.recent_return) else None

    def rejects(self, step: int, recent_return: float | None) -> bool:
        """Return whether the pruner rejects the trial at an environment step; False if no report is due."""
        due = step // self._report_every * self._report_every
        if due <= self._decided or due < self._reported or recent_return is None:
            return False
        if due > self._reported:
            self._trial.report(recent_return, due)
        self._decided = due
        return self._trial.should_prune()


def read_trial(run_dir: Path) -> dict[str, Any] | None:
    """Return the number and the overrides of a run's trial; None before it started.

    Raises:
        UserError: the file has another content.
    """
    expected = {"number": Index, "overrides": list[str]}
    try:
        noted: dict[str, Any] = json.loads((run_dir / TRIAL_FILE).read_text())
        found = problems("", expected, noted)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        found = [f"{type(error).__name__}: {error}"]
    if found:
        raise UserError(*(f"{run_dir / TRIAL_FILE}: {problem}" for problem in found))
    return noted | {"overrides": [current_override(override) for override in noted["overrides"]]}


def update_study(folder: Path, search: SearchConfig, jobs: Sequence[Job]) -> None:
    """Report trials that have ended to the study, as the folders of their runs show.

    A job may be killed after its run ended and before its report. Call this while no job runs, or for the own job.
    """
    study = open_study(folder, search)
    from optuna.trial import TrialState

    states = {
        "finished": TrialState.COMPLETE,
        "stopped": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    runs = {noted["number"]: job.run_dir for job in jobs if (noted := read_trial(job.run_dir))}
    for trial in trials:
        run_dir = runs.get(trial.number)
        if run_dir is None:
            continue
        state = states.get(read_progress(run_dir).state)
        if state is None:
            continue
        value = read_summary(run_dir).get(search.objective)
        if state == TrialState.COMPLETE and value is not None:
            study.tell(trial.number, value)
        else:
            study.tell(trial.number, state=state if state != TrialState.COMPLETE else TrialState.FAIL)


def fail_unrecorded_trials(folder: Path, search: SearchConfig, jobs: Sequence[Job]) -> None:
    """Mark trials as failed whose jobs were killed before they recorded the number of the trial."""
    study = open_study(folder, search)
    from optuna.trial import TrialState

    known = {noted["number"] for job in jobs if (noted := read_trial(job.run_dir))}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in known:
            study.tell(trial.number, state=TrialState.FAIL)


def importances(study: "optuna.Study") -> dict[str, float]:
    """Return the importance of each key, as a fraction; empty if too few trials have ended."""
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about equal importances
            return optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
    except (ValueError, RuntimeError):  # fewer than two trials, or equal values
        return {}
