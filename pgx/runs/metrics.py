"""What metrics look like in a sound run: rules of thumb, shown on docs/metrics.md.

THE table of metrics: every key that code may report, its tag, unit and definition. Nothing else names a tag.

`python -m pgx.runs.metrics` prints the table as docs/metrics.md.
"""

import math
from dataclasses import dataclass

from pgx.core.agent import Metrics
from pgx.core.schema import nearest

# By key, what a sound run shows: rules of thumb. Bounds beyond which something is wrong are the doctor's.
HEALTHY = {
    "episode_return_recent": "rises, with dips; what it may reach is the task's",
    "clipped_reward_fraction": "below 0.01; more of it, and rewards differ less than the environment pays",
    "clipped_action_fraction": "below 0.3, or falling; rising with the entropy, the policy spreads beyond the bounds",
    "policy_lag": "2 at most where nothing weighs the actions of older policies",
    "kl": "below its bound where the rule has one (TRPO with its damping: about half of `algo.max_kl`); "
    "0.005 to 0.05 with PPO and its kin; less with rules of one gradient step",
    "normalizer_kl": "below a fifth of `health/kl`; above it at the first updates, raise `env.normalizer_warmup_steps`",
    "kl_max": "some ten times `health/kl`; orders of magnitude above it, a few observations are changed completely",
    "entropy": "falls while the return rises; early and without it, exploration is lost",
    "ess": "about 1 - 2 x `health/kl`; below 0.5 no estimate of the update is to be trusted",
    "clip_fraction": "0.1 to 0.3 with PPO; more where the rule bounds something else",
    "surrogate_gain": "above 0, somewhat below `health/predicted_gain`; at less than a quarter the step is too long",
    "explained_variance": "above 0 after the first tenth of the run, and rising; 1 is all",
    "explained_variance_after": "above `health/explained_variance`; far above it, the critic fits the batch alone",
    "gradient_norm": "of the size of `optimizer.max_grad_norm`, or less",
    "line_search_steps": "1 to 3",
    "line_search_fraction": "above 0 in nearly all updates",
    "zero_gradient": "0; 1 until the first reward where all advantages are equal",
    "no_curvature": "0",
    "cg_residual": "below 0.5",
    "updates_skipped": "0",
}


@dataclass(frozen=True)
class Metric:
    """One scalar over environment steps."""

    key: str  # as code reports it
    tag: str  # as TensorBoard and metrics.jsonl show it
    unit: str
    meaning: str


def _group(name: str, rows: list[tuple[str, str, str]], prefix: str = "") -> list[Metric]:
    return [Metric(prefix + key, f"{name}/{key}", unit, meaning) for key, unit, meaning in rows]


TABLE: tuple[Metric, ...] = (
    *_group(
        "rollout",
        [
            (
                "episode_return",
                "reward",
                "mean over the episodes that ended in this iteration; raw, undiscounted",
            ),
            (
                "unshaped_return",
                "reward",
                "the same of the environment's own reward, where `reward` pays another (docs/rewards.md)",
            ),
            ("episode_return_min", "reward", "smallest of them"),
            ("episode_return_max", "reward", "largest of them"),
            ("episode_return_recent", "reward", "mean over the last 20 episodes that ended"),
            ("episode_length", "steps", "mean length of the episodes that ended in this iteration"),
            ("episode_length_min", "steps", "shortest of them"),
            ("episode_length_max", "steps", "longest of them"),
            ("episodes", "count", "episodes that ended in this iteration"),
            (
                "episodes_cut",
                "count",
                "episodes that were cut at `runner.max_episode_steps`; only where there are any",
            ),
            (
                "policy_lag",
                "updates",
                "mean over the iteration's trajectories: updates since the policy that acted",
            ),
            ("policy_lag_max", "updates", "largest of them"),
            (
                "queue_fill",
                "share",
                "of the queue's trajectories: finished when the learner came for the next rollout",
            ),
            (
                "clipped_reward_fraction",
                "share",
                "of the iteration's steps: scaled reward at the bound `env.reward_clip`",
            ),
            (
                "clipped_action_fraction",
                "share",
                "of the components of the iteration's actions: sampled outside of the bounds of the action space, "
                "executed at the bound",
            ),
            ("worker_restarts", "count", "worker processes that died and were started again, so far"),
        ],
    ),
    *_group(
        "health",
        [
            ("kl", "nats", "mean over the batch of KL(pi_old || pi_new), exact in the action distribution"),
            ("kl_max", "nats", "largest KL(pi_old || pi_new) at any observation of the batch"),
            ("kl_reverse", "nats", "mean over the batch of KL(pi_new || pi_old)"),
            ("entropy", "nats", "mean entropy of pi_new over the batch"),
            ("ess", "share", "effective sample size (sum w)^2 / (B sum w^2) of w = pi_new(a|s) / mu(a|s)"),
            ("clip_fraction", "share", "rows with |w - 1| > health.clip_range"),
            ("ratio_min", "1", "smallest w"),
            ("ratio_max", "1", "largest w"),
            ("surrogate_gain", "advantage", "actual change of the surrogate mean(w A) by the update"),
            (
                "predicted_gain",
                "advantage",
                "change predicted to first order: gradient of mean(w A) times the step",
            ),
            (
                "gradient_norm",
                "advantage",
                "2-norm of the gradient of mean(w A) before the update, never clipped",
            ),
            ("step_norm", "1", "2-norm of the change of the policy's parameters"),
            (
                "explained_variance",
                "share",
                "1 - Var(target - V) / Var(target) of the critic before the update",
            ),
            ("explained_variance_after", "share", "the same after the update, on the same targets"),
            (
                "normalizer_kl",
                "nats",
                "mean over some 2,048 rows of the batch of KL(pi under the observation statistics before this "
                "iteration || pi under those after it), with pi after the update: what health/kl does not contain",
            ),
            ("advantage_mean", "advantage", "mean advantage over the batch, as the rule uses it"),
            ("advantage_std", "advantage", "standard deviation of the advantage over the batch"),
        ],
    ),
    *_group(
        "algo",
        [
            (
                "line_search_steps",
                "count",
                "fractions of the full step that the line search tried; 0: no search",
            ),
            ("line_search_fraction", "share", "fraction of the full step that was accepted; 0: rejected"),
            ("zero_gradient", "0 or 1", "1: the gradient of the surrogate is zero, so there is no step"),
            (
                "no_curvature",
                "0 or 1",
                "1: x^T H x of the direction x = H^-1 g is not positive, so there is no step along the gradient g",
            ),
            ("cg_steps", "count", "products with the Fisher matrix that conjugate gradient took"),
            ("cg_residual", "1", "norm of g - H x left by conjugate gradient, relative to the norm of g"),
            (
                "gradient_steps",
                "count",
                "steps of the policy's and the critic's optimizers in this update; a natural gradient step is none",
            ),
            ("epochs", "count", "passes over the batch before the rule stopped"),
            (
                "beta",
                "advantage/nat",
                "coefficient of the KL penalty in this update, before it is adapted",
            ),
            (
                "step_size",
                "nat/advantage",
                "t_k of mirror descent: the KL penalty of this update has coefficient 1 / t_k",
            ),
            (
                "weight_variance",
                "1",
                "variance over the rollout's episodes of w(tau), the product of pi(a|s) / mu(a|s) over an episode, "
                "of the policy before the update, not truncated",
            ),
            ("weight_ess", "share", "effective sample size (sum w(tau))^2 / (n sum w(tau)^2) of n episodes"),
            ("weight_max", "1", "largest w(tau)"),
            ("learning_rate", "1", "of the policy's optimizer, after annealing"),
            ("critic_learning_rate", "1", "of the critic's optimizer, after annealing"),
            ("behaviour_kl", "nats", "mean log mu(a|s) - log pi_old(a|s): KL(mu || pi_old) from the actions"),
            (
                "rho_clipped",
                "share",
                "of the sum of v = pi_old(a|s) / mu(a|s): what min(rho_clip, v) takes off",
            ),
            ("c_clipped", "share", "of the sum of v: what min(c_clip, v) takes off"),
            (
                "auxiliary_phase",
                "0 or 1",
                "1: an auxiliary phase ended the iteration, and its health is that of both phases",
            ),
            (
                "auxiliary_loss",
                "value^2",
                "half the mean squared error of the policy's value head on what the auxiliary phase learned from, "
                "after it",
            ),
            ("auxiliary_kl", "nats", "mean KL(pi before || pi after) of the auxiliary phase, on the same"),
            (
                "updates_skipped",
                "count",
                "updates so far that made parameters NaN or infinite and were undone (trainer.on_nan=skip_update)",
            ),
            ("critic_loss", "value^2", "half the mean squared error of the critic, mean over its last epoch"),
        ],
    ),
    *_group(
        "time",
        [
            (
                "steps_per_second",
                "1/s",
                "environment steps over wall-clock seconds, since the last row that has it",
            ),
            ("environment_fraction", "share", "of the iteration's seconds: stepping environments"),
            ("policy_fraction", "share", "of the iteration's seconds: choosing actions"),
            ("update_fraction", "share", "of the iteration's seconds: the rule's update"),
            ("health_fraction", "share", "of the iteration's seconds: measuring the update's health"),
            ("iteration", "count", "updates so far"),
            ("seconds", "s", "wall-clock seconds of this run so far, earlier lives included"),
        ],
    ),
    *_group(
        "eval",
        [
            ("episode_return", "reward", "mean raw return of deterministic episodes, normaliser frozen"),
            ("episode_return_std", "reward", "their standard deviation"),
            (
                "unshaped_return",
                "reward",
                "mean return in the environment's own reward, where `reward` pays another",
            ),
            ("episode_length", "steps", "their mean length"),
            (
                "episodes_cut",
                "count",
                "episodes that were cut at `trainer.eval_max_steps`; only where there are any",
            ),
            (
                "success",
                "share",
                "of them: whose last step's info said is_success or success, where it says so",
            ),
        ],
        prefix="eval_",
    ),
)

# What `reward` pays has names of the user's choice: keys and tags of one pattern.
PARTS = Metric(
    "reward/<term>",
    "reward/<term>",
    "reward",
    "weighted sum of a term of `reward` over an episode, mean over the episodes that ended in this iteration; "
    "`environment`: of the environment's own reward; together they are rollout/episode_return",
)
_PART = "reward/"

VIDEO = "eval/episode"  # the tag of trainer.record_every's videos

# Tags of earlier versions by their present names.
RENAMED_TAGS = {
    f"time/{part}_share": f"time/{part}_fraction" for part in ("environment", "policy", "update", "health")
}

_TAGS = {metric.key: metric.tag for metric in TABLE}


def part_key(term: str) -> str:
    """The key, and the tag, of a part of the reward."""
    return _PART + term


def tag(key: str) -> str:
    """The tag of a key that the table knows."""
    return _TAGS[key]


def present_tag(tag: str) -> str:
    """Return the present name of a tag of any version."""
    return RENAMED_TAGS.get(tag, tag)


def tagged(metrics: Metrics) -> Metrics:
    """Metrics under their tags, in the table's order; what is undefined in this iteration (NaN) is left out.

    Raises:
        KeyError: a key that the table does not know.
    """
    parts = {key: key for key in metrics if key.startswith(_PART)}
    unknown = [f"{key}{nearest(key, _TAGS)}" for key in metrics if key not in _TAGS | parts]
    if unknown:
        raise KeyError(f"metrics that pgx/runs/metrics.py does not define: {', '.join(unknown)}")
    return {
        tag: metrics[key]
        for key, tag in (_TAGS | parts).items()
        if key in metrics and not math.isnan(metrics[key])
    }


def markdown() -> str:
    """The table as a page."""
    lines = [
        "# Metrics",
        "",
        "Made by `python -m pgx.runs.metrics > docs/metrics.md` from the table in pgx/runs/metrics.py. The x-axis is",
        "environment steps, always. A metric that is undefined in an iteration (no episode ended, constant targets)",
        'is left out there. JSON has no infinity: metrics.jsonl writes one as the text "Infinity" or "-Infinity", so',
        "that every JSON reader parses each line. `w` is the importance weight pi_new(a|s) / mu(a|s) of an action",
        "under the policy that took it.",
        "",
        "| tag | unit | definition |",
        "|---|---|---|",
    ]
    lines += [f"| `{m.tag}` | {m.unit} | {m.meaning.replace('|', chr(92) + '|')} |" for m in (*TABLE, PARTS)]
    lines += [
        "",
        "## What healthy looks like",
        "",
        "Rules of thumb; the page of each rule says more, and [the doctor](doctor.md) has bounds with their sources.",
        "",
        "| tag | in a sound run |",
        "|---|---|",
    ]
    lines += [f"| `{m.tag}` | {HEALTHY[m.key]} |" for m in TABLE if m.key in HEALTHY]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
