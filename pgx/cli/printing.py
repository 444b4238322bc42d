"""Lines printed before and after training, and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgx.core.text import format_number

if TYPE_CHECKING:
    from rich.table import Table

    from pgx.config.run_config import RunConfig
    from pgx.envs.rewards.spec import RewardSpec
    from pgx.training.trainer import Trainer


def print_run_settings(trainer: Trainer, config: RunConfig) -> None:
    """Print a run's settings and folder before it trains."""
    from pgx.networks.agents import flat_image_hint

    envs = trainer.runner.envs
    print(
        f"{config.label} on {envs.id}{_reward(config.reward)}: {trainer.runner}, "
        f"backend {envs.backend} ({trainer.backend_reason}), "
        f"{'compiled' if trainer.engine.compiled else 'not compiled'} ({trainer.engine.reason}), seed {config.seed}\n"
        f"run {trainer.run_dir}",
        flush=True,
    )
    if hint := flat_image_hint(config.values, envs.obs_spec):
        print(f"hint: {hint}", flush=True)


def _reward(reward: RewardSpec) -> str:
    """Return the name of a shaped reward; an empty text for the environment's own reward."""
    from pgx.envs.rewards.spec import NO_SHAPING

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


_VIDEO = "episode.gif"


def next_commands(run_dir: Path, env_id: str, status: str) -> list[str]:
    """Return commands to continue with after a run, one per line, ready to paste into the current shell.

    Args:
        run_dir: the run's folder.
        env_id: the environment's id.
        status: of the summary.
    """
    from pgx.config.stored import pgx_command

    run = relative_to_cwd(run_dir)
    # In the default layout all runs are below the first folder of the path.
    all_runs = run if run.is_absolute() or run.parts[0] == ".." else Path(run.parts[0])
    commands = {
        "view": pgx_command("tensorboard", all_runs),
        "diagnose": pgx_command("doctor", run),
        "evaluate": pgx_command("eval", run, of=run),
        "record": pgx_command("record", run, "--out", run / _VIDEO, of=run) if has_video(env_id) else None,
        "compare": pgx_command("compare", all_runs),
        "resume": pgx_command("train", "--resume", run, of=run) if status == "interrupted" else None,
    }
    return [f"  {what:<9} {how}" for what, how in commands.items() if how is not None]


def relative_to_cwd(path: Path) -> Path:
    """Return a path relative to the current folder if it is below that folder, else unchanged."""
    relative = Path(os.path.relpath(path))
    return path if relative.parts[:1] == ("..",) else relative


def has_video(env_id: str) -> bool:
    """Return whether an environment declares the render mode rgb_array; False if its class cannot be imported."""
    import gymnasium

    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    if spec is None or spec.entry_point is None:
        return False
    entry_point: Any = spec.entry_point
    if isinstance(entry_point, str):
        try:
            entry_point = gymnasium.envs.registration.load_env_creator(entry_point)
        except Exception:  # EnvPool runs environments whose Python packages may be missing
            return False
    metadata = getattr(entry_point, "metadata", None)  # of a Wrapper class it is a property, without a value
    modes = metadata.get("render_modes") if isinstance(metadata, Mapping) else None
    return "rgb_array" in (modes or ())


def print_table(table: Table) -> None:
    """Print a table: wrapped to the width of a terminal, else 200 columns wide for pipes."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
