"""The charts of TensorBoard's Custom Scalars tab: each shows the tags that its title names, and no other."""

import re

from pgx.runs.loggers.tensorboard import CHARTS, custom_scalars_layout
from pgx.runs.metrics import TABLE

TAGS = {metric.tag for metric in TABLE}


def patterns() -> list[str]:
    """The tags of all charts, as TensorBoard is told to look for them."""
    record = custom_scalars_layout().SerializeToString()
    return [text.decode() for text in re.findall(rb"[a-z]+/[a-z_]+\$?", record)]


def test_a_chart_shows_its_own_tags_and_none_that_begin_alike() -> None:
    """TensorBoard takes every tag that begins with what a pattern matches."""
    keys = [key for titles in CHARTS.values() for each in titles.values() for key in each]
    shown = [[tag for tag in TAGS if re.match(pattern, tag)] for pattern in patterns()]
    assert len(shown) == len(keys) and all(len(tags) == 1 for tags in shown)


def test_each_metric_is_on_one_chart_and_under_its_own_name() -> None:
    keys = [key for titles in CHARTS.values() for each in titles.values() for key in each]
    assert len(set(keys)) == len(keys)
    region = CHARTS["trust region"]
    assert region["KL(old || new)"] == ("kl",) and region["largest KL"] == ("kl_max",)
    assert CHARTS["critic"]["explained variance, after"] == ("explained_variance_after",)
    assert CHARTS["time"]["share of the policy"] == ("policy_fraction",)
