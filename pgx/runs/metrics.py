"""Table of metrics: the key, tag, unit and definition of every number that pgx reports.

The table is the sum of `COMMON`, which every run may report, and of what each update rule declares in its class.
`python -m pgx.runs.metrics` prints it as docs/metrics.md.
"""

import math
from collections.abc import Iterable, Mapping

from pgx.algos import rule, rules
from pgx.core.agent import Metrics
from pgx.core.errors import RunError, UserError
from pgx.core.metrics import Metric
from pgx.core.schema import nearest
from pgx.networks.heads import GaussianPolicy


def _section(section: str, *rows: tuple[str, ...]) -> tuple[Metric, ...]:
    """Return metrics of a section: rows of key, unit, meaning and, where there is one, a rule of thumb."""
    return tuple(
        Metric(key, unit, meaning, "".join(healthy), section) for key, unit, meaning, *healthy in rows
    )


# Metrics of every rule. Bounds beyond which something is wrong are those of pgx/analysis/detectors.py.
COMMON: tuple[Metric, ...] = (
    *_section(
        "rollout",
        (
            "episode_return",
            "reward",
            "mean over the episodes that ended in this iteration; raw, undiscounted",
        ),
        (
            "unshaped_return",
            "reward",
            "the same in the environment's own reward, if `reward` replaces it (docs/rewards.md)",
        ),
        ("episode_return_min", "reward", "smallest return of these episodes"),
        ("episode_return_max", "reward", "largest return of these episodes"),
        (
            "episode_return_recent",
            "reward",
            "mean over the last 20 episodes that ended",
            "rises, with dips; the task sets the limit",
        ),
        ("episode_length", "steps", "mean length of the episodes that ended in this iteration"),
        ("episode_length_min", "steps", "length of the shortest of these episodes"),
        ("episode_length_max", "steps", "length of the longest of these episodes"),
        ("episodes", "count", "episodes that ended in this iteration"),
        (
            "episodes_cut",
            "count",
            "episodes that were cut at `runner.max_episode_steps`; present only if there are any",
        ),
        (
            "policy_lag",
            "updates",
            "updates since the policy that acted, mean over the iteration's trajectories",
            "at most 2 if the rule does not correct for older policies",
        ),
        ("policy_lag_max", "updates", "largest lag of a trajectory"),
        (
            "queue_fill",
            "fraction",
            "finished trajectories in the queue when the learner takes the next rollout, of its capacity",
        ),
        (
            "clipped_reward_fraction",
            "fraction",
            "of the iteration's steps: scaled reward at the bound `env.reward_clip`",
            "below 0.01; if more, clipping hides differences between rewards",
        ),
        (
            "clipped_action_fraction",
            "fraction",
            "of the components of the iteration's actions: sampled outside of the bounds of the action space, "
            "executed at the bound",
            "below 0.3, or falling; if it rises with the entropy, the policy spreads beyond the bounds",
        ),
        ("worker_restarts", "count", "worker processes that crashed and were restarted, so far"),
    ),
    *_section(
        "health",
        (
            "kl",
            "nats",
            "mean over the batch of KL(pi_old || pi_new), exact in the action distribution",
            "below the rule's bound, if it has one (TRPO with damping: about half of `algo.max_kl`); 0.005 to 0.05 "
            "with PPO and similar rules; less with rules of one gradient step",
        ),
        (
            "kl_max",
            "nats",
            "largest KL(pi_old || pi_new) at any observation of the batch",
            "about ten times `health/kl`; if orders of magnitude above it, the policy changed completely at a few "
            "observations",
        ),
        ("kl_reverse", "nats", "mean over the batch of KL(pi_new || pi_old)"),
        (
            "entropy",
            "nats",
            "mean entropy of pi_new over the batch",
            "falls while the return rises; if it falls early and the return does not rise, exploration is lost",
        ),
        (
            "ess",
            "fraction",
            "effective sample size (sum w)^2 / (B sum w^2) of w = pi_new(a|s) / mu(a|s)",
            "about 1 - 2 x `health/kl`; below 0.5 do not trust estimates of the update",
        ),
        (
            "clip_fraction",
            "fraction",
            "rows with |w - 1| > health.clip_range",
            "0.1 to 0.3 with PPO; more if the rule bounds something else",
        ),
        ("ratio_min", "1", "smallest w"),
        ("ratio_max", "1", "largest w"),
        (
            "surrogate_gain",
            "advantage",
            "change of the surrogate mean(w A) by the update",
            "above 0, somewhat below `health/predicted_gain`; at less than a quarter the step is too long",
        ),
        (
            "predicted_gain",
            "advantage",
            "change predicted to first order: gradient of mean(w A) times the step",
        ),
        (
            "gradient_norm",
            "advantage",
            "2-norm of the gradient of mean(w A) before the update, never clipped",
            "at most of the order of `optimizer.max_grad_norm`",
        ),
        ("step_norm", "1", "2-norm of the change of the policy's parameters"),
        (
            "explained_variance",
            "fraction",
            "1 - Var(target - V) / Var(target) of the critic before the update",
            "above 0 after the first tenth of the run, and rising; at most 1",
        ),
        (
            "explained_variance_after",
            "fraction",
            "the same after the update, on the same targets",
            "above `health/explained_variance`; if far above it, the critic overfits the batch",
        ),
        (
            "normalizer_kl",
            "nats",
            "mean over about 2,048 rows of the batch of KL(pi with the observation statistics before this "
            "iteration || pi with those after it), for pi after the update; health/kl does not contain it",
            "below a fifth of `health/kl`; if above it in the first updates, raise `env.normalizer_warmup_steps`",
        ),
        ("advantage_mean", "advantage", "mean advantage over the batch, as the rule uses it"),
        ("advantage_std", "advantage", "standard deviation of the advantage over the batch"),
    ),
    *_section(
        "algo",
        (
            "gradient_steps",
            "count",
            "steps of the policy's and the critic's optimizers in this update; a natural gradient step counts 0",
        ),
        ("learning_rate", "1", "learning rate of the policy's optimizer, after annealing"),
        ("critic_learning_rate", "1", "learning rate of the critic's optimizer, after annealing"),
        (
            "updates_skipped",
            "count",
            "updates so far that made parameters NaN or infinite and were undone (trainer.on_nan=skip_update)",
            "0",
        ),
    ),
    *_section(
        "time",
        (
            "steps_per_second",
            "1/s",
            "environment steps per wall-clock second since the previous row with this metric",
        ),
        ("environment_fraction", "fraction", "of the iteration's seconds: stepping environments"),
        ("policy_fraction", "fraction", "of the iteration's seconds: choosing actions"),
        ("update_fraction", "fraction", "of the iteration's seconds: the rule's update"),
        ("health_fraction", "fraction", "of the iteration's seconds: measuring the update's health"),
        ("iteration", "count", "updates so far"),
        ("seconds", "s", "wall-clock seconds of this run so far, summed over resumptions"),
    ),
    *_section(
        "eval",
        ("eval_episode_return", "reward", "mean raw return of deterministic episodes, normalizer frozen"),
        ("eval_episode_return_std", "reward", "standard deviation of these returns"),
        (
            "eval_unshaped_return",
            "reward",
            "mean return in the environment's own reward, if `reward` replaces it",
        ),
        ("eval_episode_length", "steps", "mean length of these episodes"),
        (
            "eval_episodes_cut",
            "count",
            "episodes that were cut at `trainer.eval_max_steps`; present only if there are any",
        ),
        (
            "eval_success",
            "fraction",
            "episodes whose last step reports is_success or success in its info; present only if it is reported",
        ),
    ),
)


def _declared() -> Iterable[Metric]:
    """Yield what the update rules of pgx declare, each metric once."""
    return dict.fromkeys(metric for name in rules() for metric in rule(name).metrics)


_SECTIONS = tuple(dict.fromkeys(metric.section for metric in (*COMMON, *GaussianPolicy.metrics)))

TABLE: tuple[Metric, ...] = tuple(
    sorted(
        [*COMMON, *_declared(), *GaussianPolicy.metrics], key=lambda metric: _SECTIONS.index(metric.section)
    )
)

# The terms of a reward have names of the user's choice, so their keys and tags follow one pattern.
PARTS = Metric(
    "<term>",
    "reward",
    "weighted sum of a term of `reward` over an episode, mean over the episodes that ended in this iteration; "
    "`environment`: of the environment's own reward; together they are rollout/episode_return",
    section="reward",
)
_PART = f"{PARTS.section}/"

VIDEO = "eval/episode"  # the tag of trainer.record_every's videos

# Tags of earlier versions by their present names.
RENAMED_TAGS = {
    f"time/{part}_share": f"time/{part}_fraction" for part in ("environment", "policy", "update", "health")
}

_TAGS = {metric.key: metric.tag for metric in TABLE}


def part_key(term: str) -> str:
    """Return the key, and the tag, of a term of the reward."""
    return _PART + term


def tag(key: str) -> str:
    """Return the tag of a key of the table."""
    return _TAGS[key]


def present_tag(tag: str) -> str:
    """Return the present name of a tag of any version."""
    return RENAMED_TAGS.get(tag, tag)


def tags_of(declared: Mapping[str, Iterable[Metric]]) -> dict[str, str]:
    """Return the tags, by key, of all metrics that a run may report.

    Args:
        declared: definitions by who reports them: the update rule, the policy and callbacks.

    Raises:
        UserError: two definitions of a key or of a tag differ.
    """
    known = {metric.key: (metric, "every run") for metric in COMMON}
    by_tag = {metric.tag: metric.key for metric in COMMON}
    problems = []
    for reporter, metrics in declared.items():
        for metric in metrics:
            same_tag = known.get(by_tag.get(metric.tag, ""))
            other, owner = known.get(metric.key) or same_tag or (metric, reporter)
            if other != metric:
                problems.append(
                    f"metric '{metric.key}' of {reporter}: {metric.tag} ({metric.meaning}) has the key or the tag of "
                    f"{other.tag} of {owner} ({other.meaning}); rename it"
                )
            known.setdefault(metric.key, (metric, reporter))
            by_tag.setdefault(metric.tag, metric.key)
    if problems:
        raise UserError(*problems)
    return {key: metric.tag for key, (metric, _) in known.items()}


def tagged(metrics: Metrics, tags: Mapping[str, str]) -> Metrics:
    """Return metrics under their tags, in the order of `tags`; undefined ones (NaN) are left out.

    Args:
        metrics: by key.
        tags: from `tags_of`.

    Raises:
        RunError: a key has no tag, because neither the update rule, the policy nor a callback declares it.
    """
    parts = {key: key for key in metrics if key.startswith(_PART)}
    unknown = [f"'{key}'{nearest(key, tags)}" for key in metrics if key not in tags and key not in parts]
    if unknown:
        raise RunError(
            f"metrics without a definition: {', '.join(unknown)}; an update rule, a policy or a callback declares "
            "what it reports in its class: metrics = (Metric(key, unit, meaning), ...)"
        )
    return {
        tag: metrics[key]
        for key, tag in ({**tags} | parts).items()
        if key in metrics and not math.isnan(metrics[key])
    }


def markdown() -> str:
    """Return the table as a page."""
    reported_by: dict[Metric, list[str]] = {}
    for name in rules():
        for metric in rule(name).metrics:
            reported_by.setdefault(metric, []).append(name)
    reported_by |= {metric: ["Gaussian policies"] for metric in GaussianPolicy.metrics}
    lines = [
        "# Metrics",
        "",
        "Made by `python -m pgx.runs.metrics > docs/metrics.md` from pgx/runs/metrics.py and from what update rules",
        "declare. The x-axis is always environment steps. A metric that is undefined in an iteration (no",
        "episode ended, constant targets) is left out there. JSON has no infinity: metrics.jsonl writes it as the text",
        '"Infinity" or "-Infinity", so that every JSON reader parses each line. `w` is the importance weight',
        "pi_new(a|s) / mu(a|s) of an action under the policy that took it.",
        "",
        "| tag | unit | definition | reported by |",
        "|---|---|---|---|",
    ]
    for metric in (*TABLE, PARTS):
        meaning = metric.meaning.replace("|", "\\|")
        reporters = ", ".join(reported_by.get(metric, ["all rules"]))
        lines.append(f"| `{metric.tag}` | {metric.unit} | {meaning} | {reporters} |")
    lines += [
        "",
        "## What healthy looks like",
        "",
        "Rules of thumb; the page of each rule says more, and [the doctor](doctor.md) has bounds with their sources.",
        "",
        "| tag | in a healthy run |",
        "|---|---|",
    ]
    lines += [f"| `{metric.tag}` | {metric.healthy} |" for metric in TABLE if metric.healthy]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
