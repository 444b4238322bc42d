"""Files of policies: written, and read again as whoever runs them would.

Whether a file acts as the agent does that it was made of.
"""

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
    """Write a network's file.

    Args:
        network: in the form that it is to act in.
        inputs: two rows of each, as examples; a file takes any number of rows.
        to: the format.
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
    """Without what torch's exporters say about each other, and about libraries that are of no use here."""
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
    """What a file does, by the library that runs it.

    Args:
        to: its format.
        path: of the file.
        names: of its inputs.
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


TOLERANCE = 1e-4  # of max(1, |number|): sums of float32 are in another order there


@dataclass(frozen=True)
class Difference:
    """What was compared, and how far apart it is at most."""

    rows: int
    largest: float  # of real numbers, |file - agent| / max(1, |agent|)
    others: int  # rows in which a whole number is another one

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
    """Have both act at every row of a sample: all rows at once, and one alone, as whoever plays will.

    Args:
        agent: the original, on the CPU.
        convert: from its actions to those of the environment (envs/spaces.py).
        run: the file.
        sample: R rows, as the agent sees them.
        inputs: the same, as the file takes them.
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
                # NaN is no number that a maximum would pass on from everywhere.
                largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
            else:
                others = max(others, int((theirs != ours).reshape(len(ours), -1).any(axis=1).sum()))
    return Difference(rows, largest, others)
