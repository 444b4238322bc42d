"""Table of the benchmark: medians, ranges and ratios of rows; and the script starts. Nothing is timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmark.clock import steps_per_second
from scripts.benchmark.rows import Row, from_json, to_json
from scripts.benchmark.table import growth, lines, of_bare, over_peer, table

ROOT = Path(__file__).parents[2]


def rates(side: str, setting: str, values: list[float], num_envs: int, job: str = "ppo") -> list[Row]:
    """Return one rate per round."""
    case = "stepping alone" if side == "bare" else "training loop"
    return [
        Row(job, case, side, setting, "steps/s", value, num_envs, {}, i)  # type: ignore[arg-type]
        for i, value in enumerate(values)
    ]


ROWS = [
    *rates("bare", "8 environments", [9000.0, 10000.0, 12000.0], 8, "bare"),
    *rates("bare", "64 environments", [20000.0, 16000.0, 14000.0], 64, "bare"),
    *rates("pgx", "8 environments", [3000.0, 2000.0, 9000.0], 8),
    *rates("sb3", "8 DummyVecEnv", [1000.0, 1200.0, 1100.0], 8),
    *rates("sb3", "8 EnvPool", [1400.0, 1500.0, 9999.0], 8),
    *rates("pgx", "16 environments", [5.0], 16, "a2c"),
]


def line(side: str, setting: str) -> int:
    return [(found.first.side, found.first.setting) for found in lines(ROWS)].index((side, setting))  # type: ignore[arg-type]


def test_lines_group_rounds_in_any_order() -> None:
    interleaved = [row for number in range(3) for row in ROWS if row.round == number]
    found = {(found.first.job, found.first.setting, found.first.side): found for found in lines(interleaved)}
    assert len(found) == 6
    assert found["ppo", "8 environments", "pgx"].values == (3000.0, 2000.0, 9000.0)
    assert found["ppo", "8 environments", "pgx"].median == 3000.0


def test_a_rate_is_divided_by_the_best_median_of_the_other_library() -> None:
    among = lines(ROWS)
    assert over_peer(among[line("pgx", "8 environments")], among, "sb3") == pytest.approx(3000 / 1500)
    assert over_peer(among[line("pgx", "8 environments")], among, "tianshou") is None
    assert over_peer(among[line("sb3", "8 EnvPool")], among, "sb3") is None
    assert (
        over_peer(among[line("pgx", "16 environments")], among, "sb3") is None
    )  # no other library did that job


def test_a_rate_is_divided_by_the_bare_rate_of_the_same_number_and_by_the_best() -> None:
    among = lines(ROWS)
    ours = among[line("pgx", "8 environments")]
    assert of_bare(ours, among, 8) == pytest.approx(3000 / 10000)
    assert of_bare(ours, among, None) == pytest.approx(3000 / 16000)
    assert of_bare(ours, among, 32) is None
    assert of_bare(among[0], among, 8) is None
    other = lines([Row("envs", "CartPole-v1", "pgx", "8 environments", "steps/s", 50000.0, 8)])[0]
    assert of_bare(other, among, 8) is None  # rates of different simulators are not compared


def test_fewer_seconds_are_better_and_an_unreached_value_has_no_ratio() -> None:
    rows = [
        Row("until", "to return 1,500", "pgx", "8 environments", "s", 100.0, 8),
        Row("until", "to return 1,500", "sb3", "8 DummyVecEnv", "s", 300.0, 8),
    ]
    among = lines(rows)
    assert over_peer(among[0], among, "sb3") == pytest.approx(3.0)
    among = lines([*rows, Row("until", "to return 1,500", "sb3", "8 EnvPool", "s", 200.0, 8)])
    assert over_peer(among[0], among, "sb3") == pytest.approx(2.0)
    never = lines([rows[0], Row("until", "to return 1,500", "sb3", "8 DummyVecEnv", "s", None, 8)])
    assert over_peer(never[0], never, "sb3") is None
    assert of_bare(never[0], never, None) is None
    assert "not reached" in table([rows[0], Row("until", "to", "sb3", "8", "s", None, 8)])


def test_growth_compares_medians_with_batch_sizes() -> None:
    rows = [
        Row("trpo_update", f"{batch}", "pgx", "update", "s", seconds, None, {"batch": batch}, i)
        for batch, times in ((2048.0, [0.1, 0.3, 0.2]), (20000.0, [3.0, 2.0, 1.0]))
        for i, seconds in enumerate(times)
    ]
    (note,) = growth(lines(rows))
    assert "10.00 times as long" in note
    assert "9.77 times as large" in note


def test_the_table_shows_medians_ranges_and_ratios() -> None:
    rows = table(ROWS).splitlines()
    cells = [cell.strip() for cell in rows[2 + line("pgx", "8 environments")].split("|")[1:-1]]
    head = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    shown = dict(zip(head, cells, strict=True))
    assert shown["median"] == "3,000"
    assert shown["min to max"] == "2,000 to 9,000"
    assert shown["rounds"] == "3"
    assert shown["over SB3"] == "2.00 x"
    assert "over Tianshou" not in shown  # no row, so no column
    assert shown["of bare, same number"] == "30%"
    assert shown["of best bare"] == "19%"


def test_a_row_is_read_back_from_its_line_and_other_lines_are_skipped() -> None:
    row = Row("memory", "peak", "pgx", "8 environments", "MB", 50.5, 8, {"peak": 480.0, "how": "x"}, 2)
    assert from_json(to_json(row)) == row
    assert from_json(json.dumps({"kind": "machine", "cores": 2})) is None


def test_the_clock_of_a_rate_starts_where_the_warm_up_ends() -> None:
    stamps = [(0, 0.0), (2000, 50.0), (4000, 60.0), (6000, 61.0), (8000, 64.0)]
    assert steps_per_second(stamps, 4000) == pytest.approx(4000 / 4.0)
    assert steps_per_second(stamps, 3999) == pytest.approx(4000 / 4.0)
    with pytest.raises(ValueError, match="no iteration ended after"):
        steps_per_second(stamps, 8000)


# Without another library, `losses` has no parts, so an argument that is wrongly accepted would run nothing.
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "trpo_update"),
        (["--only", "losses,ppo_updte"], 2, "did you mean 'ppo_update'?"),
        (
            ["--only", "losses", "--peer-python", "/nowhere/python"],
            2,
            "/nowhere/python: expected a Python that can be run",
        ),
        (["--only", "losses", "--rounds", "0"], 2, "expected a whole number >= 1, got '0'"),
    ],
)
def test_the_script_parses_its_arguments(arguments: list[str], code: int, words: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
