"""What a file that somebody else wrote would have pgx import or join, which is the user's to allow: --trust."""

from collections.abc import Collection, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pgx.config.foreign import foreign_values
from pgx.core.errors import UserError


def imports_of(cfg: DictConfig, source: Path, named: Collection[str]) -> list[str]:
    """A line for what a run of a config would import: the modules of its environment, its rule and its reward,
    where they are not pgx's.

    Args:
        cfg: of the run.
        source: the file that it stands in.
        named: environments, rules (module:Name) and functions of rewards that the user has named,
            which need not be told.
    """
    values = {
        "env": {"id": OmegaConf.select(cfg, "env.id")},
        "algo": {"name": OmegaConf.select(cfg, "algo.name")},
        "reward": {"terms": OmegaConf.select(cfg, "reward.terms")},
    }
    found = []
    for foreign in foreign_values(values):
        what = f"the module '{foreign.module}'" if foreign.module else "whatever env.kwargs name"
        verb = " with " if foreign.key == "reward.terms" else "="
        if foreign.value not in named:
            found.append(f"{source}: {foreign.key}{verb}{foreign.value} would import {what}")
    return found


def joins_of(cfg: DictConfig, source: Path) -> list[str]:
    """A line for the Ray cluster that training with a config would join: what a cluster answers is unpickled."""
    address = OmegaConf.select(cfg, "runner.address")
    return [] if address is None else [f"{source}: runner.address={address} would join that Ray cluster"]


def refuse_untrusted(lines: Sequence[str], trust: bool) -> None:
    """Refuse what files would have pgx do, unless the user said that they may.

    Args:
        lines: from the functions above.
        trust: --trust was given.

    Raises:
        UserError: the lines, each with what allows it.
    """
    if lines and not trust:
        raise UserError(*(f"{line}, which you have not named yourself; --trust allows it" for line in lines))
