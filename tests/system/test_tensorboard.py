"""`pgx tensorboard`: names, links, responses of the server, and the page in a browser."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    STATUS_FAILURE,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_UNKNOWN,
    ColParams,
    ListSessionGroupsRequest,
)
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from pgx.cli.tensorboard import RunLinks
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS
from pgx.runs.loggers.tensorboard import CHARTS, MAIN_COLUMNS
from pgx.runs.metrics import TABLE, tag
from pgx.runs.names import RunNames, runs_below
from tests.conftest import Make, small
from tests.system.browser import Page, chromium

LITTLE = ["env=CartPole-v1", "env.backend=gymnasium", "logger.sinks=[tensorboard]"]
TIMEOUT = 90.0


def until(true: Any, seconds: float = TIMEOUT) -> Any:
    """Wait until a function returns a true value; return the value."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.3)
    return found


def events(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1.host").write_bytes(b"")
    return folder


def test_runs_are_named_by_environment_label_and_seed(make: Make, tmp_path: Path) -> None:
    same = [*LITTLE, "algo=a2c", "trainer.total_steps=256"]
    make(*same, name="1").train()
    make(*same, "seed=3", name="2").train()
    make(*same, "algo.entropy_coefficient=0.5", name="3").train()
    make(*same, name="4").train()
    events(tmp_path / "elsewhere" / "sac_1")
    names = RunNames(tmp_path)
    told = {run.name: names.of(run) for run in runs_below(tmp_path)}
    assert told == {
        "1": "CartPole-v1/a2c/seed0",
        "2": "CartPole-v1/a2c/seed3",
        "3": "CartPole-v1/a2c/seed0 algo.entropy_coefficient=0.5",
        "4": "CartPole-v1/a2c/seed0 4",
        "sac_1": "elsewhere/sac_1",
    }
    assert told == {run.name: names.of(run) for run in reversed(list(runs_below(tmp_path)))}


def test_no_name_is_below_another_or_outside_the_folder(tmp_path: Path) -> None:
    """A link within a link would be created in the folder of a run."""
    for folder in ("a", "b/c", "b/c/d", "e"):
        events(tmp_path / "runs" / folder)
    values = {"env": {"id": "a/../../x"}, "label": "..", "seed": 0}
    sections = [*FIXED_SECTIONS, *NAMED_SECTIONS, "algo"]
    text = json.dumps({section: {} for section in sections} | values)
    (tmp_path / "runs" / "e" / "config.yaml").write_text(text)
    before = sorted(tmp_path.rglob("runs/**/*"))
    (tmp_path / "links").mkdir()
    view = RunLinks(tmp_path / "runs", tmp_path / "links")
    assert view.update() == 3
    events(tmp_path / "runs" / "f")
    (tmp_path / "runs" / "a" / "events.out.tfevents.1.host").unlink()
    assert view.update() == 3
    links = {
        str(p.relative_to(tmp_path / "links")): p.resolve()
        for p in (tmp_path / "links").rglob("*")
        if p.is_symlink()
    }
    assert links == {
        "b/c": tmp_path / "runs/b/c",
        "a_.._.._x/_/seed0": tmp_path / "runs/e",
        "f": tmp_path / "runs/f",
    }
    assert [p for p in before if not p.exists()] == [tmp_path / "runs/a/events.out.tfevents.1.host"]


def test_names_contain_differences_in_learning_and_the_length_only_if_nothing_else_differs(
    make: Make, tmp_path: Path
) -> None:
    other_machine = ["torch_threads=2", "env.worker_timeout=99", "logger.every=3", "trainer.eval_episodes=7"]
    short = ["trainer.total_steps=256", "algo=a2c"]
    make(*LITTLE, "algo=a2c", "trainer.total_steps=512", name="1").train()
    make(*LITTLE, *short, *other_machine, name="2").train()
    make(*LITTLE, *short, *other_machine, "algo.gae_lambda=0.9", name="3").train()
    names = RunNames(tmp_path)
    assert [names.of(run).rpartition("/")[2] for run in runs_below(tmp_path)] == [
        "seed0",
        "seed0 trainer.total_steps=256",
        "seed0 algo.gae_lambda=0.9",
    ]


def test_hparams_has_a_row_for_every_run_with_the_main_columns_first(make: Make, tmp_path: Path) -> None:
    """Runs without some values and killed runs have rows too. Uses links and the slower loader."""
    (tmp_path / "runs").mkdir()
    for algo, *more in (["ppo"], ["ppo", "algo.target_kl=0.5", "seed=1"], ["trpo"]):
        trainer = make(
            *LITTLE, *small(algo), *more, "trainer.total_steps=256", name=f"runs/{algo}{len(more)}"
        )
        if algo == "trpo":  # killed after its first row
            trainer.run_dir.mkdir(parents=True, exist_ok=True)
            trainer.writer.open(None, 0)
            trainer.writer.write_row(256, {"rollout/episode_return_recent": 21.0})
        else:
            trainer.train()
    (tmp_path / "links").mkdir()
    RunLinks(tmp_path / "runs", tmp_path / "links").update()
    experiment, rows = hparams_of(tmp_path / "links")
    assert [info.name for info in experiment.hparam_infos][:5] == list(MAIN_COLUMNS)
    columns = {info.name: info.type for info in experiment.hparam_infos}
    assert columns["algo.max_kl"] == columns["algo.target_kl"] == DATA_TYPE_FLOAT64
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert len(metrics) == 5 and {"result/final_return", "rollout/episode_return_recent"} < set(metrics)
    cells = {
        name: (dict(row.hparams), {m.name.tag: m.value for m in row.metric_values}) for name, row in rows
    }
    seeds = {name: values["seed"].number_value for name, (values, _) in cells.items()}
    ppo, other, trpo = (f"CartPole-v1/{name}" for name in ("ppo/seed0", "ppo/seed1", "trpo/seed0"))
    assert seeds == {ppo: 0, other: 1, trpo: 0}
    assert "algo.target_kl" not in cells[ppo][0] and cells[other][0]["algo.target_kl"].number_value == 0.5
    assert cells[trpo][0]["algo.name"].string_value == "trpo" and "algo.max_kl" in cells[trpo][0]
    assert cells[trpo][1] == {"rollout/episode_return_recent": 21.0}
    assert cells[ppo][1]["result/steps"] >= 256


def hparams_of(folder: Path) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the columns of TensorBoard's HParams tab, and its rows by name."""
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(folder))
    runs.Reload()
    board = TBContext(data_provider=MultiplexerDataProvider(runs, str(folder)))
    context, request = Context(board), RequestContext()
    content = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, content, [])
    columns = [ColParams(hparam=info.name, include_in_result=True) for info in experiment.hparam_infos]
    columns += [ColParams(metric=info.name, include_in_result=True) for info in experiment.metric_infos]
    statuses = [STATUS_UNKNOWN, STATUS_SUCCESS, STATUS_FAILURE, STATUS_RUNNING]
    asked = ListSessionGroupsRequest(col_params=columns, allowed_statuses=statuses, slice_size=100)
    answer = Handler(request, context, "", asked).run()
    return experiment, [(row.name, row) for row in answer.session_groups]


def test_every_chart_shows_existing_metrics() -> None:
    """Each chart shows only its metrics: in TensorBoard a pattern matches every tag that starts with it."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    from pgx.runs.loggers.tensorboard import custom_scalars_layout

    read = Layout.FromString(custom_scalars_layout().value[0].tensor.string_val[0])
    assert [category.title for category in read.category] == list(CHARTS)
    for category in read.category:
        for chart in category.chart:
            patterns = [re.compile(pattern) for pattern in chart.multiline.tag]
            shown = {m.tag for m in TABLE if any(pattern.match(m.tag) for pattern in patterns)}
            assert shown == {tag(key) for key in CHARTS[category.title][chart.title]}


@pytest.fixture
def server(make: Make, tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """Start the command on two runs; yield its address, the folder of runs, and the folder of temporary files."""
    for algo in ("trpo", "ppo"):
        make(
            *LITTLE, f"algo={algo}", "trainer.total_steps=1024", *_least(algo), name=f"outputs/{algo}"
        ).train()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgx", "tensorboard", "outputs", "--port", "0"],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(scratch)},
            stderr=said,
        )
    try:
        found = until(lambda: re.search(r"at (http://\S+)", (tmp_path / "said").read_text()))
        yield found[1], tmp_path / "outputs", scratch
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)
        assert not any(path.name.startswith("pgx-") for path in scratch.iterdir())
    finally:
        process.kill()
        process.wait()


def _least(algo: str) -> list[str]:
    return ["algo.critic_minibatch_size=64"] if algo == "trpo" else ["algo.minibatch_size=64"]


def told(address: str, route: str) -> Any:
    with urllib.request.urlopen(address.rstrip("/") + route, timeout=TIMEOUT) as answer:
        return json.load(answer)


def test_the_server_lists_runs_new_runs_and_charts(
    server: tuple[str, Path, Path], make: Make, tmp_path: Path
) -> None:
    address, *_ = server
    both = {"CartPole-v1/trpo/seed0", "CartPole-v1/ppo/seed0"}
    until(lambda: set(told(address, "/data/runs")) == both)
    charts = told(address, "/data/plugin/custom_scalars/layout")
    assert [category["title"] for category in charts["category"]] == list(CHARTS)
    rows = told(address, "/data/plugin/custom_scalars/scalars?tag=health/kl%24&run=CartPole-v1/trpo/seed0")
    assert list(rows["tag_to_events"]) == ["health/kl"] and len(rows["tag_to_events"]["health/kl"]) >= 4
    make(*LITTLE, "algo=a2c", "trainer.total_steps=256", "seed=5", name="outputs/late").train()
    until(lambda: set(told(address, "/data/runs")) == both | {"CartPole-v1/a2c/seed5"})


@pytest.mark.skipif(chromium() is None, reason="needs Chromium (apt-get install chromium)")
def test_a_browser_shows_runs_and_charts(server: tuple[str, Path, Path], tmp_path: Path) -> None:
    address, *_ = server
    until(lambda: len(told(address, "/data/runs")) == 2)
    with Page(tmp_path / "profile") as page:
        page.open(f"{address}?darkMode=false#custom_scalars")
        text = until(lambda: (said := page.text()).count("seed0") >= 2 and "KL(old || new)" in said and said)
        assert "CartPole-v1/trpo/seed0" in text and "CartPole-v1/ppo/seed0" in text
        assert all(category in text for category in CHARTS)
        # The chart of returns, which is open at the start, has a line for each run.
        until(lambda: page.count("path, canvas") > 0)
        picture = page.screenshot()
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
        page.open(f"{address}#hparams")
        until(lambda: "result/final_return" in page.text() and "result/best_return" in page.text())
