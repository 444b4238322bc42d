"""Files of policies: written, and read again as whoever runs them would."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgx.core.extras import require
from pgx.networks.export.network import Deterministic

Format = Literal["onnx", "torchscript"]
Run = Callable[[Sequence[Tensor]], list[NDArray[Any]]]
NEEDED: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torchscript": ()}


def refuse_missing(to: Format) -> None:
    """Refuse a format whose packages cannot be imported.

    Raises:
        UserError: naming each package and how to install it.
    """
    require(f"--to {to}", *NEEDED[to])


def write(network: Deterministic, inputs: Sequence[Tensor], to: Format, path: Path) -> None:
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


def read(to: Format, path: Path, names: Sequence[str]) -> Run:
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
