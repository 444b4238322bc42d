"""Names that other libraries have for the keys of pgx's config, and the keys that an unknown one probably means."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pgx.algos import rule, rules
from pgx.config.choices import NAMED, keys_of
from pgx.core.schema import most_similar, signature

# A name of Stable-Baselines3, its contrib package, its zoo or CleanRL: keys of pgx, or a group to choose from.
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
    # optimizers and networks; the critic has a network and an optimizer of its own in place of a weight of its loss
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


def meant(key: str, known: Mapping[str, Any]) -> str:
    """Return a clause for a message about an unknown key: the key that it probably means, or an empty text.

    Args:
        key: dotted, as the user typed it.
        known: the config, nested, with the choices that the user made.
    """
    *path, leaf = key.split(".")
    plain = leaf.replace("-", "_").casefold()
    targets = [target for target in ALIASES.get(plain, ()) if target != key]
    if there := [target for target in targets if _has(known, target)]:
        return _offer(there) + (
            "" if there[0] == targets[0] else f" ('{targets[0]}': {_where(targets[0], known)})"
        )
    if targets:
        return f"; '{targets[0]}' is that key of pgx, and {_where(targets[0], known)}"
    section: Any = known
    for part in path:
        section = section.get(part) if isinstance(section, Mapping) else None
    if isinstance(section, Mapping) and (similar := most_similar(leaf, map(str, section))):
        return _offer([similar])
    dotted = list(_dotted(known))
    if same := [other for other in dotted if other.rpartition(".")[2] == plain]:
        return _offer(same[:3])
    if path:
        return ""
    similar = most_similar(plain, [other.rpartition(".")[2] for other in dotted])
    return _offer([other for other in dotted if other.rpartition(".")[2] == similar][:3]) if similar else ""


def _offer(keys: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(repr(key) for key in keys)}?" if keys else ""


def _has(known: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(known, Mapping) or part not in known:
            return False
        known = known[part]
    return True


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")


def _where(key: str, known: Mapping[str, Any]) -> str:
    """Which choices have a key that the chosen one lacks."""
    section, _, leaf = key.partition(".")
    if section == "algo":
        having = [name for name in rules() if leaf in signature(rule(name))]
    else:
        having = (
            [name for name in NAMED[section][0] if leaf in keys_of(section, name)] if section in NAMED else []
        )
    chosen = known.get(section)
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    others = (
        f"; {section}={', '.join(map(str, having))} ha{'s' if len(having) == 1 else 've'} it"
        if having
        else ""
    )
    return f"{section}={'none' if name is None else name} does not have it{others}"
