"""Shell completion."""

import re

import pytest

from tests.command import Command


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("pgx tr", {"train"}),
        ("pgx ", {"train", "eval", "compare"}),
        ("pgx train algo=pp", {"algo=ppo", "algo=ppo_kl", "algo=ppg"}),
        ("pgx train -m algo=trpo algo.max_", {"algo.max_kl="}),
        ("pgx train algo=ppo opt", {"optimizer=", "optimizer."}),
        ("/venv/bin/pgx  train env=Walker2d-v", {"env=Walker2d-v4"}),
    ],
)
def test_completes_commands_and_overrides(
    command: Command, monkeypatch: pytest.MonkeyPatch, line: str, completions: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    printed = set(command("-sc", "query=bash").out.split())
    assert completions <= printed
    assert all(word.startswith(line.split(" ")[-1]) for word in printed)


@pytest.mark.parametrize(
    "line",
    ["pgx eval outputs/", "pgx train --resume outputs/", "pgx train policy.hidden=[", "pgx train a=[ b"],
)
def test_prints_nothing_where_it_has_no_completion(
    command: Command, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    result = command("-sc", "query=bash")
    assert (result.out.strip(), result.err, result.code) == ("", "", 0)


def test_installs_completion_for_pgx(command: Command) -> None:
    script = command("train", "-sc", "install=bash").out
    assert re.search(r"complete .* -F hydra_bash_completion pgx$", script.strip())


def test_refuses_an_incomplete_request(command: Command) -> None:
    refused = command("train", "-sc")
    assert refused.code == 2
    assert "use -sc install=bash" in refused.err
