"""Titles and axis labels of metrics for figures and the report."""

from dataclasses import dataclass

from pgx.runs.metrics import TABLE


@dataclass(frozen=True)
class Label:
    """Text that names a metric.

    Args:
        title: the metric in words, at the start of a sentence.
        axis: the quantity with its unit, for the axis of a figure.
    """

    title: str
    axis: str

    @property
    def phrase(self) -> str:
        """The title within a sentence."""
        first, rest = self.title[:1], self.title[1:]
        return self.title if rest[:1].isupper() else first.lower() + rest


# Keys of pgx/runs/metrics.py.
_LABELS = {
    "episode_return_recent": Label("Mean return of the last 20 episodes", "return (reward)"),
    "episode_return": Label("Mean return of the episodes of an iteration", "return (reward)"),
    "unshaped_return": Label("Mean return in the environment's own reward", "return (reward)"),
    "episode_length": Label("Mean episode length", "length (steps)"),
    "eval_episode_return": Label("Mean return of evaluation episodes", "return (reward)"),
    "eval_success": Label("Success rate of evaluation episodes", "successes (fraction)"),
    "kl": Label("KL divergence of an update", "mean KL(old || new) (nats)"),
    "ess": Label("Effective sample size", "fraction of the batch"),
    "clip_fraction": Label("Clip fraction", "ratios out of range (fraction)"),
    "entropy": Label("Policy entropy", "entropy (nats)"),
    "explained_variance": Label("Explained variance of the critic", "explained (fraction)"),
    "gradient_norm": Label("Norm of the policy gradient", "2-norm (advantage)"),
}

_BY_TAG = {metric.tag: _LABELS[metric.key] for metric in TABLE if metric.key in _LABELS}
_UNITS = {metric.tag: metric.unit for metric in TABLE}


def label(tag: str) -> Label:
    """Return the label of a tag; a tag without a written label is spelled out with its unit."""
    if tag in _BY_TAG:
        return _BY_TAG[tag]
    if tag not in _UNITS:
        return Label(tag, tag)
    words = tag.rpartition("/")[2].replace("_", " ")
    unit = {"share": " (fraction)", "1": ""}.get(_UNITS[tag], f" ({_UNITS[tag]})")
    return Label(words[:1].upper() + words[1:], words + unit)
