"""Export of a policy to a file that runs without pgx."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from pgx.api.recording import refuse_missing_folder
from pgx.config.run_config import RunConfig
from pgx.core.agent import State
from pgx.core.errors import RunError, UserError
from pgx.core.seeding import derive
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.spaces import action_spec
from pgx.envs.tensor_spaces import first_observation, tensor_action
from pgx.networks.export.formats import (
    Difference,
    Format,
    compare_actions,
    load_exported,
    refuse_missing,
    write_exported,
)
from pgx.networks.export.network import Deterministic, collect_sample, with_outliers
from pgx.training.build import load_agent

_CHECK_OBSERVATIONS = 1_000  # observations on which the file is compared
_DEFAULT_CLIP = 10.0  # standard deviations, for runs without env.obs_clip


@dataclass(frozen=True)
class ExportedPolicy:
    """File with a policy, and how it was checked.

    Args:
        path: of the file.
        format: of the file.
        inputs: name, type and shape of each input; B is the batch size.
        outputs: names of the outputs.
        difference: between the actions of the file and of the run, on observations of the environment and outliers.
    """

    path: Path
    format: Format
    inputs: Sequence[str]
    outputs: Sequence[str]
    difference: Difference


_FORMATS: dict[str, Format] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
}


def format_by_suffix(path: Path) -> Format:
    """Return the format of a file by its suffix.

    Raises:
        UserError: the suffix has no format.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(_FORMATS)}")
    return _FORMATS[path.suffix.lower()]


def export_policy(
    config: RunConfig, state: State, path: Path, file_format: Format, seed: int
) -> ExportedPolicy:
    """Write the policy of a checkpoint to a file that runs without pgx, and compare its actions with the run's.

    Args:
        config: of the run.
        state: of the checkpoint.
        path: file to write.
        file_format: onnx or torchscript.
        seed: of the observations that are compared.

    Raises:
        UserError: the file cannot be written, or a package for the format is missing.
        RunError: the file acts differently from the run; it is removed.
    """
    refuse_missing(file_format)
    refuse_missing_folder(path)
    # Actions do not depend on the reward, so it is not built.
    config = replace(config, device="cpu", reward=NO_SHAPING)
    agent, envs = load_agent(config, state, max_envs=config.env.num_envs)
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
        write_exported(network, [each[:2] for each in inputs], file_format, part)
        convert = action_spec(envs.id, actions)[1]
        run_file = load_exported(file_format, part, network.inputs)
        difference = compare_actions(agent, convert, run_file, sample, inputs)
        if not difference.acceptable:
            raise RunError(f"{path}: not written, because it acts differently from the run: {difference}")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    shapes = _shapes(network.inputs, inputs)
    return ExportedPolicy(path, file_format, shapes, network.outputs, difference)


def _shapes(names: Sequence[str], inputs: Sequence[Tensor]) -> list[str]:
    """Return name, type and shape of each input."""
    return [
        f"{name} {str(part.dtype).removeprefix('torch.')} [{', '.join(['B', *map(str, part.shape[1:])])}]"
        for name, part in zip(names, inputs, strict=True)
    ]
