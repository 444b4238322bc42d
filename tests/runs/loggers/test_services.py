"""Weights & Biases and MLflow, real and offline: values are those of metrics.jsonl, also after a resume."""

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgx.core.imports import import_problem
from pgx.runs.loggers.jsonl import read_rows
from tests.command import Command

RUN = [
    "train", "env=CartPole-v1", "env.backend=gymnasium", "algo=a2c", "env.num_envs=4", "runner.rollout_steps=32",
    "trainer.total_steps=256", "trainer.compile=false", "logger.every=1", "run_dir=run",
]  # fmt: skip
Points = dict[str, dict[int, float]]  # values by tag and step


def logged(run: Path) -> Points:
    """Return what metrics.jsonl has."""
    points: Points = defaultdict(dict)
    for row in read_rows(run / "metrics.jsonl"):
        for tag, value in row.items():
            if tag != "step":
                points[tag][row["step"]] = value
    return points


HEADER, BLOCK = 7, 32_768  # bytes: of the file and of each part, and between the beginnings of blocks


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file of wandb: LevelDB's log format behind a header.

    Each part is CRC (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last) and content.
    """
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the end of a block that holds no header
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):
            yield record
            record = b""


def sent_to_wandb(run: Path) -> tuple[Points, set[str]]:
    """Return the values in the offline files of wandb, and the ids of their runs."""
    from wandb.proto import wandb_internal_pb2

    points: Points = defaultdict(dict)
    ids = set()
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            if "step" in items:
                step = int(json.loads(items["step"]))
                for tag, text in items.items():
                    if not tag.startswith("_") and tag != "step":
                        points[tag][step] = json.loads(text)
    return points, ids


def assert_equal(sent: Points, run: Path) -> None:
    """Compare what a service has with metrics.jsonl; results of the summary are there in addition."""
    ours = logged(run)
    theirs = {tag: values for tag, values in sent.items() if not tag.startswith("result/")}
    assert theirs.keys() == ours.keys()
    for tag, values in ours.items():
        assert theirs[tag] == pytest.approx(values, rel=1e-9), tag


@pytest.mark.skipif(import_problem("wandb") is not None, reason="needs wandb")
@pytest.mark.system
def test_wandb_has_the_values_of_the_rows_and_continues_a_resumed_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = command(*RUN, "logger.sinks=[wandb]")
    assert said.code == 0 and said.err == ""
    assert_equal(sent_to_wandb(tmp_path / "run")[0], tmp_path / "run")
    assert command("train", "--resume", "run", "trainer.total_steps=600").code == 0
    sent, ids = sent_to_wandb(tmp_path / "run")
    assert_equal(sent, tmp_path / "run")
    assert len(ids) == 1


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of an empty store in a file, which runs use too."""
    if problem := import_problem("mlflow"):
        pytest.skip(problem)
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def sent_to_mlflow(client: Any, experiment: str) -> tuple[Any, Points]:
    """Return the only run of an experiment and its values."""
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    history = {tag: client.get_metric_history(run.info.run_id, tag) for tag in run.data.metrics}
    return run, {tag: {point.step: point.value for point in points} for tag, points in history.items()}


@pytest.mark.system
def test_mlflow_has_the_values_of_the_rows_and_continues_a_resumed_run(
    command: Command, tmp_path: Path, mlflow_client: Any
) -> None:
    said = command(*RUN, "logger.sinks=[mlflow]", "logger.project=carts")
    assert said.code == 0 and said.err == ""
    run, sent = sent_to_mlflow(mlflow_client, "carts")
    assert_equal(sent, tmp_path / "run")
    assert run.info.status == "FINISHED" and run.data.params["algo.name"] == "a2c"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sent["result/final_return"] == {summary["steps"]: pytest.approx(summary["final_return"])}
    assert command("train", "--resume", "run", "trainer.total_steps=600").code == 0
    again, sent = sent_to_mlflow(mlflow_client, "carts")
    assert again.info.run_id == run.info.run_id and again.info.status == "FINISHED"
    assert_equal(sent, tmp_path / "run")


@pytest.mark.system
def test_mlflow_keeps_the_videos_and_the_state_of_a_failed_run(
    command: Command, tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(*RUN, "logger.sinks=[mlflow]", "trainer.record_every=128", "trainer.record_seconds=0.5")
    assert said.code == 0, said.err
    run, _ = sent_to_mlflow(mlflow_client, "pgx")
    names = [each.path for each in mlflow_client.list_artifacts(run.info.run_id, "videos")]
    assert names and all(name.endswith(".gif") for name in names)
    (tmp_path / "breaks.py").write_text("def callback(state):\n    raise RuntimeError('stop')\n")
    monkeypatch.syspath_prepend(tmp_path)
    failing = [each.replace("run_dir=run", "run_dir=other") for each in RUN]
    code = command(
        *failing, "logger.sinks=[{name: mlflow, project: failed}]", "callbacks=[breaks:callback]"
    ).code
    assert code == 1 and sent_to_mlflow(mlflow_client, "failed")[0].info.status == "FAILED"


def test_an_mlflow_that_cannot_start_is_one_message(
    command: Command, tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://nowhere")
    (problem,) = command(*RUN, "logger.sinks=[mlflow]").problems
    assert problem.startswith("logger.sinks: mlflow cannot start (") and "set MLFLOW_TRACKING_URI" in problem
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
