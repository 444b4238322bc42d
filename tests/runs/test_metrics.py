"""One table of tags, and a page that is made from it."""

import math
import re
from pathlib import Path

import pytest

from pgx.runs.metrics import HEALTHY, TABLE, markdown, tag, tagged

ROOT = Path(__file__).parents[2]


def test_keys_and_tags_are_unique() -> None:
    assert len({m.key for m in TABLE}) == len({m.tag for m in TABLE}) == len(TABLE)


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'line_search_steps'"):
        tagged({"line_search_step": 1.0})


def test_what_is_undefined_is_left_out() -> None:
    assert tagged({"kl": 0.5, "explained_variance": math.nan}) == {"health/kl": 0.5}


def test_what_is_infinite_is_logged() -> None:
    assert tagged({"kl": math.inf, "surrogate_gain": -math.inf}) == {
        "health/kl": math.inf,
        "health/surrogate_gain": -math.inf,
    }


def test_a_tag_is_its_section_and_its_key() -> None:
    """`eval/episode_return` is of the key eval_episode_return, all others of the key behind the section."""
    for number, metric in enumerate(TABLE):
        section, _, name = metric.tag.partition("/")
        assert metric.key == (f"eval_{name}" if section == "eval" else name)
        assert (
            tagged({metric.key: float(number)}) == {metric.tag: float(number)}
            and tag(metric.key) == metric.tag
        )


def test_the_page_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown(), (
        "python -m pgx.runs.metrics > docs/metrics.md"
    )


def test_what_is_healthy_is_said_of_metrics_that_there_are() -> None:
    assert HEALTHY.keys() <= {m.key for m in TABLE}
    named = {tag for text in HEALTHY.values() for tag in re.findall(r"`(\w+/\w+)`", text)}
    assert named <= {m.tag for m in TABLE}


def test_no_other_file_names_a_tag() -> None:
    tags = [m.tag for m in TABLE]
    # The console chooses what it shows by tag.
    allowed = {ROOT / "pgx" / "runs" / "metrics.py", ROOT / "pgx" / "runs" / "loggers" / "console.py"}
    for path in (ROOT / "pgx").rglob("*.py"):
        if path not in allowed:
            named = [tag for tag in tags if f'"{tag}"' in path.read_text()]
            assert not named, f"{path} names {named}"
