"""Keys that somebody set and that nothing would read, because of what was chosen beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pgx.config.overrides import parse
from pgx.core.paths import choices, config_dir
from pgx.core.schema import shown

Values = Mapping[str, Any]  # of a run, by dotted key


@dataclass(frozen=True)
class ReadIf:
    """A key, and when it is read.

    Args:
        key: what may go unread.
        because: the key that decides. Where a config has not both, the entry says nothing.
        read: whether a run of these values reads it.
    """

    key: str
    because: str
    read: Callable[[Values], bool]


def _is(key: str, *wanted: Any) -> Callable[[Values], bool]:
    return lambda values: values[key] in wanted


def _set(key: str) -> Callable[[Values], bool]:
    return lambda values: values[key] is not None


def _above(key: str, least: int) -> Callable[[Values], bool]:
    return lambda values: bool(values[key] > least)


def _threads_count(values: Values) -> bool:
    # Ray counts an actor as so many processors, whatever steps its environments.
    return values["env.backend"] != "gymnasium" or values.get("runner.backend") == "ray"


def _processes_that_may_hang(values: Values) -> bool:
    if values["env.backend"] in ("auto", "processes") or values["runner.name"] == "a3c":
        return True
    return values.get("runner.backend") == "local"  # actors of this machine


_BY_TRUST_REGION = ("cg", "exact", "compatible")

READ_IF = (
    ReadIf("env.obs_clip", "env.normalize_obs", _is("env.normalize_obs", True)),
    ReadIf("env.normalizer_warmup_steps", "env.normalize_obs", _is("env.normalize_obs", True)),
    ReadIf("env.reward_clip", "env.scale_reward", _is("env.scale_reward", True)),
    ReadIf("env.num_threads", "env.backend", _threads_count),
    ReadIf("env.worker_timeout", "env.backend", _processes_that_may_hang),
    ReadIf("trainer.compile_min_steps", "trainer.compile", _is("trainer.compile", "auto")),
    ReadIf("trainer.record_every", "logger.tensorboard", _is("logger.tensorboard", True)),
    ReadIf("trainer.record_seconds", "trainer.record_every", _set("trainer.record_every")),
    ReadIf("trainer.record_width", "trainer.record_every", _set("trainer.record_every")),
    ReadIf("logger.console_interval", "logger.console", _is("logger.console", "auto", "plain")),
    ReadIf("runner.connect_seconds", "runner.backend", _is("runner.backend", "ray")),
    ReadIf("sweep.warmup_steps", "sweep.pruner", _is("sweep.pruner", "median", "halving")),
    # of rules
    ReadIf("algo.critic_epochs", "algo.baseline", _is("algo.baseline", "value")),
    ReadIf("algo.critic_minibatch_size", "algo.baseline", _is("algo.baseline", "value")),
    ReadIf("algo.critic_minibatch_size", "algo.critic_epochs", _above("algo.critic_epochs", 0)),
    ReadIf("algo.line_search_shrink", "algo.line_search_steps", _above("algo.line_search_steps", 0)),
    ReadIf("algo.recompute_advantages", "algo.epochs", _above("algo.epochs", 1)),
    ReadIf("algo.target_kl", "algo.epochs", _above("algo.epochs", 1)),
    ReadIf("algo.kl_target", "algo.adapt_beta", _is("algo.adapt_beta", True)),
    ReadIf("algo.max_kl", "algo.solver", _is("algo.solver", *_BY_TRUST_REGION)),
    ReadIf("algo.fisher", "algo.solver", _is("algo.solver", *_BY_TRUST_REGION)),
    ReadIf("algo.damping", "algo.solver", _is("algo.solver", *_BY_TRUST_REGION)),
    ReadIf("algo.cg_steps", "algo.solver", _is("algo.solver", "cg")),
    ReadIf("algo.cg_tolerance", "algo.solver", _is("algo.solver", "cg")),
    ReadIf("algo.euclidean_radius", "algo.solver", _is("algo.solver", "euclidean")),
)

# Read by nothing but the values that refer to them.
DEFAULTS_OF_OTHERS = {"env.discount": "algo.discount"}


def unread(values: Values) -> dict[str, str]:
    """Every key of the table that a run of these values would not read, with the key that decides."""
    return {
        each.key: each.because
        for each in READ_IF
        if each.key in values and each.because in values and not each.read(values)
    }


def unused_problems(values: Values, cfg: DictConfig, asked: Sequence[str]) -> list[str]:
    """Return a problem for each key that somebody set and a run of these values would not read.

    Args:
        values: by dotted key, references resolved.
        cfg: the config with its references.
        asked: dotted keys that somebody set.
    """
    idle = unread(values)
    found = [
        f"{key}: nothing reads it with {idle[key]}={shown(values[idle[key]])}; leave it out, or change that"
        for key in dict.fromkeys(asked)
        if key in idle
    ]
    written = flat(OmegaConf.to_container(cfg, resolve=False))
    for key, other in DEFAULTS_OF_OTHERS.items():
        referred = any(f"${{{key}}}" in text for text in written.values() if isinstance(text, str))
        if key in asked and not referred:
            found.append(f"{key}: nothing reads it where {other} is set as well; one of the two")
    return found


def asked_keys(overrides: list[str]) -> list[str]:
    """The keys whose values overrides set, those of an experiment's file with them."""
    keys: list[str] = []
    for override in parse(overrides):
        key, value = override.key_or_group, override.value()
        if override.is_delete() or override.is_hydra_override():
            continue
        if key == "experiment":
            keys += _experiment_keys(str(value))
        elif isinstance(value, dict):
            keys += flat({key: value})
        else:
            keys.append(key)
    return keys


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; an empty mapping is a value."""
    return dict(_leaves(values, prefix))


def _leaves(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def _experiment_keys(name: str) -> list[str]:
    if name not in choices("experiment"):
        return []
    path = config_dir() / "experiment" / f"{name}.yaml"
    written = flat(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
    return [key for key in written if key != "defaults"]
