"""What can be trained by several ranks together, and how many of them."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from pgx.algos import rule, rules
from pgx.compiler.choose import why_not
from pgx.config.check import plain_values
from pgx.core.errors import UserError
from pgx.networks import WITH_MEMORY


def check_ranks(cfg: DictConfig, size: int) -> None:
    """Refuse a config, in itself sound, that so many ranks cannot train together.

    Raises:
        UserError: naming every reason.
    """
    if size > 1 and (found := rank_problems(plain_values(cfg), size)):
        raise UserError(*found)


def rank_problems(values: Mapping[str, Any], size: int) -> list[str]:
    """Every reason, in words; empty when there is none.

    Args:
        values: of a config that is sound in itself.
        size: ranks, > 1.
    """
    num_envs, runner, policy = values["env"]["num_envs"], values["runner"], values["policy"]["name"]
    found = []
    if num_envs % size:
        below = num_envs - num_envs % size
        nearest = f"{below} or {below + size}" if below else f"{size}"
        found.append(
            f"env.num_envs={num_envs}: {size} ranks share the environments out, {num_envs} / {size} = "
            f"{num_envs / size:.4g} each; expected a multiple of {size}: {nearest}"
        )
    name = values["algo"]["name"]
    algorithm = rule(name)(**{key: value for key, value in values["algo"].items() if key != "name"})
    if "ranks" not in algorithm.uses:
        found.append(
            f"algo={name}: as configured, it takes the rows of one rank for all there are; {', '.join(_able())} "
            "average over ranks"
        )
    if runner["name"] != "sync":
        found.append(
            f"runner={runner['name']}: ranks step their environments together, in rollouts of one length; runner=sync"
        )
    elif runner["lag"] > 0:
        found.append(
            f"runner.lag={runner['lag']}: a checkpoint holds the rollouts that wait, and rank 0 has its own alone; "
            "runner.lag=0"
        )
    if policy in WITH_MEMORY:
        found.append(
            f"policy={policy}: minibatches over ranks are dealt out by rows, and a policy with memory needs whole "
            "stretches; a policy without memory"
        )
    if values["trainer"]["compile"] is True:
        found.append(f"trainer.compile=true: {why_not('cpu', size)}; trainer.compile=auto runs without")
    return found


def _able() -> list[str]:
    """Rules that average over ranks, however they are configured."""
    uses = {name: rule(name).uses for name in rules()}
    return [name for name, own in uses.items() if isinstance(own, frozenset) and "ranks" in own]
