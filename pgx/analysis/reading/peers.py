"""What other libraries call the metrics of pgx, and where theirs are something else."""

from collections.abc import Mapping
from dataclasses import dataclass

RECENT = 20  # episodes in the running mean of the recent return, as in pgx's own runs


@dataclass(frozen=True)
class Alias:
    """A metric under another name."""

    key: str  # of pgx/runs/metrics.py
    factor: float = 1.0  # what turns its values into pgx's


@dataclass(frozen=True)
class Peer:
    """A library's tags."""

    name: str
    short: str  # what its runs' algorithms are told apart by
    told_by: frozenset[str]  # tags that no other library writes
    tags: Mapping[str, Alias]
    each_episode: str | None  # the tag of single episodes' returns, of which pgx's running mean can be made
    by_update: tuple[
        str, ...
    ]  # beginnings of tags that are written over updates rather than environment steps
    env_steps: frozenset[str]  # tags that say how many environment steps there were, for those above
    differs: str  # what is not quite pgx's


SB3 = Peer(
    name="Stable-Baselines3",
    short="sb3",
    told_by=frozenset({"rollout/ep_rew_mean", "time/fps"}),
    tags={
        "rollout/ep_rew_mean": Alias("episode_return_recent"),
        "rollout/ep_len_mean": Alias("episode_length"),
        "eval/mean_reward": Alias("eval_episode_return"),
        "eval/mean_ep_length": Alias("eval_episode_length"),
        "time/fps": Alias("steps_per_second"),
        "train/approx_kl": Alias("kl"),
        "train/kl_divergence_loss": Alias("kl"),
        "train/clip_fraction": Alias("clip_fraction"),
        "train/explained_variance": Alias("explained_variance"),
        "train/entropy_loss": Alias("entropy", -1.0),
        "train/learning_rate": Alias("learning_rate"),
        "train/value_loss": Alias("critic_loss", 0.5),
    },
    each_episode=None,
    by_update=(),
    env_steps=frozenset(),
    differs="returns are over the last 100 episodes (pgx: 20); KL is sampled, of the last epoch's minibatches, "
    "and clip fraction the mean over minibatches while they are learned from; an update stands one rollout later",
)

CLEANRL = Peer(
    name="CleanRL",
    short="cleanrl",
    told_by=frozenset({"charts/episodic_return", "charts/SPS"}),
    tags={
        "charts/episodic_return": Alias("episode_return"),
        "charts/episodic_length": Alias("episode_length"),
        "charts/SPS": Alias("steps_per_second"),
        "charts/learning_rate": Alias("learning_rate"),
        "losses/approx_kl": Alias("kl"),
        "losses/clipfrac": Alias("clip_fraction"),
        "losses/explained_variance": Alias("explained_variance"),
        "losses/entropy": Alias("entropy"),
        "losses/value_loss": Alias("critic_loss"),
    },
    each_episode="charts/episodic_return",
    by_update=(),
    env_steps=frozenset(),
    differs="the mean over the last 20 episodes is made here of the single episodes it writes; KL is sampled, of the "
    "last minibatch alone",
)

TIANSHOU = Peer(
    name="Tianshou",
    short="tianshou",
    told_by=frozenset(
        {"training/returns_stat/mean", "test/returns_stat/mean", "training/env_step", "train/env_step"}
    ),
    tags={
        **{
            f"{training}/{tag}": Alias(key)
            for training in ("training", "train")  # of version 2, and before it
            for tag, key in {
                "returns_stat/mean": "episode_return_recent",
                "returns_stat/min": "episode_return_min",
                "returns_stat/max": "episode_return_max",
                "lens_stat/mean": "episode_length",
                "n_collected_episodes": "episodes",
                "reward": "episode_return_recent",  # of version 0
                "length": "episode_length",
            }.items()
        },
        "test/returns_stat/mean": Alias("eval_episode_return"),
        "test/returns_stat/std": Alias("eval_episode_return_std"),
        "test/lens_stat/mean": Alias("eval_episode_length"),
        "test/reward": Alias("eval_episode_return"),
        "test/reward_std": Alias("eval_episode_return_std"),
        "test/length": Alias("eval_episode_length"),
        "update/kl/mean": Alias("kl"),
        "update/ent_loss/mean": Alias("entropy"),
        "update/vf_loss/mean": Alias("critic_loss", 0.5),
    },
    each_episode=None,
    by_update=("update/", "info/"),
    env_steps=frozenset({"training/env_step", "train/env_step"}),
    differs="returns are over the episodes of one collection (pgx: the last 20); what it writes over updates is "
    "placed at the environment steps of that moment",
)

PEERS = (SB3, CLEANRL, TIANSHOU)


def written_by(tags: frozenset[str]) -> Peer | None:
    """The library that writes such tags; None: none that is known."""
    return next((peer for peer in PEERS if peer.told_by & tags), None)
