"""`pgx compare` from the command line to its files."""

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pgx.sweeps.progress import write_failure
from tests.analysis.writers import cleanrl, stable_baselines3
from tests.command import Command
from tests.conftest import Make

CLEANRL = "cleanrl:ppo_continuous_action"


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> Path:
    """Two rules of pgx on two environments with two seeds, and a run of each of two other libraries."""
    for env in ("CartPole-v1", "Pendulum-v1"):
        for algo in ("a2c", "ppo"):
            for seed in (0, 1):
                name = f"runs/{env}-{algo}-{seed}"
                make(
                    f"env={env}",
                    f"algo={algo}",
                    f"seed={seed}",
                    "trainer.total_steps=1024",
                    "logger.every=1",
                    name=name,
                ).train()
    stable_baselines3(tmp_path / "runs" / "sb3" / "CartPole-v1" / "PPO_1", np.arange(20.0), every=100)
    cleanrl(tmp_path / "runs" / "cleanrl" / "CartPole-v1__ppo__1__170", np.arange(20.0), "CartPole-v1", 1)
    return tmp_path / "runs"


class Resources(HTMLParser):
    """Parser that collects what a page would fetch, and refuses scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed", "base")
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.fetched.append(value or "")


@pytest.mark.system
def test_all_files_of_the_report(command: Command, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    code, said, err = command("compare", str(runs), "--out", str(out), "--resamples", "200")
    assert code == 0, err
    for name in ("a2c", "ppo", "sb3:PPO", CLEANRL, "CartPole-v1", "Pendulum-v1", "health/kl", "IQM"):
        assert name in said
    assert "\x1b" not in said and "…" not in said  # in a pipe: no colour, and nothing cut

    page = (out / "index.html").read_text()
    parser = Resources()
    parser.feed(page)
    assert all(target.startswith("#") for target in parser.fetched)
    assert not re.search(r"url\((?!#)|@import", page)
    assert page.count("<svg") >= 3 and "prefers-color-scheme: dark" in page and "width=device-width" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    clips = [i for i in ids if re.fullmatch(r"p[0-9a-f]+", i)]
    assert clips and len(clips) == len(set(clips))  # figures on one page do not clip each other

    found = json.loads((out / "comparison.json").read_text())
    assert [panel["env"] for panel in found["panels"]] == [None, "CartPole-v1", "Pendulum-v1"]
    names = {group["name"] for group in found["panels"][1]["groups"]}
    assert names == {"a2c", "ppo", "sb3:PPO", CLEANRL}
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    scores = {row["folder"]: float(row["score"]) for row in rows}
    for panel in found["panels"][1:]:
        for group in panel["groups"]:
            assert [scores[r["folder"]] for r in group["runs"]] == group["scores"][0]
    text = (out / "comparison.md").read_text()
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (out / name).stat().st_size > 1000
        assert (out / name).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "100 episodes" in text  # differences between the metrics of the libraries


def test_an_unreadable_run_causes_a_warning(command: Command, make: Make, tmp_path: Path) -> None:
    for seed in (0, 1):
        make("env=CartPole-v1", "algo=a2c", f"seed={seed}", name=f"run{seed}").train()
    make("env=CartPole-v1", "algo=a2c", name="bad").train()
    (tmp_path / "bad" / "config.yaml").write_text("[")
    few = ("--resamples", "200")
    code, said, err = command("compare", str(tmp_path), *few)
    assert code == 0 and "a2c" in said
    assert err.startswith("pgx: ") and "bad" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text((tmp_path / "run0" / "config.yaml").read_text())
    write_failure(empty, "the simulator burst")
    code, _, err = command("compare", str(tmp_path), "--out", str(tmp_path / "out"), *few)
    assert code == 0 and f"{empty}: no row of metrics; it failed: the simulator burst" in err
    assert "it failed: the simulator burst" in (tmp_path / "out" / "comparison.md").read_text()
    code, _, err = command("compare", str(empty))
    assert code == 2 and "no run with metrics in these folders; 1 have none" in err


def test_user_errors_have_one_line(
    command: Command, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no run in these folders" in command("compare", str(empty))[2]
    make("env=CartPole-v1", "algo=ppo").train()
    run = str(tmp_path / "run")
    for arguments, line in [
        ((run, "--metric", "health/kll"), "did you mean 'health/kl'"),
        ((run, "--by", "algo.clip_rang"), "did you mean 'algo.clip_range'"),
        ((run, "--at", "123456789"), "no run has reached it"),
        ((f"{run}/nowhere",), "no such folder"),
        ((run, "--reference", f"{run}/none.yaml"), "cannot be read"),
    ]:
        code, _, err = command("compare", *arguments)
        assert code == 2 and line in err and "Traceback" not in err
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # makes the import fail
    code, _, err = command("compare", run, "--out", str(tmp_path / "out"))
    assert code == 2 and "pip install 'pgx-rl[plots]'" in err
    assert command("compare", run)[0] == 0  # tables need no matplotlib
