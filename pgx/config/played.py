"""What may differ from a run's config when its agent plays: where the environments run, not what the agent is."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from pgx.config.overrides import parse
from pgx.core.errors import UserError
from pgx.core.schema import nearest

KEYS = (
    "device",
    "torch_threads",
    "env.backend",
    "env.num_envs",
    "env.num_threads",
    "env.worker_timeout",
    "trainer.eval_episodes",
    "trainer.eval_max_steps",
)
SECTION = "env.kwargs"  # any key below it


def with_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return a run's config with what is changed for playing.

    Args:
        cfg: of the run.
        overrides: as on the command line, e.g. env.backend=gymnasium.

    Raises:
        UserError: for each that is not of the form key=value, or that would change the agent or its task.
    """
    changed, problems = cfg.copy(), []
    for override in parse(list(overrides)):
        if problem := _problem(cfg, override):
            problems.append(problem)
            continue
        with open_dict(changed):
            OmegaConf.update(changed, override.key_or_group, override.value(), force_add=True)
    if problems:
        raise UserError(*problems)
    return changed


def _problem(cfg: DictConfig, override: Override) -> str | None:
    key, text = override.key_or_group, override.input_line or ""
    offered = f"{', '.join(KEYS)} and {SECTION}.* may change"
    if override.is_sweep_override() or override.is_delete() or override.package:
        return f"{text}: one value is expected; {offered}"
    if key in KEYS or key == SECTION or key.startswith(f"{SECTION}."):
        return None
    if OmegaConf.select(cfg, key) is None and key not in cfg:
        return f"{text}: unknown key{nearest(key, KEYS)}; {offered}"
    return f"{text}: the agent was trained with another value or does not use it when it plays; {offered}"
