"""What a file that somebody else wrote would have pgx import or join, which is the user's to allow: --trust."""

from collections.abc import Collection, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pgx.errors import UserError
from pgx.rewards.plan import functions_of

# They make an environment of another library, which is named in their keywords, module and all.
_ADAPTERS = frozenset({"GymV21Environment-v0", "GymV26Environment-v0"})


def imports_of(cfg: DictConfig, source: Path, named: Collection[str] = ()) -> list[str]:
    """A line for each thing that making the environments of a config would import; empty for pgx's own.

    Args:
        cfg: read from a file.
        source: the file.
        named: ids of environments and functions of rewards that the user has named.
    """
    env_id, found = str(OmegaConf.select(cfg, "env.id")), []
    module, colon, _ = env_id.rpartition(":")
    if env_id not in named:
        if colon:
            found.append(f"{source}: env.id={env_id} would import the module '{module}'")
        elif env_id in _ADAPTERS:
            found.append(f"{source}: env.id={env_id} would import whatever env.kwargs name")
    for function in functions_of(OmegaConf.select(cfg, "reward.terms")):
        if function not in named:
            module = function.rpartition(".")[0]
            found.append(f"{source}: reward.terms with {function} would import the module '{module}'")
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
