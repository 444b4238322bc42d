"""What a file that somebody else wrote would have pgx import or join, which is the user's to allow: --trust."""

from collections.abc import Collection, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pgx.errors import UserError
from pgx.rewards.plan import functions_of

# They make an environment of another library, which is named in their keywords, module and all.
_ADAPTERS = frozenset({"GymV21Environment-v0", "GymV26Environment-v0"})


def imports_of(cfg: DictConfig, source: Path, named: Collection[str]) -> list[str]:
    """A line for what a run of a config would import: the modules of its environment, its rule and its reward,
    where they are not pgx's.

    Args:
        cfg: of the run.
        source: the file that it stands in.
        named: environments, rules (module:Name) and functions of rewards that the user has named,
            which need not be told.
    """
    found = []
    for key in ("env.id", "algo.name"):
        value = str(OmegaConf.select(cfg, key))
        if ":" in value and value not in named:
            found.append(f"{source}: {key}={value} would import the module '{module_of(value)}'")
    env_id = str(OmegaConf.select(cfg, "env.id"))
    if env_id in _ADAPTERS and env_id not in named:
        found.append(f"{source}: env.id={env_id} would import whatever env.kwargs name")
    for function in functions_of(OmegaConf.select(cfg, "reward.terms")):
        if function not in named:
            found.append(
                f"{source}: reward.terms with {function} would import the module '{module_of(function)}'"
            )
    return found


def module_of(name: str) -> str:
    """That of an environment or a rule, module:Name, or of a function, module.name."""
    return name.rpartition(":" if ":" in name else ".")[0]


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
