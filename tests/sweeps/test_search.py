"""Searches: ranges, reports to the study, and no trial lost or reported twice."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pgx.config.compose import compose
from pgx.config.run_config import SearchConfig
from pgx.config.validate import validate
from pgx.core.errors import UserError
from pgx.core.paths import config_choices
from pgx.runs.writer import SUMMARY
from pgx.sweeps.plan import Job
from pgx.sweeps.progress import write_failure
from pgx.sweeps.search import (
    Trial,
    boundary_overrides,
    distributions,
    fail_unrecorded_trials,
    open_study,
    update_study,
)

SEARCH = SearchConfig(
    overrides=["algo=ppo", "env=CartPole-v1"],
    space={"optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))", "algo.epochs": "range(2, 9, 2)"},
    trials=4,
    seed=0,
    objective="final_return",
    pruner="median",
    report_every=100,
    startup_trials=1,
    warmup_steps=200,
)


def drawn(values: str) -> object:
    return distributions(replace(SEARCH, space={"key": values}))["key"]


def test_ranges_in_hydra_s_syntax() -> None:
    assert drawn("interval(0.1, 0.4)") == FloatDistribution(0.1, 0.4)
    assert drawn("tag(log, interval(1e-5, 1e-2))") == FloatDistribution(1e-5, 1e-2, log=True)
    assert drawn("int(interval(1, 8))") == IntDistribution(1, 8)
    assert drawn("range(3, 21)") == IntDistribution(3, 20)  # as in Python, the end is not one of them
    assert drawn("range(2, 9, 2)") == IntDistribution(2, 8, step=2)
    assert drawn("choice(32, 64)") == CategoricalDistribution(["32", "64"])
    assert drawn("gru,lstm") == CategoricalDistribution(["gru", "lstm"])


@pytest.mark.parametrize("values", ["3", "range(4, 4)", "interval(2.0, 1.0)"])
def test_an_invalid_range_is_refused_with_its_key(values: str) -> None:
    with pytest.raises(UserError, match=r"sweep\.space: key="):
        drawn(values)


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to search for"):
        distributions(replace(SEARCH, space={}))


@pytest.mark.system
@pytest.mark.parametrize("name", config_choices("sweep"))
def test_every_search_preset_is_valid_at_its_bounds(name: str) -> None:
    cfg = compose([f"sweep={name}"])
    validate(cfg)
    search = SearchConfig(**{str(k): v for k, v in OmegaConf.to_container(cfg.sweep).items()})
    found = boundary_overrides(search)
    assert len(found) >= 2 * len(search.space)
    for overrides in found:
        validate(compose(overrides))


def test_a_search_s_own_values_are_checked() -> None:
    cfg = compose(["sweep=ppo_cartpole", "sweep.trials=0", "sweep.pruner=scissors"])
    with pytest.raises(UserError) as caught:
        validate(cfg)
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == [
        "sweep.pruner",
        "sweep.trials",
    ]


@pytest.mark.system
def test_trials_have_different_values_within_the_space(tmp_path: Path) -> None:
    trials = [Trial(tmp_path, SEARCH, tmp_path / f"{n}", n) for n in range(8)]
    cfgs = [compose(list(trial.overrides)) for trial in trials]
    for cfg in cfgs:
        validate(cfg)
        assert 1e-4 <= cfg.optimizer.learning_rate <= 1e-2 and cfg.algo.epochs in (2, 4, 6, 8)
    assert len({cfg.optimizer.learning_rate for cfg in cfgs}) == 8
    assert [trial.trial.number for trial in trials] == list(range(8))


@pytest.mark.system
def test_the_same_seed_draws_the_same_trials(tmp_path: Path) -> None:
    def sequence(folder: Path, search: SearchConfig) -> list[tuple[str, ...]]:
        folder.mkdir()
        return [Trial(folder, search, folder / f"{n}", n).overrides for n in range(3)]

    one = sequence(tmp_path / "one", SEARCH)
    assert one == sequence(tmp_path / "two", SEARCH)
    assert one != sequence(tmp_path / "three", replace(SEARCH, seed=7))


def test_a_study_has_the_name_of_its_sweep_and_the_folders_of_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "my_sweep"
    folder.mkdir()
    Trial(folder, SEARCH, folder / "run", 0).describe(seed=3)
    study = open_study(folder, SEARCH)
    assert study.study_name == "my_sweep"
    assert study.trials[0].user_attrs == {"run_dir": str(folder / "run"), "seed": 3}
    moved = open_study(folder.rename(tmp_path / "moved"), SEARCH)  # a study keeps its name
    assert moved.study_name == "my_sweep" and len(moved.trials) == 1


def test_a_resumed_run_resumes_its_trial(tmp_path: Path) -> None:
    first = Trial(tmp_path, SEARCH, tmp_path / "run", 0)
    report = first.pruning().rejects
    assert not report(150, 3.0)
    again = Trial(tmp_path, SEARCH, tmp_path / "run", 0)
    assert (again.trial.number, again.overrides) == (first.trial.number, first.overrides)
    report = again.pruning().rejects
    assert not report(60, 2.0) and not report(160, 9.0)  # the same 100 steps are not reported twice
    (trial,) = open_study(tmp_path, SEARCH).trials
    assert trial.intermediate_values == {100: 3.0}


@pytest.mark.system
def test_a_trial_below_the_median_is_pruned_after_the_warm_up(tmp_path: Path) -> None:
    for n, level in enumerate((50.0, 60.0)):
        report = Trial(tmp_path, SEARCH, tmp_path / f"{n}", n).pruning().rejects
        assert not any(report(steps, level) for steps in (130, 230, 330))
        end(tmp_path / f"{n}", "finished", level)
        update_study(tmp_path, SEARCH, [Job((), tmp_path / f"{n}")])
    bad = Trial(tmp_path, SEARCH, tmp_path / "bad", 2).pruning().rejects
    assert not bad(110, 1.0)  # within warmup_steps
    assert not bad(205, None)  # no episode has ended
    assert bad(310, 1.0)
    # A process that crashed between its report and its end has not acted on the decision.
    again = Trial(tmp_path, SEARCH, tmp_path / "bad", 2).pruning().rejects
    assert not again(210, 1.0) and again(310, 1.0)  # and ends where it would have, not where it resumes
    good = Trial(tmp_path, SEARCH, tmp_path / "good", 3).pruning().rejects
    assert not any(good(steps, 70.0) for steps in (130, 230, 330))


def end(run: Path, status: str, value: float | None) -> None:
    """Write the summary of an ended run."""
    content = {"status": status, "error": None, "steps": 330, "seconds": 1.0, "final_return": value}
    (run / SUMMARY).write_text(json.dumps(content))


@pytest.mark.system
def test_results_in_the_folders_are_reported_to_the_study_once(tmp_path: Path) -> None:
    jobs = [Job((), tmp_path / name) for name in ("a", "b", "c", "d", "e", "never")]
    for n, job in enumerate(jobs[:5]):
        Trial(tmp_path, SEARCH, job.run_dir, n)
    end(jobs[0].run_dir, "finished", 12.5)
    end(jobs[1].run_dir, "pruned", 1.0)
    write_failure(jobs[2].run_dir, "it fell")
    end(jobs[3].run_dir, "finished", None)  # no episode ended: there is nothing to compare
    for _ in range(2):
        update_study(tmp_path, SEARCH, jobs)
        trials = open_study(tmp_path, SEARCH).trials
        assert [trial.state for trial in trials] == [
            TrialState.COMPLETE,
            TrialState.PRUNED,
            TrialState.FAIL,
            TrialState.FAIL,
            TrialState.RUNNING,
        ]
        assert trials[0].value == 12.5


def test_a_trial_whose_job_crashed_before_it_was_recorded_fails(tmp_path: Path) -> None:
    lost = open_study(tmp_path, SEARCH).ask(distributions(SEARCH))
    kept = Trial(tmp_path, SEARCH, tmp_path / "run", 0)
    fail_unrecorded_trials(tmp_path, SEARCH, [Job((), tmp_path / "run")])
    states = {
        trial.number: trial.state
        for trial in optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db").trials
    }
    assert states == {lost.number: TrialState.FAIL, kept.trial.number: TrialState.RUNNING}


def _several(folder: Path, first: int, number: int) -> None:
    """Start and end trials, as the jobs of one process do."""
    for n in range(first, first + number):
        trial = Trial(folder, SEARCH, folder / f"{n}", n)
        trial.describe(0)
        trial.pruning().rejects(130, 1.0)
        end(folder / f"{n}", "finished", float(n))
        update_study(folder, SEARCH, [Job((), folder / f"{n}")])


@pytest.mark.system
def test_concurrent_processes_lose_no_trial(tmp_path: Path) -> None:
    open_study(tmp_path, SEARCH)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_several, args=(tmp_path, 2 * i, 2)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    trials = open_study(tmp_path, SEARCH).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
    assert {trial.value for trial in trials} == set(map(float, range(12)))
    assert all(trial.intermediate_values == {100: 1.0} for trial in trials)
