"""What to do with a run that has ended, as commands that work when pasted into the shell it was started from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from pgx.config.run_config import RunConfig
from pgx.config.stored import command
from pgx.core.formatting import shown
from pgx.envs.rewards.plan import OWN, RewardPlan
from pgx.networks.agents import flat_image_hint
from pgx.training.trainer import Trainer


def announce(trainer: Trainer, config: RunConfig) -> None:
    """What is about to be trained, on what, and where it goes."""
    envs = trainer.runner.envs
    print(
        f"{config.label} on {envs.id}{_paid(config.reward)}: {trainer.runner}, "
        f"backend {envs.backend} ({trainer.backend_reason}), "
        f"{'compiled' if trainer.engine.compiled else 'not compiled'} ({trainer.engine.reason}), seed {config.seed}\n"
        f"run {trainer.run_dir}",
        flush=True,
    )
    if hint := flat_image_hint(config.values, envs.obs_spec):
        print(f"hint: {hint}", flush=True)


def _paid(reward: RewardPlan) -> str:
    """What reward is trained on, where it is another than the environment's own."""
    if not reward.shapes:
        return ""
    # Terms given one by one leave the name as it is.
    return f", reward {reward.name if reward.name != OWN.name else ' + '.join(['none', *reward.terms])}"


def outcome(summary: dict[str, Any], seconds: float) -> str:
    """How a run ended after so many seconds of this life, and what it earned."""
    returned = "no episode ended"
    if summary["final_return"] is not None:
        episodes = summary["final_return_episodes"]
        returned = f"return {shown(summary['final_return'])} (mean of the last {episodes} episodes)"
    if summary["best_return"] is not None:
        returned += f", best {shown(summary['best_return'])} at {summary['best_steps']:,} steps"
    done = f"{summary['steps']:,} steps ({summary['iterations']:,} updates)"
    return f"{summary['status']} at {done} after {seconds:,.1f} s: {returned}"


VIDEO = "episode.gif"


def hints(run_dir: Path, env_id: str, status: str) -> list[str]:
    """Return a line for each command.

    Args:
        run_dir: of the run.
        env_id: of its environment.
        status: how it ended.
    """
    run = from_here(run_dir)
    # Runs of the default layout share the first folder of their paths; others may lie anywhere.
    together = run if run.is_absolute() or run.parts[0] == ".." else Path(run.parts[0])
    said = {
        "view": command("tensorboard", together),
        "diagnose": command("doctor", run),
        "evaluate": command("eval", run, of=run),
        "record": command("record", run, "--out", run / VIDEO, of=run) if renders(env_id) else None,
        "compare": command("compare", together),
        "resume": command("train", "--resume", run, of=run) if status == "interrupted" else None,
    }
    return [f"  {what:<9} {how}" for what, how in said.items() if how is not None]


def from_here(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    relative = Path(os.path.relpath(path))
    return path if relative.parts[:1] == ("..",) else relative


def renders(env_id: str) -> bool:
    """Return whether an environment declares that it renders pictures; False where its class is not available here."""
    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    if spec is None or spec.entry_point is None:
        return False
    made: Any = spec.entry_point
    if isinstance(made, str):
        try:
            made = gymnasium.envs.registration.load_env_creator(made)
        except (
            Exception
        ):  # whatever an import raises; EnvPool runs environments whose packages need not be installed
            return False
    metadata = getattr(
        made, "metadata", None
    )  # a property where the class is a Wrapper: known of objects alone
    modes = metadata.get("render_modes") if isinstance(metadata, Mapping) else None
    return "rgb_array" in (modes or ())
