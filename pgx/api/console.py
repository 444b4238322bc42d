"""Lines that a run prints before and after training."""

from typing import Any

from pgx.config.run_config import RunConfig
from pgx.core.text import format_number
from pgx.envs.rewards.spec import NO_SHAPING, RewardSpec
from pgx.networks.agents import flat_image_hint
from pgx.training.trainer import Trainer


def print_run_settings(trainer: Trainer, config: RunConfig) -> None:
    """Print a run's settings and folder before it trains."""
    envs = trainer.runner.envs
    print(
        f"{config.label} on {envs.id}{_reward(config.reward)}: {trainer.runner}, "
        f"backend {envs.backend} ({trainer.backend_reason}), "
        f"{'compiled' if trainer.engine.compiled else 'not compiled'} ({trainer.engine.reason}), seed {config.seed}\n"
        + ("run in memory" if trainer.run_dir is None else f"run {trainer.run_dir}"),
        flush=True,
    )
    if hint := flat_image_hint(config.values, envs.obs_spec):
        print(f"hint: {hint}", flush=True)


def _reward(reward: RewardSpec) -> str:
    """Return the name of a shaped reward; an empty text for the environment's own reward."""
    if not reward.is_shaped:
        return ""
    # Terms given without a named reward keep the default name.
    return (
        f", reward {reward.name if reward.name != NO_SHAPING.name else ' + '.join(['none', *reward.terms])}"
    )


def outcome_line(summary: dict[str, Any], seconds: float) -> str:
    """Return the line that says how a run ended and with which return.

    Args:
        summary: of the run.
        seconds: duration of training in this process.
    """
    returned = "no episode ended"
    if summary["final_return"] is not None:
        episodes = summary["final_return_episodes"]
        returned = f"return {format_number(summary['final_return'])} (mean of the last {episodes} episodes)"
    if summary["best_return"] is not None:
        returned += f", best {format_number(summary['best_return'])} at {summary['best_steps']:,} steps"
    done = f"{summary['steps']:,} steps ({summary['iterations']:,} updates)"
    return f"{summary['status']} at {done} after {seconds:,.1f} s: {returned}"
