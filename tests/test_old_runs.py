"""The current commands read, evaluate and resume runs written by pgx 0.1."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import pgx
from pgx.config.stored import RENAMED_KEYS, read_config
from pgx.runs.metrics import RENAMED_TAGS, TABLE
from tests.command import Command

WRITTEN = Path(__file__).parent / "data" / "runs_0.1"
RUNS = ("trpo_walker2d", "ppo_cartpole")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copies of the runs in a writable folder."""
    shutil.copytree(WRITTEN, tmp_path / "old")
    return tmp_path / "old"


def test_runs_lists_them(command: Command, old: Path) -> None:
    said = command("runs", str(old))
    assert said.code == 0 and said.err == ""
    assert all(run in said.out and "finished" in said.out for run in RUNS)


def test_compare_reads_their_returns(command: Command, old: Path) -> None:
    said = command("compare", str(old / "trpo_walker2d"), str(old / "ppo_cartpole"))
    assert said.code == 0
    assert "trpo" in said.out and "ppo" in said.out


@pytest.mark.parametrize("tag", RENAMED_TAGS)
@pytest.mark.parametrize("run", RUNS)
def test_compare_shows_a_renamed_tag_under_its_present_name(old: Path, run: str, tag: str) -> None:
    for name in (RENAMED_TAGS[tag], tag):
        found = pgx.compare([old / run], metric=name, resamples=10).result
        assert found.metric == RENAMED_TAGS[tag]
        (group,) = found.panels[0].groups
        assert float(group.scores[0][0]) == pytest.approx(last_value(old / run, tag))


@pytest.mark.parametrize("run", RUNS)
def test_the_files_of_a_comparison_have_the_present_name(
    command: Command, old: Path, tmp_path: Path, run: str
) -> None:
    tag = next(iter(RENAMED_TAGS))
    said = command("compare", str(old / run), "--metric", tag, "--out", str(tmp_path / "out"))
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["metric"] == RENAMED_TAGS[tag]
    (scored,) = csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines())
    assert float(scored["score"]) == pytest.approx(last_value(old / run, tag))


def last_value(run: Path, tag: str) -> float:
    """Return the last value of a tag in the rows of a run."""
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    written = {row["step"]: row[tag] for row in rows if tag in row}
    assert written, f"the stored run has no {tag}"
    return float(written[max(written)])


@pytest.mark.parametrize("run", RUNS)
def test_doctor_reads_their_health(command: Command, old: Path, run: str) -> None:
    said = command("doctor", str(old / run))
    assert said.code in (0, 1) and said.err == ""
    assert run in said.out


@pytest.mark.parametrize("run", RUNS)
def test_eval_plays_their_agents(command: Command, old: Path, run: str) -> None:
    said = command("eval", str(old / run), "--episodes", "2")
    assert said.code == 0
    assert "2 deterministic episodes" in said.out + said.err


@pytest.mark.parametrize("run", RUNS)
def test_resume_continues_them(command: Command, old: Path, run: str) -> None:
    before = json.loads((old / run / "summary.json").read_text())["steps"]
    rows = (old / run / "metrics.jsonl").read_text().splitlines()
    said = command("train", "--resume", str(old / run), "trainer.total_steps=4096")
    assert said.code == 0, said.err
    after = json.loads((old / run / "summary.json").read_text())
    assert after["status"] == "finished" and after["steps"] >= 4096 > before
    written = (old / run / "metrics.jsonl").read_text().splitlines()
    assert written[: len(rows)] == rows
    added = {"policy/std"} & tags(written[len(rows) :])  # since then
    assert tags(written[len(rows) :]) - added == {RENAMED_TAGS.get(tag, tag) for tag in tags(rows)}
    assert tags(rows) & RENAMED_TAGS.keys() and tags(written[len(rows) :]) & set(RENAMED_TAGS.values())


@pytest.mark.parametrize(("before", "now"), RENAMED_KEYS.items())
@pytest.mark.parametrize("run", RUNS)
def test_a_renamed_key_is_read_under_its_present_name_and_set_under_it_alone(
    command: Command, old: Path, run: str, before: str, now: str
) -> None:
    path = old / run / "config.yaml"
    value = OmegaConf.select(OmegaConf.load(path), before)
    assert value is not None and OmegaConf.select(read_config(path), now) == value
    for arguments in ((f"{before}=5",), ("--resume", str(old / run), f"{before}=5")):
        said = command("train", *arguments)
        assert said.code == 2 and said.problems == [f"{before}: renamed to {now}"]
    said = command("train", "--resume", str(old / run), "trainer.total_steps=4096", f"{now}={value + 2}")
    assert said.code == 0 and f"changed {now}: {value} -> {value + 2}" in said.out
    assert OmegaConf.select(OmegaConf.load(path), now) == value + 2
    assert OmegaConf.select(OmegaConf.load(path), before) is None


def test_present_names_are_of_this_version() -> None:
    assert set(RENAMED_TAGS.values()) <= {metric.tag for metric in TABLE}
    assert not RENAMED_TAGS.keys() & {metric.tag for metric in TABLE}


def tags(rows: list[str]) -> set[str]:
    """Return all tags that occur in rows."""
    return set().union(*(json.loads(row) for row in rows))


@pytest.mark.system
@pytest.mark.parametrize("run", RUNS)
def test_export_and_record_take_them(command: Command, old: Path, run: str) -> None:
    said = command("export", str(old / run), "--to", "onnx", "--out", str(old / f"{run}.onnx"))
    assert said.code == 0, said.err
    said = command("record", str(old / run), "--out", str(old / f"{run}.gif"))
    assert said.code == 0, said.err
    assert (old / f"{run}.onnx").stat().st_size > 0 and (old / f"{run}.gif").stat().st_size > 0
