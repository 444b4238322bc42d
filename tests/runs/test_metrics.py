"""One table of tags, and a page that is made from it."""

import math
import re
from pathlib import Path

import pytest

from pgx.algos import rule, rules
from pgx.core.errors import RunError, UserError
from pgx.core.metrics import Metric
from pgx.networks.heads import GaussianPolicy
from pgx.runs.metrics import COMMON, TABLE, markdown, tag, tagged, tags_of

ROOT = Path(__file__).parents[2]
TAGS = tags_of({"the rules": [metric for metric in TABLE if metric not in COMMON]})


def test_keys_and_tags_are_unique() -> None:
    assert len({m.key for m in TABLE}) == len({m.tag for m in TABLE}) == len(TABLE)


def test_an_undeclared_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(RunError, match="'line_search_step'; did you mean 'line_search_steps'"):
        tagged({"line_search_step": 1.0}, TAGS)


def test_a_rule_reports_what_it_declares_and_no_metric_of_another_rule() -> None:
    """A user's rule may declare any new metric; metrics of every run need no declaration."""
    own = tags_of({"the rule Own": [Metric("spread", "1", "standard deviation of the ratios")]})
    assert tagged({"kl": 0.5, "spread": 2.0}, own) == {"health/kl": 0.5, "algo/spread": 2.0}
    for key in ("spread", "line_search_steps"):
        with pytest.raises(RunError, match=f"'{key}'"):
            tagged({key: 1.0}, tags_of({}))


@pytest.mark.parametrize(
    "metric",
    [
        Metric("kl", "nats", "another KL"),
        Metric("seconds", "h", "hours of the run", section="time"),
        Metric("learning_rate", "1", "another learning rate"),
    ],
    ids=lambda metric: metric.key,
)
def test_a_rule_cannot_redefine_a_metric_of_every_run(metric: Metric) -> None:
    with pytest.raises(
        UserError, match=f"metric '{metric.key}' of the rule Own: .* of every run .*rename it"
    ):
        tags_of({"the rule Own": [metric]})


def test_two_reporters_may_share_a_definition_and_not_a_name() -> None:
    age = Metric("age", "steps", "since the best return", section="patience")
    assert tags_of({"the callback One": [age], "the callback Other": [age]})["age"] == "patience/age"
    for other in (
        Metric("age", "updates", "of the policy", section="patience"),
        Metric("patience_age", "steps", "of the policy", section="patience"),
    ):
        with pytest.raises(UserError, match=rf"'{other.key}' of the callback Other: .* of the callback One"):
            tags_of({"the callback One": [age], "the callback Other": [other]})


def test_the_table_is_the_sum_of_what_is_declared() -> None:
    declared = {metric for name in rules() for metric in rule(name).metrics}
    assert set(TABLE) == declared | set(COMMON) | set(GaussianPolicy.metrics)


def test_undefined_metrics_are_left_out() -> None:
    assert tagged({"kl": 0.5, "explained_variance": math.nan}, TAGS) == {"health/kl": 0.5}


def test_infinite_metrics_are_logged() -> None:
    assert tagged({"kl": math.inf, "surrogate_gain": -math.inf}, TAGS) == {
        "health/kl": math.inf,
        "health/surrogate_gain": -math.inf,
    }


def test_a_tag_is_its_section_and_its_key() -> None:
    """`eval/episode_return` is of the key eval_episode_return, most others of the key behind the section."""
    for number, metric in enumerate(TABLE):
        section, _, name = metric.tag.partition("/")
        assert metric.key == (f"{section}_{name}" if section in ("eval", "policy") else name)
        assert (
            tagged({metric.key: float(number)}, TAGS) == {metric.tag: float(number)}
            and tag(metric.key) == metric.tag
        )


def test_the_page_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown(), (
        "python -m pgx.runs.metrics > docs/metrics.md"
    )


def test_rules_of_thumb_name_existing_metrics() -> None:
    named = {tag for metric in TABLE for tag in re.findall(r"`(\w+/\w+)`", metric.healthy)}
    assert named
    assert named <= {m.tag for m in TABLE}


def test_no_other_file_names_a_tag() -> None:
    tags = [m.tag for m in TABLE]
    # The console chooses what it shows by tag.
    allowed = {ROOT / "pgx" / "runs" / "metrics.py", ROOT / "pgx" / "runs" / "loggers" / "console.py"}
    for path in (ROOT / "pgx").rglob("*.py"):
        if path not in allowed:
            named = [tag for tag in tags if f'"{tag}"' in path.read_text()]
            assert not named, f"{path} names {named}"
