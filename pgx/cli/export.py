"""`pgx export`: write a policy to a file that runs without pgx, and check that both act alike."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pgx.cli.arguments import Command, add_checkpoint, add_run

if TYPE_CHECKING:
    from pgx.networks.export.formats import Format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--to", choices=["onnx", "torchscript"], required=True, help="file format")
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write")
    add_checkpoint(parser, "the observations used to check the file")


def run(options: argparse.Namespace) -> int:
    return export(options.run, options.checkpoint, options.to, options.out, options.seed, options.trust)


COMMAND = Command(
    "export",
    "write a run's policy to a file that runs without pgx (ONNX, TorchScript)",
    "Write a policy to a file that runs without pgx. The file is kept only if it acts like the run "
    "(docs/show.md).",
    add_arguments,
    run,
)


def export(run: str, checkpoint: str, to: Format, out: str, seed: int, trust: bool) -> int:
    """Write a policy to a file and compare the file with the run; return the exit code."""
    from pgx.api.exporting import export_policy
    from pgx.api.run_folder import load_trusted_config
    from pgx.networks.export.formats import refuse_missing
    from pgx.runs.checkpoints import Checkpoints

    refuse_missing(to)  # before the run is read
    config, path = load_trusted_config(Path(run), trust), Path(out)
    written = export_policy(config, Checkpoints(Path(run)).load(checkpoint), path, to, seed)
    print(f"{out}: {to}, {path.stat().st_size / 1000:,.0f} KB, of {run}, checkpoint {checkpoint}")
    print(f"  inputs  {', '.join(written.inputs)}")
    print(f"  outputs {', '.join(written.outputs)}")
    print(f"  {written.difference}")
    return 0
