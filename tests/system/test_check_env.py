"""The command `pgx check`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pgx.cli.check
from pgx.cli.main import main
from pgx.core.errors import UserError
from pgx.core.specs import Continuous, Image
from pgx.envs.checks.suite import CHECKS
from pgx.networks.agents import flat_image_hint
from tests.processes import is_running

ROOT = Path(__file__).parents[2]
BROKEN = "env=tests.envs.broken:Broken-v0"
LESS = ["env.num_envs=2", "env.backend=gymnasium"]


def check(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str, str]:
    """Run `pgx check`, check that all child processes ended, and return exit code, stdout and stderr."""
    before = children()
    with pytest.raises(SystemExit) as ended:
        main(["check", *overrides])
    assert children() <= before
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int) and "Traceback" not in out + err
    return ended.value.code, out, err


def children() -> set[int]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return set(filter(is_running, map(int, listed)))


def results_of(out: str) -> dict[str, str]:
    """Return the result of each check in the printed table."""
    rows = [re.match(r"(holds|fails|unknown) +(.+?)(  |$)", line) for line in out.splitlines()]
    return {row[2]: row[1] for row in rows if row}


def test_a_valid_environment_passes_all_checks_with_exit_code_zero(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgx", "check", "env=CartPole-v1", *LESS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert results_of(done.stdout) == dict.fromkeys([*CHECKS, "policy=mlp accepts the observations"], "holds")
    assert "\x1b" not in done.stdout + done.stderr
    *_, pace, last = done.stdout.splitlines()
    assert re.fullmatch(
        r"one environment: \S+ ms per step \(.*\), \S+ ms per reset; 2 environments: [\d,]+ steps/s", pace
    )
    assert last == f"CartPole-v1: {len(CHECKS) + 1} checks hold, 0 fail, 0 unknown"
    assert not list(tmp_path.iterdir())


def test_the_last_line_names_failed_checks_and_the_exit_code_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = check(capsys, BROKEN, *LESS, "env.kwargs.fault=coarse seeds")
    assert code == 1
    assert {name for name, outcome in results_of(out).items() if outcome == "fails"} == {
        "environments differ from each other"
    }
    assert out.splitlines()[-1].endswith("1 fail, 0 unknown: environments differ from each other")


def test_an_environment_that_hangs_is_stopped_and_its_line_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgx.cli.check, "_EXTRA_SECONDS", 1.0)
    monkeypatch.setattr(pgx.cli.check, "_PROGRESS_SECONDS", 1.0)
    code, out, err = check(capsys, BROKEN, *LESS, "env.kwargs.fault=hangs", "env.worker_timeout=2")
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("fails")]
    assert re.search(
        r"return Gymnasium's tuples +the check did not finish within 3 s, in _fail \(broken.py:\d+\)", line
    )
    assert set(results_of(out).values()) == {"holds", "fails", "unknown"}
    assert f"3/{len(CHECKS)} reset and step return Gymnasium's tuples" in err.splitlines()


def test_an_environment_that_exits_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check(capsys, BROKEN, *LESS, "env.kwargs.fault=exits")
    assert code == 1 and re.search(
        r"^fails .* the check process ended with exit code 3 *$", out, re.MULTILINE
    )


def test_the_configured_policy_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    squashed = "policy.continuous=squashed_gaussian"
    code, out, _ = check(capsys, BROKEN, *LESS, "env.kwargs.fault=unbounded", squashed)
    assert code == 1 and "expected actions with finite bounds; component 0" in out
    assert [name for name, outcome in results_of(out).items() if outcome == "fails"] == [
        "policy=mlp accepts the observations"
    ]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["env=Walker3d-v4"], "did you mean 'Walker2d-v"),
        (["env=CartPole-v1", "env.num_env=3"], "did you mean 'num_envs'?"),
        (["env=CartPole-v1", "env.worker_timeout=0"], "env.worker_timeout: expected a number > 0, got 0"),
        (["env=CartPole-v1,Acrobot-v1"], "several values"),
        ([BROKEN, "env.backend=envpool"], "EnvPool has no Broken-v0"),
    ],
)
def test_an_invalid_command_has_one_message_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overrides: list[str], says: str
) -> None:
    monkeypatch.setattr(pgx.cli.check, "_PROGRESS_SECONDS", 60.0)  # no line of progress on a slow machine
    code, out, err = check(capsys, *overrides)
    assert code == 2 and out == "" and err.startswith("pgx: error: ") and says in err


def test_a_keyword_that_is_nan_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise UserError("not checked")

    monkeypatch.setattr(pgx.cli.check, "_check_process", stopped)
    code, _, err = check(capsys, "env=CartPole-v1", "env.kwargs.goal=nan")
    assert code == 2 and "env.kwargs.goal: the environment gets a number that is NaN" in err


def test_flat_images_suggest_convolutions() -> None:
    flat, convolved = ({"policy": {"name": name}, "critic": {"name": name}} for name in ("mlp", "cnn"))
    image = Image((84, 84, 3))
    assert flat_image_hint(flat, image) == (
        "policy=mlp critic=mlp takes images of 84 x 84 x 3 pixel by pixel; policy=cnn critic=cnn has far fewer weights"
    )
    assert flat_image_hint(flat, Image((7, 7, 3))) is None
    assert flat_image_hint(convolved, image) is None and flat_image_hint(flat, Continuous((3,))) is None
