"""Plans of sweeps: files, comparison with other plans, and overrides of jobs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hydra_plugins.pgx_launchers.planned_sweeper import oversubscription_warning, threads_per_job
from pgx.config.compose import compose
from pgx.config.overrides import parse
from pgx.config.run_config import SearchConfig
from pgx.core.errors import UserError
from pgx.sweeps.plan import Job, Plan, launch_overrides, quoted, read_plan, refuse_other_sweep, write_plan

SEARCH = SearchConfig(
    ["algo=ppo"], {"algo.clip_range": "interval(0.1, 0.3)"}, 3, 0, "final_return", "median", 10, 0, 0
)


def plan(*overrides: tuple[str, ...], search: SearchConfig | None = None) -> Plan:
    jobs = tuple(Job(given, Path(f"/runs/{i}")) for i, given in enumerate(overrides))
    return Plan(jobs, ("hydra/launcher=joblib",), Path("/somewhere"), search)


@pytest.mark.parametrize("search", [None, SEARCH])
def test_a_plan_is_read_as_it_was_written(tmp_path: Path, search: SearchConfig | None) -> None:
    written = plan(("seed=0",), ("seed=1", "env.kwargs={a: 'b c'}"), search=search)
    write_plan(tmp_path, written)
    assert read_plan(tmp_path) == written


def test_a_plan_of_an_earlier_version_has_the_present_names_of_keys(tmp_path: Path) -> None:
    def search(key: str) -> SearchConfig:
        return replace(SEARCH, overrides=[f"trainer.{key}=3"], space={f"trainer.{key}": "range(1, 5)"})

    for searched in (False, True):
        before = plan(("trainer.write_patience=5",), search=search("write_patience") if searched else None)
        now = plan(
            ("trainer.disk_retry_seconds=5",), search=search("disk_retry_seconds") if searched else None
        )
        write_plan(tmp_path, before)
        assert read_plan(tmp_path) == now


def test_a_folder_without_a_plan_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a sweep"):
        read_plan(tmp_path)


def test_a_plan_of_another_format_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, plan(("seed=0",)))
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="format 2"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("jobs", 0, "overrides"), "overrides: entry 3 must be text, got 5; write it in quotes"),
        (("hydra",), "hydra: entry 2 must be text, got 5; write it in quotes"),
        (("search", "overrides"), "search.overrides: "),
    ],
)
def test_an_entry_of_a_plan_that_is_not_text_is_refused(
    tmp_path: Path, path: tuple[str | int, ...], problem: str
) -> None:
    write_plan(tmp_path, plan(("seed=0", "algo=ppo"), search=SEARCH))
    file = tmp_path / "sweep.json"
    content = json.loads(file.read_text())
    entries = content
    for key in path:
        entries = entries[key]
    entries.append(5)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(f"{file}: {problem}")):
        read_plan(tmp_path)


def test_another_sweep_is_refused_with_what_differs(tmp_path: Path) -> None:
    there = plan(("seed=0",), ("seed=1",))
    refuse_other_sweep(tmp_path, there, there, "pgx sweep resume here")
    with pytest.raises(UserError, match="not asked for: seed=1; not there: seed=2"):
        refuse_other_sweep(tmp_path, there, plan(("seed=0",), ("seed=2",)), "pgx sweep resume here")
    with pytest.raises(UserError, match="another order"):
        refuse_other_sweep(tmp_path, there, plan(("seed=1",), ("seed=0",)), "pgx sweep resume here")
    with pytest.raises(UserError, match="one is a search"):
        refuse_other_sweep(tmp_path, there, plan(search=SEARCH), "pgx sweep resume here")


def test_a_search_may_have_more_trials_and_nothing_else(tmp_path: Path) -> None:
    there = plan(search=SEARCH)
    refuse_other_sweep(tmp_path, there, plan(search=replace(SEARCH, trials=9)), "pgx sweep resume here")
    with pytest.raises(UserError, match="trials: 3 there, 2 asked for"):
        refuse_other_sweep(tmp_path, there, plan(search=replace(SEARCH, trials=2)), "pgx sweep resume here")
    with pytest.raises(UserError, match="seed: 0 there, 1 asked for"):
        refuse_other_sweep(tmp_path, there, plan(search=replace(SEARCH, seed=1)), "pgx sweep resume here")


def test_the_label_of_a_job_has_the_overrides_that_differ() -> None:
    both = plan(("algo=ppo", "seed=0"), ("algo=ppo", "seed=1"))
    assert [both.label(job) for job in both.jobs] == ["seed=0", "seed=1"]
    only = plan(("algo=ppo", "seed=0"))
    assert only.label(only.jobs[0]) == "algo=ppo seed=0"


def test_a_job_gets_its_folder_and_threads_unless_it_sets_them() -> None:
    asked = plan(("seed=0", "run_dir=elsewhere/${seed}"), ("seed=1", "env.num_threads=7"))
    first, second = (launch_overrides(asked, job, threads=2) for job in asked.jobs)
    cfg = compose(first)
    assert (cfg.run_dir, cfg.env.num_threads, cfg.seed) == ("/runs/0", 2, 0)
    assert compose(second).env.num_threads == 7
    assert compose(launch_overrides(asked, asked.jobs[0], threads=None)).env.num_threads is None


def test_the_command_of_a_job_has_no_folder_and_is_quoted_for_a_shell() -> None:
    job = Job(("env.kwargs={a: 'b c'}", "run_dir=x"), Path("x"))
    assert job.command == """pgx train 'env.kwargs={a: '"'"'b c'"'"'}'"""


@pytest.mark.parametrize(
    ("launcher", "share"),
    [
        ({}, None),
        ({"n_jobs": None}, 1),
        ({"n_jobs": 4}, 4),
        ({"n_jobs": 99}, 1),
        ({"n_jobs": 3, "cpus_per_job": 2}, 2),
    ],
)
def test_jobs_share_the_cores(launcher: dict[str, int | None], share: int | None) -> None:
    assert threads_per_job(OmegaConf.create(launcher), cores=16) == share


@pytest.mark.parametrize(
    ("launcher", "jobs", "says"),
    [
        ({}, 99, None),  # one after another
        ({"n_jobs": 8}, 8, "8 jobs at once on 2 cores slow each other down; hydra.launcher.n_jobs=2"),
        ({"n_jobs": 8}, 2, None),
        ({"n_jobs": 2}, 99, None),
        ({"n_jobs": None}, 99, None),
        ({"n_jobs": -1}, 99, None),
        ({"cluster": "local", "cpus_per_job": 1}, 3, "3 jobs at once on 2 cores"),
        ({"cluster": "slurm", "cpus_per_job": 1}, 99, None),  # on other machines
        ({"cpus_per_job": 1}, 99, None),  # Ray begins as many as it has cores for
    ],
)
def test_more_concurrent_jobs_than_cores_cause_a_warning(
    launcher: dict[str, Any], jobs: int, says: str | None
) -> None:
    line = oversubscription_warning(OmegaConf.create(launcher), jobs, cores=2)
    assert line is None if says is None else says in str(line)


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_any_path_can_be_the_value_of_an_override(name: str) -> None:
    path = Path("/runs") / name.replace("/", "_")
    (override,) = parse([f"run_dir={quoted(str(path))}"])
    assert override.value() == str(path)
