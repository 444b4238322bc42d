"""Overrides of stored configs: for evaluation, and for resuming a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from pgx.config.overrides import parse
from pgx.config.run_config import RunConfig
from pgx.config.stored import renamed_problem
from pgx.core.errors import UserError
from pgx.core.schema import format_value, nearest
from pgx.ops.optim.formulas import SCHEDULES

EVALUATION_KEYS = (
    "device",
    "torch_threads",
    "env.backend",
    "env.num_envs",
    "env.num_threads",
    "env.worker_timeout",
    "trainer.eval_episodes",
    "trainer.eval_max_steps",
)
_EVALUATION_SECTION = "env.kwargs"  # and all keys in it


def with_evaluation_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return a run's config with overrides for evaluation, which may change where environments run.

    Args:
        cfg: of the run.
        overrides: as on the command line, e.g. env.backend=gymnasium.

    Raises:
        UserError: an override is not key=value, or would change the agent or its task.
    """
    changed, problems = cfg.copy(), []
    for override in parse(list(overrides)):
        if problem := _evaluation_problem(cfg, override):
            problems.append(problem)
            continue
        with open_dict(changed):
            OmegaConf.update(changed, override.key_or_group, override.value(), force_add=True)
    if problems:
        raise UserError(*problems)
    return changed


def _evaluation_problem(cfg: DictConfig, override: Override) -> str | None:
    key, text = override.key_or_group, override.input_line or ""
    offered = f"{', '.join(EVALUATION_KEYS)} and {_EVALUATION_SECTION}.* may change"
    if override.is_sweep_override() or override.is_delete() or override.package:
        return f"{text}: one value is expected; {offered}"
    if key in EVALUATION_KEYS or key == _EVALUATION_SECTION or key.startswith(f"{_EVALUATION_SECTION}."):
        return None
    if problem := renamed_problem(key):
        return problem
    if OmegaConf.select(cfg, key) is None and key not in cfg:
        return f"{text}: unknown key{nearest(key, EVALUATION_KEYS)}; {offered}"
    return f"{text}: the agent was trained with another value or does not use it when it plays; {offered}"


# yes: final parameters equal those of an uninterrupted run; no: they do not; auto: see `cost`.
SameBits = Literal["yes", "no"]


@dataclass(frozen=True)
class AllowedChange:
    """Key, or section of keys with a dot at its end, that a resumed run may change."""

    key: str
    same_bits: SameBits
    cost: str  # consequence of the change, for the documentation


ALLOWED_CHANGES = (
    AllowedChange("trainer.total_steps", "no", "schedules are annealed to the new number of steps"),
    AllowedChange("trainer.checkpoint_every", "no", "each checkpoint is an episode boundary"),
    AllowedChange("trainer.keep_checkpoints", "yes", "older checkpoints are removed or kept"),
    AllowedChange("trainer.eval_every", "yes", "evaluations use other environments and seeds"),
    AllowedChange("trainer.eval_episodes", "yes", "affects evaluations only"),
    AllowedChange("trainer.record_every", "yes", "videos use other environments and seeds"),
    AllowedChange("trainer.record_seconds", "yes", "affects videos only"),
    AllowedChange("trainer.record_width", "yes", "affects videos only"),
    AllowedChange("trainer.compile", "no", "compiled code adds numbers in another order"),
    AllowedChange("trainer.compile_min_steps", "yes", "does not affect a resumed run"),
    AllowedChange("trainer.on_nan", "yes", "has no effect while all numbers are finite"),
    AllowedChange("trainer.disk_retry_seconds", "yes", "affects writing only"),
    AllowedChange("logger.", "yes", "affects measurements and output only"),
    AllowedChange("callbacks", "yes", "affects a run only where a callback stops it"),
    AllowedChange("torch_threads", "no", "more threads add numbers in another order"),
    AllowedChange("env.num_threads", "yes", "results do not depend on the thread"),
    AllowedChange("env.worker_timeout", "yes", "affects waiting only"),
    AllowedChange("device", "no", "processors round differently"),
    AllowedChange("runner.address", "yes", "if the run is reproducible at all (see above)"),
    AllowedChange("runner.connect_seconds", "yes", "affects waiting only"),
    AllowedChange("runner.max_restarts", "yes", "affects future crashes only"),
)


@dataclass(frozen=True)
class Change:
    """New value of a key in a run's config."""

    key: str
    before: Any  # UNSET: the config, of an older pgx perhaps, has no such key
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_value_text(self.before)} -> {_value_text(self.after)}"


UNSET = object()


@dataclass(frozen=True)
class ResumeChanges:
    """Changes of a resumed run, and messages about refused ones."""

    made: tuple[Change, ...]
    refused: tuple[str, ...]


def resume_changes(cfg: DictConfig, overrides: Sequence[Override]) -> ResumeChanges:
    """Compare overrides with a run's config; change neither.

    Args:
        cfg: of the run, plain values.
        overrides: parsed; one that sets the present value is not a change.
    """
    made, refused = dict[str, Change](), []
    for override in overrides:
        key = override.key_or_group
        if problem := _form_problem(override) or renamed_problem(key):
            refused.append(problem)
            continue
        change = Change(key, _value(cfg, key), override.value())
        if _same(change.before, change.after) or _same(_choice_name(change.before), change.after):
            made.pop(key, None)
        elif is_allowed(key):
            made[key] = change
        elif change.before is UNSET and not key.startswith(("env.kwargs.", "reward.terms.")):
            refused.append(f"{key}: unknown key{_nearest(cfg, key)}")
        else:
            shown_as = replace(change, before=_choice_name(change.before) or change.before)
            refused.append(f"{shown_as}; a resumed run keeps this: another value would make it another run")
    return ResumeChanges(tuple(made.values()), tuple(refused))


def apply_changes(cfg: DictConfig, made: Sequence[Change]) -> DictConfig:
    """Return a copy of a config with changes."""
    changed = cfg.copy()
    for change in made:
        OmegaConf.update(changed, change.key, change.after, force_add=True)
    return changed


def is_allowed(key: str) -> bool:
    """Return whether ALLOWED_CHANGES contains a key."""
    return any(
        key == each.key or (each.key.endswith(".") and key.startswith(each.key)) for each in ALLOWED_CHANGES
    )


def _form_problem(override: Override) -> str | None:
    """Return why an override does not set one key to one value; None if it does."""
    line = override.input_line or ""
    if override.is_delete() or override.is_add() or override.package is not None:
        return f"{line}: a resumed run changes values of keys that it has; expected key=value"
    if override.is_sweep_override():
        return f"{line}: several values; a resumed run takes one"
    if "${" in str(override.value()):
        return f"{line}: a run's config holds values, not references; expected a value"
    return None


def _value(cfg: DictConfig, key: str) -> Any:
    """Return the value of a key in a config, as plain data."""
    value = OmegaConf.select(cfg, key, default=UNSET)
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def _choice_name(section: Any) -> Any:
    """Return the name of a section's choice, as in algo=ppo; None for other values."""
    return section.get("name", section.get("id")) if isinstance(section, dict) else None


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _nearest(cfg: DictConfig, key: str) -> str:
    """Return the most similar key of the same section."""
    section, dot, name = key.rpartition(".")
    around = OmegaConf.select(cfg, section) if dot else cfg
    if isinstance(around, DictConfig):
        return nearest(name, map(str, around))
    return nearest(key.split(".")[0], map(str, cfg))


def _value_text(value: Any) -> str:
    return "unset" if value is UNSET else format_value(value)


def rate_changes(config: RunConfig, made: Sequence[Change], steps: int) -> list[str]:
    """Return a line for each learning rate that jumps because another total_steps stretches its schedule.

    Args:
        config: with the changes.
        made: changes of the config.
        steps: environment steps so far.
    """
    lines = []
    for change in made:
        if change.key != "trainer.total_steps" or not isinstance(change.before, int):
            continue
        for section in ("optimizer", "critic_optimizer"):
            schedule, rate = (config.values[section].get(key) for key in ("schedule", "learning_rate"))
            if schedule is None or rate is None:
                continue
            totals = change.before, config.trainer.total_steps
            before, after = (rate * SCHEDULES[schedule](min(1.0, steps / total)) for total in totals)
            if before != after:
                lines.append(
                    f"{section}.learning_rate at {steps:,} steps: {before:.3g} -> {after:.3g} "
                    f"(schedule={schedule} now ends at {totals[1]:,} steps)"
                )
    return lines
