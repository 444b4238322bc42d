"""The Custom Scalars tab of TensorBoard: the same metrics of all runs on one chart each, by what they tell."""

import re

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import custom_scalars

from pgx.runs.metrics import tag

# Category: title of a chart: keys of pgx/runs/metrics.py
CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "return": {
        "return": ("episode_return",),
        "return, last 20 episodes": ("episode_return_recent",),
        "return, evaluated": ("eval_episode_return",),
        "episode length": ("episode_length",),
    },
    "trust region": {
        "KL(old || new)": ("kl",),
        "largest KL": ("kl_max",),
        "clip fraction": ("clip_fraction",),
        "effective sample size": ("ess",),
        "entropy": ("entropy",),
        "gain, predicted and actual": ("predicted_gain", "surrogate_gain"),
    },
    "line search": {
        "fractions tried": ("line_search_steps",),
        "fraction accepted": ("line_search_fraction",),
        "conjugate gradient, steps": ("cg_steps",),
        "conjugate gradient, residual": ("cg_residual",),
    },
    "critic": {
        "explained variance, before": ("explained_variance",),
        "explained variance, after": ("explained_variance_after",),
        "loss": ("critic_loss",),
    },
    "time": {
        "environment steps a second": ("steps_per_second",),
        "share of environments": ("environment_share",),
        "share of the policy": ("policy_share",),
        "share of updates": ("update_share",),
    },
}


def layout() -> Summary:
    """The record that TensorBoard reads it from; those of several runs become one."""
    charts = {
        category: {title: ["Multiline", [_only(key) for key in keys]] for title, keys in titles.items()}
        for category, titles in CHARTS.items()
    }
    summary: Summary = custom_scalars(charts)  # type: ignore[no-untyped-call]
    return summary


def _only(key: str) -> str:
    """A pattern of one tag: TensorBoard takes every tag that begins with what matches."""
    return f"{re.escape(tag(key))}$"
