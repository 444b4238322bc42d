"""The report of `pgx compare`: its verdict in words, its figures, and its page in a browser."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pgx.analysis.comparison import STEPS_AXIS, Pair, Verdict, _separated, verdict
from pgx.analysis.plots import HEALTH_TAGS, draw_curves, draw_health, group_styles, new_axes
from pgx.analysis.reading import Series
from pgx.analysis.report import html_report
from pgx.analysis.tables import comparison_tables
from tests.analysis.test_compare import METRIC, STEPS_OF_ROWS, compared, run
from tests.system.browser import Page, chromium

FAR = {"trpo": [200.0, 201.0, 202.0, 203.0], "ppo": [100.0, 101.0, 102.0, 103.0]}
NEAR = {"trpo": [200.0, 201.0, 202.0, 203.0], "ppo": [100.0, 140.0, 180.0, 210.0]}


def found(scores: dict[str, list[float]], **others: Any) -> Verdict:
    runs = [
        run(algo, seed, score, **others) for algo, each in scores.items() for seed, score in enumerate(each)
    ]
    comparison = compared(*runs)
    return verdict(comparison.panels[0], METRIC, comparison.level)


def test_the_headline_has_the_winner_the_difference_and_the_step() -> None:
    said = found(FAR)
    assert said.headline == "trpo leads ppo by 100.0 on Walker2d-v4 at step 1,000"
    details = " ".join(said.details)
    assert "Mean return of the last 20 episodes" in details and "(+99%)" in details
    assert "probability 1.00" in details and "p = 0.029, below 0.05" in details


def test_overlapping_groups_have_no_winner() -> None:
    said = found(NEAR)
    assert said.headline.startswith("No clear winner on Walker2d-v4 at step 1,000: trpo is")
    assert "not below 0.05" in " ".join(said.details) and "more runs of each" in " ".join(said.details)


def test_three_runs_per_group_are_too_few() -> None:
    said = found({name: scores[:3] for name, scores in FAR.items()})
    assert said.headline.startswith("No clear winner")
    assert "run 4 seeds or more of each group" in " ".join(said.details)


def test_single_runs_are_no_evidence() -> None:
    said = found({name: scores[:1] for name, scores in FAR.items()})
    assert said.headline.endswith("but one run is too few to tell")
    assert "p =" not in " ".join(said.details)


def test_a_group_whose_mean_is_behind_does_not_lead() -> None:
    """A run far below the others does not affect the interquartile mean, but dominates the mean."""
    said = found({"trpo": [*[200.0 + i for i in range(7)], -90_000.0], "ppo": [100.0 + i for i in range(8)]})
    assert said.headline.startswith("No clear winner on Walker2d-v4 at step 1,000: trpo is")
    pair = Pair("a", "b", None, -1.0, 0.01, (8, 8), None)
    assert (
        not _separated(pair) and _separated(replace(pair, gap=1.0)) and not _separated(replace(pair, p=None))
    )
    assert not _separated(replace(pair, gap=1.0, p=0.05))


def test_a_single_group_has_no_winner() -> None:
    assert found({"ppo": FAR["ppo"]}).headline == "ppo on Walker2d-v4 at step 1,000: 101.5"


def test_a_group_that_learned_sooner_is_named() -> None:
    late, soon = np.repeat([0.0, 210.0], [9, 1]), np.full(10, 200.0)
    runs = [run("late", seed, late + seed) for seed in range(4)]
    runs += [run("soon", seed, soon + seed) for seed in range(4)]
    said = verdict(compared(*runs).panels[0], METRIC, 0.95)
    assert said.headline.startswith("late leads soon by 10.0")
    assert "soon has the higher score" in said.details[-1] and "learned sooner" in said.details[-1]


def test_every_run_has_a_thin_curve_of_its_rows() -> None:
    values = np.arange(10.0)
    runs = [run(algo, seed, values + seed) for algo in ("ppo", "trpo") for seed in range(3)]
    panel = compared(*runs).panels[0]
    axes = new_axes(Figure(), 1, 1, 1)
    draw_curves(axes, panel, STEPS_AXIS, METRIC, group_styles(["ppo", "trpo"]))
    thin = [np.asarray(line.get_ydata()) for line in axes.get_lines() if line.get_linewidth() < 1]
    assert sorted(tuple(each) for each in thin) == sorted(tuple(one.series[METRIC].values) for one in runs)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "return (reward)")


def test_health_metrics_that_are_zero_or_infinite_can_be_drawn() -> None:
    """The KL of a policy that does not move is 0, which a logarithmic axis cannot show."""
    for values in (0.0, [*np.full(9, 0.01), np.inf], np.linspace(0.0, 0.1, 10)):
        kl = Series(STEPS_OF_ROWS, np.broadcast_to(np.asarray(values), STEPS_OF_ROWS.shape))
        panel = compared(run("ppo", 0, 1.0, others={HEALTH_TAGS[0]: kl})).panels[0]
        figure = Figure()
        axes = new_axes(figure, 1, 1, 1)
        draw_health(axes, panel, HEALTH_TAGS[0], group_styles(["ppo"]))
        figure.draw_without_rendering()
        assert axes.get_ylabel() == "mean KL(old || new) (nats)"


# Widths in pixels of what is seen: the window, the document, and the figures of the first row.
WIDTHS = """
(() => {
  const charts = document.querySelector(".charts");
  const first = [...charts.children].map((e) => e.getBoundingClientRect());
  const row = first.filter((box) => Math.abs(box.top - first[0].top) < 2);
  const drawn = [...document.querySelectorAll("figure svg")].filter((e) => e.getBoundingClientRect().width > 0);
  const text = drawn.flatMap((e) => [...e.querySelectorAll("text")]).map((e) => e.getBoundingClientRect().height);
  return {
    window: document.documentElement.clientWidth,
    document: document.documentElement.scrollWidth,
    row: row[row.length - 1].right - row[0].left,
    figures: row.length,
    smallest: Math.min(...text.filter((height) => height > 0)),
  };
})()
"""
INK = "getComputedStyle(document.querySelector('figure svg')).color"
GROUP = "getComputedStyle(document.querySelector('.legend line')).stroke"


@pytest.mark.system
@pytest.mark.skipif(chromium() is None, reason="needs Chromium (apt-get install chromium)")
def test_the_page_uses_the_width_and_both_colour_schemes(tmp_path: Path) -> None:
    health = {name: Series(STEPS_OF_ROWS, np.linspace(0.1, 0.2, 10)) for name in HEALTH_TAGS[:2]}
    runs = [
        run(algo, seed, score, others=health) for algo, each in FAR.items() for seed, score in enumerate(each)
    ]
    comparison = compared(*runs)
    report = tmp_path / "index.html"
    report.write_text(html_report(comparison, comparison_tables(comparison), "pgx compare outputs"))
    with Page(tmp_path / "profile", size=(1400, 900)) as browser:
        browser.resize(1400, 900)
        browser.open(report.as_uri())
        for _ in range(300):
            if browser.evaluate("document.readyState") == "complete" and browser.count("figure") > 3:
                break
            time.sleep(0.1)
        assert browser.evaluate("document.querySelector('h1').innerText").startswith(
            "trpo leads ppo by 100.0"
        )
        wide = browser.evaluate(WIDTHS)
        assert wide["figures"] == 2 and wide["row"] > 0.9 * wide["window"]
        assert wide["document"] <= wide["window"] and wide["smallest"] > 11
        light = browser.evaluate(INK), browser.evaluate(GROUP)
        browser.prefer("dark")
        dark = browser.evaluate(INK), browser.evaluate(GROUP)
        assert all(map(lambda a, b: a != b, light, dark))
        browser.resize(400, 900)
        narrow = browser.evaluate(WIDTHS)
        assert narrow["figures"] == 1 and narrow["document"] <= narrow["window"]
        assert narrow["row"] > 0.85 * narrow["window"] and narrow["smallest"] > 9
