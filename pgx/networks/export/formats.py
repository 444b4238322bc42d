"""Exported files: writing, loading with the library that users run, and comparison with the agent."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.agent import Agent
from pgx.core.imports import require
from pgx.networks.export.network import Deterministic, Sample

Format = Literal["onnx", "torchscript"]
RunExported = Callable[[Sequence[Tensor]], list[NDArray[Any]]]
NEEDED: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torchscript": ()}


def refuse_missing(to: Format) -> None:
    """Refuse a format whose packages cannot be imported.

    Raises:
        UserError: naming each package and how to install it.
    """
    require(f"--to {to}", *NEEDED[to])


def write_exported(network: Deterministic, inputs: Sequence[Tensor], to: Format, path: Path) -> None:
    """Write a network to a file.

    Args:
        network: to export.
        inputs: two example rows of each input; the file takes any number of rows.
        to: format.
        path: of the file.
    """
    network.eval()
    with _silence(), torch.no_grad():
        if to == "onnx":
            _write_onnx(network, inputs, path)
        else:
            traced = torch.jit.trace(network, tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path))


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings of torch's exporters that users cannot act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_onnx(network: Deterministic, inputs: Sequence[Tensor], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    obs, *rest = [{0: batch} for _ in inputs]
    torch.onnx.export(
        network,
        tuple(inputs),
        str(path),
        input_names=list(network.inputs),
        output_names=list(network.outputs),
        dynamic_shapes=(obs, tuple(rest)) if rest else (obs,),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def load_exported(to: Format, path: Path, names: Sequence[str]) -> RunExported:
    """Load a file with the library that runs it; return a function from inputs to outputs.

    Args:
        to: format.
        path: of the file.
        names: of the inputs.
    """
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(inputs: Sequence[Tensor]) -> list[NDArray[Any]]:
            given = {name: part.numpy() for name, part in zip(names, inputs, strict=True)}
            return [np.asarray(part) for part in session.run(None, given)]

        return run
    with _silence():
        script = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def call(inputs: Sequence[Tensor]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [part.numpy() for part in script(*inputs)]

    return call


TOLERANCE = 1e-4  # relative to max(1, |number|); the file adds float32 numbers in another order


@dataclass(frozen=True)
class Difference:
    """Result of comparing a file with the agent."""

    rows: int
    largest: float  # of real numbers, |file - agent| / max(1, |agent|)
    others: int  # rows in which an integer differs

    @property
    def acceptable(self) -> bool:
        return self.largest <= TOLERANCE and self.others == 0

    def __str__(self) -> str:
        chosen = f", another choice in {self.others:,}" if self.others else ""
        return f"largest difference {self.largest:.1e} over {self.rows:,} observations{chosen}"


def compare_actions(
    agent: Agent,
    convert: Callable[[NDArray[Any]], NDArray[Any]],
    run: RunExported,
    sample: Sample,
    inputs: Sequence[Tensor],
) -> Difference:
    """Compare the actions of a file with those of the agent, for all rows of a sample at once and for one row.

    Args:
        agent: on the CPU.
        convert: map from the agent's actions to those of the environment (envs/spaces.py).
        run: loaded file.
        sample: R rows for the agent.
        inputs: the same rows as inputs of the file.

    Raises:
        ValueError: an output of the file has another shape.
    """
    rows = len(sample.obs)
    time = torch.zeros(rows, dtype=torch.int64)
    acted = agent.act_greedily(agent.observe(sample.obs, time, sample.action_mask, sample.recurrent_state))
    expected = [convert(acted.executed.numpy())]
    if acted.recurrent_state is not None:
        expected.append(acted.recurrent_state.numpy())
    largest, others = 0.0, 0
    for part in (slice(0, 1), slice(None)):
        got = run([each[part] for each in inputs])
        for theirs, ours in zip(got, (each[part] for each in expected), strict=True):
            if theirs.shape != ours.shape:
                raise ValueError(f"expected {ours.shape} from the file, got {theirs.shape}")
            if ours.dtype.kind == "f":
                apart = np.abs(theirs.astype(float) - ours) / np.maximum(1.0, np.abs(ours))
                # max() does not propagate NaN reliably.
                largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
            else:
                others = max(others, int((theirs != ours).reshape(len(ours), -1).any(axis=1).sum()))
    return Difference(rows, largest, others)
