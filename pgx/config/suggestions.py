"""Suggestions for unknown keys, including names of other libraries, and overrides in Hydra's grammar.

The type of a key decides how a typed value is rewritten.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from pgx.algos import rule, rules
from pgx.config.run_config import FIXED_SECTIONS, NAMED_SECTIONS, SearchConfig, TopLevelConfig, keys_of_choice
from pgx.core.paths import config_groups
from pgx.core.schema import INT_LIMIT, describe_type, most_similar, parameter_types

# Names in Stable-Baselines3, its contrib package, its zoo or CleanRL: keys of pgx, or a group to choose from.
ALIASES: dict[str, tuple[str, ...]] = {
    # the run
    "total_timesteps": ("trainer.total_steps",),
    "n_timesteps": ("trainer.total_steps",),
    "max_steps": ("trainer.total_steps",),
    "exp_name": ("label",),
    "run_name": ("label",),
    "tensorboard_log": ("run_dir",),
    "log_dir": ("run_dir",),
    "cuda": ("device",),
    "verbose": ("logger.console",),
    "log_interval": ("logger.every",),
    "eval_freq": ("trainer.eval_every",),
    "n_eval_episodes": ("trainer.eval_episodes",),
    "save_freq": ("trainer.checkpoint_every",),
    "capture_video": ("trainer.record_every",),
    # environments and rollouts
    "env_id": ("env",),
    "gym_id": ("env",),
    "environment": ("env",),
    "env_name": ("env",),
    "n_envs": ("env.num_envs",),
    "num_envs": ("env.num_envs",),
    "env_kwargs": ("env.kwargs",),
    "norm_obs": ("env.normalize_obs",),
    "norm_reward": ("env.scale_reward",),
    "clip_obs": ("env.obs_clip",),
    "clip_reward": ("env.reward_clip",),
    "n_steps": ("runner.rollout_steps",),
    "num_steps": ("runner.rollout_steps",),
    "rollout_length": ("runner.rollout_steps",),
    "horizon": ("runner.rollout_steps",),
    # rules
    "algorithm": ("algo",),
    "gamma": ("algo.discount",),
    "lam": ("algo.gae_lambda",),
    "gae_lambda": ("algo.gae_lambda",),
    "batch_size": ("algo.minibatch_size", "algo.critic_minibatch_size"),
    "num_minibatches": ("algo.minibatch_size", "algo.critic_minibatch_size"),
    "n_epochs": ("algo.epochs", "algo.critic_epochs"),
    "update_epochs": ("algo.epochs", "algo.critic_epochs"),
    "n_critic_updates": ("algo.critic_epochs",),
    "clip_range": ("algo.clip_range",),
    "clip_coef": ("algo.clip_range",),
    "clip_ratio": ("algo.clip_range",),
    "clip_param": ("algo.clip_range",),
    "clip_range_vf": ("algo.value_clip",),
    "clip_vloss": ("algo.value_clip",),
    "ent_coef": ("algo.entropy_coefficient",),
    "entropy_coef": ("algo.entropy_coefficient",),
    "norm_adv": ("algo.normalize_advantage",),
    "normalize_advantage": ("algo.normalize_advantage",),
    "target_kl": ("algo.target_kl", "algo.max_kl"),
    "max_kl": ("algo.max_kl",),
    "delta": ("algo.max_kl",),
    "cg_max_steps": ("algo.cg_steps",),
    "cg_iters": ("algo.cg_steps",),
    "cg_damping": ("algo.damping",),
    "line_search_max_iter": ("algo.line_search_steps",),
    "line_search_shrinking_factor": ("algo.line_search_shrink",),
    # optimizers and networks; the critic has its own network and optimizer instead of a loss coefficient
    "learning_rate": ("optimizer.learning_rate", "critic_optimizer.learning_rate"),
    "lr": ("optimizer.learning_rate", "critic_optimizer.learning_rate"),
    "vf_coef": ("critic_optimizer.learning_rate",),
    "anneal_lr": ("optimizer.schedule", "critic_optimizer.schedule"),
    "lr_schedule": ("optimizer.schedule", "critic_optimizer.schedule"),
    "max_grad_norm": ("optimizer.max_grad_norm", "critic_optimizer.max_grad_norm"),
    "rms_prop_eps": ("optimizer.epsilon",),
    "use_rms_prop": ("optimizer",),
    "optimizer_class": ("optimizer",),
    "net_arch": ("policy.hidden", "critic.hidden"),
    "hidden_sizes": ("policy.hidden", "critic.hidden"),
    "activation_fn": ("policy.activation", "critic.activation"),
    "log_std_init": ("policy.log_std_init",),
    "lstm_hidden_size": ("policy.memory_units",),
}


def key_hint(key: str, known: Mapping[str, Any]) -> str:
    """Return a clause for a message about an unknown key: the key that was probably meant, or an empty text.

    Args:
        key: dotted, as the user typed it.
        known: the config, nested, with the user's choices.
    """
    *path, leaf = key.split(".")
    plain = leaf.replace("-", "_").casefold()
    targets = [target for target in ALIASES.get(plain, ()) if target != key]
    if there := [target for target in targets if _has(known, target)]:
        return _did_you_mean(there) + (
            "" if there[0] == targets[0] else f" ('{targets[0]}': {_choices_having(targets[0], known)})"
        )
    if targets:
        return f"; '{targets[0]}' is that key of pgx, and {_choices_having(targets[0], known)}"
    section: Any = known
    for part in path:
        section = section.get(part) if isinstance(section, Mapping) else None
    if isinstance(section, Mapping) and (similar := most_similar(leaf, map(str, section))):
        return _did_you_mean([similar])
    dotted = list(_dotted_keys(known))
    if same := [other for other in dotted if other.rpartition(".")[2] == plain]:
        return _did_you_mean(same[:3])
    if path:
        return ""
    similar = most_similar(plain, [other.rpartition(".")[2] for other in dotted])
    return (
        _did_you_mean([other for other in dotted if other.rpartition(".")[2] == similar][:3])
        if similar
        else ""
    )


def _did_you_mean(keys: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(repr(key) for key in keys)}?" if keys else ""


def _has(known: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(known, Mapping) or part not in known:
            return False
        known = known[part]
    return True


def _dotted_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{name}.")


def _choices_having(key: str, known: Mapping[str, Any]) -> str:
    """Return the choices that have a key which the chosen one lacks."""
    section, _, leaf = key.partition(".")
    if section == "algo":
        having = [name for name in rules() if leaf in parameter_types(rule(name))]
    else:
        having = (
            [name for name in NAMED_SECTIONS[section] if leaf in keys_of_choice(section, name)]
            if section in NAMED_SECTIONS
            else []
        )
    chosen = known.get(section)
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    others = (
        f"; {section}={', '.join(map(str, having))} ha{'s' if len(having) == 1 else 've'} it"
        if having
        else ""
    )
    return f"{section}={'none' if name is None else name} does not have it{others}"


PATHS = frozenset({"run_dir", "dataset", "runner.path", "hydra.sweep.dir", "hydra.run.dir"})
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def to_hydra_grammar(text: str) -> str:
    """Return an override in Hydra's grammar; other overrides are returned unchanged.

    - `run_dir=~/x`: paths that begin with `~` are expanded.
    - `label=x y`, `run_dir=o/a=b`, `label=1`: text values are quoted if Hydra would not read them as this text. Quotes,
      `null`, `${...}` and sweeps (`label=a,b`) keep their meaning.
    - `env.kwargs.url=http://x/?a=b`: quoted if Hydra cannot read it.
    - `trainer.total_steps=1e4`: a float without a fraction becomes an integer if the key takes no floats.
    """
    typed, equals, value = text.partition("=")
    key = typed.lstrip("+")
    if not equals or not key or "~" in typed:
        return text
    if key in PATHS or takes_text(key):
        return f"{typed}={_quoted_if_needed(value, key in PATHS)}"
    if (
        key.startswith("env.kwargs.")
        and not value.startswith(("[", "{", "(", "'", '"'))
        and _parse_value(value) is None
        and not _NUMBER.fullmatch(value.rstrip(", "))
    ):
        return f"{typed}={quoted(value)}"
    if _takes_whole_number(key) and (number := _whole_number(value)) is not None:
        return f"{typed}={number}"
    return text


def quoted(text: str) -> str:
    """Return a text as the value of an override, quoted for Hydra."""
    return QuotedString(text, Quote.single).with_quotes()


def parse_problem(text: str) -> str:
    """Return the problem with an override that Hydra cannot read, and the fix."""
    key, equals, value = text.partition("=")
    shown = text if text.strip() and text.isprintable() else repr(text)
    if not equals or not key.strip():
        return f"{shown}: not of the form key=value"
    if "[" in key:
        return (
            f"{shown}: one element of a list cannot be set; {whole_list_hint(key.partition('[')[0], value)}"
        )
    if value.startswith("(") and value.endswith(")"):
        return f"{shown}: a list has square brackets; type {shlex.quote(f'{key}=[{value[1:-1]}]')}"
    if any(value.count(left) != value.count(right) for left, right in ("[]", "{}", "()")):
        return f"{shown}: a bracket is missing in the value"
    plain = key.lstrip("+")
    if (without := _without_spare_commas(value)) != value and _parse_value(without) is not None:
        keys = [plain] if is_known_key(plain) else ALIASES.get(plain, (plain,))
        lines = " or ".join(shlex.quote(f"{each}={without}") for each in keys)
        return f"{shown}: a comma without a value; type {lines}"
    if value.count("'") % 2 or value.count('"') % 2:
        return f"{shown}: a quote is missing in the value"
    if expected := _expected(plain):
        return f"{shown}: the value cannot be read; expected {expected}"
    return f"{shown}: the value cannot be read; to pass it as a text, type {shlex.quote(f'{key}={quoted(value)}')}"


def _without_spare_commas(value: str) -> str:
    """Remove commas without a value before or after them."""
    return re.sub(r",(\s*,)+", ",", value).strip(", ")


def _expected(key: str) -> str:
    """Return the type of a key in words; empty for text and unknown keys."""
    if key in config_groups():
        return "the name of one choice"
    kinds = _types_of(key)
    return "" if str in kinds else " or ".join(sorted(map(describe_type, kinds)))


def whole_list_hint(key: str, value: object) -> str:
    """Return the override that sets a whole list, for one that sets an element."""
    return f"type the whole list, e.g. {shlex.quote(f'{key}=[{value},{value}]')}"


def _quoted_if_needed(value: str, is_path: bool) -> str:
    if is_path and (value == "~" or value.startswith("~/")):
        with suppress(RuntimeError):  # without a home folder the path stays relative
            value = str(Path(value).expanduser())
    if value in ("", "null"):
        return value
    read = _parse_value(value)
    if read is None and all(value.split(",")) and "," in value and not re.search(r"""[][(){}'"\\]""", value):
        return ",".join(_quoted_if_needed(part, is_path) for part in value.split(","))
    sweeps = read is not None and read.is_sweep_override()
    if read is not None and (sweeps or (isinstance(read.value(), str) and value == value.strip())):
        return value
    return quoted(value)


def _parse_value(value: str) -> Any:
    """Return the value as Hydra parses it; None if it cannot."""
    with suppress(HydraException, RecursionError, ValueError, ArithmeticError):
        return _parser().parse_override(f"key={value}")
    return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _whole_number(value: str) -> int | None:
    """Return the integer that a float such as 1e4 stands for; None for other texts."""
    if not _NUMBER.fullmatch(value) or re.fullmatch(r"[+-]?[\d_]+", value):
        return None
    with suppress(InvalidOperation):
        number = Decimal(value.replace("_", ""))
        if abs(number) < INT_LIMIT and number == number.to_integral_value():
            return int(number)
    return None


def is_known_key(key: str) -> bool:
    """Return whether a dotted key exists for some choice of its section."""
    return bool(_types_of(key))


def takes_text(key: str) -> bool:
    """Return whether a dotted key takes text, or null, with every choice of its section."""
    kinds = _types_of(key)
    return str in kinds and kinds <= {str, NoneType}


def _takes_whole_number(key: str) -> bool:
    kinds = _types_of(key)
    return int in kinds and float not in kinds


def _types_of(key: str) -> frozenset[Any]:
    """Return the plain types of a key over all choices of its section; empty for unknown keys."""
    return _types_by_key().get(key, frozenset())


@cache
def _types_by_key() -> dict[str, frozenset[Any]]:
    found: dict[str, frozenset[Any]] = {}
    sections: list[tuple[str, Any]] = [
        ("", parameter_types(TopLevelConfig)),
        ("sweep.", parameter_types(SearchConfig)),
    ]
    sections += [(f"{section}.", parameter_types(each)) for section, each in FIXED_SECTIONS.items()]
    sections += [
        (f"{section}.", keys_of_choice(section, name))
        for section, named in NAMED_SECTIONS.items()
        for name in named
    ]
    sections += [("algo.", parameter_types(rule(name)) | {"name": str}) for name in rules()]
    for prefix, hints in sections:
        for name, hint in hints.items():
            found[prefix + name] = found.get(prefix + name, frozenset()) | frozenset(_member_types(hint))
    return found


def _member_types(hint: Any) -> Iterator[Any]:
    """Return the member types of a union, without ranges; of another annotation, the type itself."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _member_types(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for each in get_args(hint):
            yield from _member_types(each)
    else:
        yield hint


def one_line_message(error: Exception) -> str:
    """Return Hydra's message on one line, without its hints about Hydra."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = [line.strip() for line in str(error.__cause__ or "").splitlines() if line.strip()]
    return " ".join(dict.fromkeys(line for line in lines + cause[:1] if "HYDRA_FULL_ERROR" not in line))
