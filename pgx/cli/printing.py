"""Lines printed before and after training, and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


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
