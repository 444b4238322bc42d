"""`pgx export`: write a policy to a file that runs without pgx, and check that both act alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgx.cli.arguments import Command, add_checkpoint, add_run
from pgx.core.errors import RunError, UserError

if TYPE_CHECKING:
    from torch import Tensor

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


_CHECK_OBSERVATIONS = 1_000  # observations on which the file is compared
_DEFAULT_CLIP = 10.0  # standard deviations, for runs without env.obs_clip


def export(run: str, checkpoint: str, to: Format, out: str, seed: int, trust: bool) -> int:
    """Write a policy to a file and compare the file with the run; return the exit code.

    Raises:
        RunError: the file acts differently from the run; it is removed.
    """
    from pgx.cli.run_folder import load_trusted_config
    from pgx.core.seeding import derive
    from pgx.envs.gymnasium_backend import make_single
    from pgx.envs.rewards.spec import NO_SHAPING
    from pgx.envs.spaces import action_spec
    from pgx.envs.tensor_spaces import first_observation, tensor_action
    from pgx.networks.export.formats import compare_actions, load_exported, refuse_missing, write_exported
    from pgx.networks.export.network import Deterministic, collect_sample, with_outliers
    from pgx.training.build import load_agent

    refuse_missing(to)
    path = Path(out)
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: folder {path.parent} does not exist; create it")
    config = load_trusted_config(Path(run), trust)
    # Actions do not depend on the reward, so it is not built.
    config = replace(config, device="cpu", reward=NO_SHAPING)
    agent, envs, _ = load_agent(config, Path(run), checkpoint, max_envs=config.env.num_envs)
    single = make_single(envs.id, dict(config.env.kwargs))
    try:
        sample = collect_sample(agent, envs, _CHECK_OBSERVATIONS, derive(seed, "export"))
        clip = config.env.obs_clip if config.env.normalize_obs else None
        sample = with_outliers(sample, 2 * (clip or _DEFAULT_CLIP))
        observations, actions = single.observation_space, single.action_space
    finally:
        single.close()
        envs.close()
    network = Deterministic(
        agent,
        first_observation(observations),
        tensor_action(actions),
        masked=sample.action_mask is not None,
    )
    inputs = sample.inputs(network.first)
    part = path.with_name(f".{path.name}.part")
    try:
        write_exported(network, [each[:2] for each in inputs], to, part)
        convert, run_file = action_spec(envs.id, actions)[1], load_exported(to, part, network.inputs)
        difference = compare_actions(agent, convert, run_file, sample, inputs)
        if not difference.acceptable:
            raise RunError(f"{out}: not written, because it acts differently from {run}: {difference}")
        part.replace(path)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    print(f"{out}: {to}, {path.stat().st_size / 1000:,.0f} KB, of {run}, checkpoint {checkpoint}")
    print(f"  inputs  {_shapes(network.inputs, inputs)}")
    print(f"  outputs {', '.join(network.outputs)}")
    print(f"  {difference}")
    return 0


def _shapes(names: Sequence[str], inputs: Sequence[Tensor]) -> str:
    """Return names, types and shapes of the inputs; B is the batch size."""
    parts = []
    for name, part in zip(names, inputs, strict=True):
        shape = ", ".join(["B", *map(str, part.shape[1:])])
        parts.append(f"{name} {str(part.dtype).removeprefix('torch.')} [{shape}]")
    return ", ".join(parts)
