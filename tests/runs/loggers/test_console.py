"""What the console says of the time: of this life of the run, and not of what only its first row took."""

import re
import time
from io import StringIO

import pytest
from rich.console import Console

from pgx.runs.loggers.console import PANEL, LiveConsole, PlainConsole

TOTAL = 1_000_000


def said_of(capsys: pytest.CaptureFixture[str], *rows: tuple[int, float], first_step: int = 0) -> list[str]:
    """The lines for rows at so many steps, each after so many seconds."""
    console = PlainConsole(interval=0.0, first_step=first_step, total_steps=TOTAL)
    for steps, seconds in rows:
        time.sleep(seconds)
        console.write(steps, {})
    console.close()
    return capsys.readouterr().out.splitlines()


def rate(line: str) -> float:
    found = re.search(r"([\d,]+) steps/s", line)
    assert found
    return float(found[1].replace(",", ""))


def test_the_first_row_shows_no_eta_and_does_not_count_for_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = said_of(capsys, (1000, 1.0), (2000, 0.01))
    assert first.endswith("eta -") and 0 < rate(first) <= 1000
    assert rate(second) > 2000  # over both rows it would be below
    assert re.search(r"eta [\d:]+$", second)


def test_drawing_the_first_row_again_shows_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    first, again = said_of(capsys, (1000, 0.01), (1000, 0.01))
    assert rate(first) == rate(again) > 0


def test_a_run_at_its_end_has_no_time_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert said_of(capsys, (TOTAL, 0.01))[-1].endswith("eta 0:00")


def test_steps_of_an_earlier_life_are_not_of_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said_of(capsys, (900_010, 0.1), first_step=900_000)
    assert rate(line) <= 100


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("total", [20_480, 10_000_000])
def test_the_live_table_fits_the_terminal_without_breaking_a_label(width: int, total: int) -> None:
    shown = StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    live = LiveConsole(console, first_step=0, total_steps=total)
    rows = {tag: (label, form(0.123)) for block in PANEL.values() for label, tag, form in block}
    live.write(total + 25, dict.fromkeys(rows, 0.123))
    live.close()
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).strip("\r") for line in shown.getvalue().splitlines()
    ]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for label, value in rows.values():
        assert re.search(rf"{re.escape(label)} +{re.escape(value)}", text), label
    assert "share of time" in text and f"{total + 25:,} / {total:,} steps" in text and "eta 0:00" in text


def test_each_number_is_next_to_the_name_of_its_tag(capsys: pytest.CaptureFixture[str]) -> None:
    """Each label is a word of its tag, and a line shows the values of the tags that it names."""
    words = {
        "sample size": "ess",
        "weights in effect": "weight_ess",
        "step fraction": "line_search_fraction",
        "gain, actual": "surrogate_gain",
        "return, last 20": "episode_return_recent",
        "explained var.": "explained_variance",
        "KL, largest": "kl_max",
        "gain, predicted": "predicted_gain",
        "CG residual": "cg_residual",
        "CG steps": "cg_steps",
        "line search": "line_search_steps",
        "eval return": "episode_return",
        "return": "episode_return",
        "length": "episode_length",
        "KL": "kl",
    }
    for block in PANEL.values():
        for label, tag, _ in block:
            word = words.get(label, label.replace(" ", "_").lower())
            name = tag.rpartition("/")[2]
            assert (name.removesuffix("_fraction") if tag.startswith("time/") else name) == word, label
            assert tag.startswith("eval/") == label.startswith("eval")
    console = PlainConsole(interval=0.0, first_step=0, total_steps=TOTAL)
    values = {"eval/episode_return": 21.0, "health/kl": 0.0123, "health/ess": 0.45, "health/entropy": 6.7}
    values |= {"rollout/episode_return_recent": 89.0, "health/explained_variance": 0.12}
    console.write(10, values)
    (line,) = capsys.readouterr().out.splitlines()
    assert "return 89.0  eval 21.0  kl 0.0123  ess 0.45  entropy 6.70  ev 0.12" in line
