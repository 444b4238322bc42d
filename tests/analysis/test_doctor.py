"""`pgx doctor` finds problems in runs that were broken on purpose, and none in healthy runs."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pgx.analysis.curves import DiagnosedRun, MetricCurve
from pgx.analysis.detectors import detect_lasting
from pgx.analysis.diagnostics import PROBLEMS, problem_table
from pgx.analysis.doctor import Diagnosis, advice, diagnose
from pgx.cli.doctor import read_diagnosed
from pgx.cli.main import main
from pgx.config.compose import compose
from pgx.runs.lock import lock_run
from pgx.runs.metrics import TABLE
from tests.conftest import Make

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "doctor.md"

# Twelve updates of 512 rows. Problems appear from the first update.
BATCHES = ["env=CartPole-v1", "env.num_envs=16", "runner.rollout_steps=32", "trainer.total_steps=6144"]
# A hundred updates of 80 rows.
STEPS = [
    "env=CartPole-v1",
    "env.num_envs=16",
    "runner.rollout_steps=5",
    "trainer.total_steps=8000",
    "logger.every=5",
]
EPISODES = ["env=CartPole-v1", "env.num_envs=16", "trainer.total_steps=6000"]
PASSES = ["algo.epochs=4", "algo.minibatch_size=128"]
FIT = ["algo.critic_minibatch_size=128", "algo.critic_epochs=4"]
PPO = ["algo=ppo", *BATCHES, *PASSES]
# PPO with its default minibatches: large changes need that many gradient steps.
LARGE = ["algo=ppo", "env=CartPole-v1", "env.num_envs=16", "runner.rollout_steps=64"]
TRPO = ["algo=trpo", *BATCHES, *FIT]
NPG = ["algo=npg", *BATCHES, *FIT]
A2C = ["algo=a2c", *STEPS]
VTRACE = ["algo=vtrace", *STEPS]
PAID = ["env=tests.environments:PaidCartPole-v0", "env.backend=gymnasium", "env.num_threads=null"]

BROKEN = [
    ("learning rate too high", [*LARGE, "trainer.total_steps=6144", "optimizer.learning_rate=3e-2"]),
    ("learning rate too high", [*A2C, "optimizer.learning_rate=7e-2"]),
    ("learning rate too high", ["algo=reinforce", *EPISODES, "optimizer.learning_rate=1"]),
    ("learning rate too high", [*VTRACE, "optimizer.learning_rate=3e-2"]),
    ("steps too short", [*PPO, "optimizer.learning_rate=1e-8"]),
    ("clip range too wide", [*LARGE, "trainer.total_steps=6144", "algo.clip_range=5"]),
    ("trust region too wide", [*TRPO, "algo.max_kl=10"]),
    ("trust region too wide", [*NPG, "algo.max_kl=10"]),
    ("damping too small", [*TRPO, "algo.damping=0"]),
    ("damping too small", [*NPG, "algo.damping=0"]),
    ("damping too large", [*TRPO, "algo.damping=100"]),
    ("critic explains nothing", [*PPO, "algo.gae_lambda=1", "critic_optimizer.learning_rate=1e-9"]),
    ("critic explains nothing", [*TRPO, "algo.gae_lambda=1", "critic_optimizer.learning_rate=1e-9"]),
    ("critic diverging", [*PPO, "critic_optimizer.learning_rate=1"]),
    ("reward scale", [*PPO, *PAID, "env.kwargs.pay=1e4", "env.scale_reward=false"]),
    ("reward scale", [*A2C, *PAID, "env.kwargs.pay=1e4", "env.scale_reward=false"]),
    ("no reward", [*PPO, *PAID, "env.kwargs.pay=0"]),
    ("entropy bonus too large", [*PPO, "algo.entropy_coefficient=10"]),
    ("entropy bonus too large", [*A2C, "algo.entropy_coefficient=10"]),
    ("too few steps in an update",
     ["algo=ppo", "env=CartPole-v1", "env.num_envs=1", "runner.rollout_steps=8", "algo.minibatch_size=8",
      "trainer.total_steps=200"]),
    ("too few episodes in an update", ["algo=reinforce", *EPISODES, "env.num_envs=1", "trainer.total_steps=1000"]),
    ("policy lag without correction", [*PPO, "runner.lag=16"]),
    ("policy lag without correction", [*A2C, "runner.lag=16"]),
    ("exploration lost", [*PPO, "policy.output_gain=1000", "optimizer.learning_rate=1e-6"]),
    ("initial policy too narrow",
     ["algo=ppo", "env=Pendulum-v1", "env.num_envs=16", "runner.rollout_steps=32", "trainer.total_steps=6144",
      *PASSES, "policy.log_std_init=-5"]),
    ("policy does not move", ["algo=reinforce", "env=FrozenLake-v1", "policy=tabular", "env.num_envs=16",
      "trainer.total_steps=6000", "optimizer.learning_rate=1e-6"]),
    ("numbers not finite", [*PPO, "optimizer.learning_rate=1e38", "trainer.on_nan=skip_update"]),
]  # fmt: skip

HEALTHY = [
    PPO,
    TRPO,
    NPG,
    A2C,
    ["algo=reinforce", *EPISODES],
    VTRACE,
]


def diagnosed(make: Make, overrides: list[str]) -> tuple[DiagnosedRun, Diagnosis]:
    """Train a run; return it and its diagnosis."""
    trainer = make(*overrides)
    trainer.train()
    run = read_diagnosed(trainer.run_dir)
    return run, diagnose(run)


HERE = ("steps too short", "no reward", "entropy bonus too large", "numbers not finite")
CASES = [
    pytest.param(*case, marks=[] if case[0] in HERE else pytest.mark.system) for case in BROKEN
]  # the others in `make test-all`


@pytest.mark.parametrize(("name", "overrides"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_an_injected_problem_is_found_first(make: Make, name: str, overrides: list[str]) -> None:
    run, diagnosis = diagnosed(make, overrides)
    assert [found.problem.name for found in diagnosis.found][:1] == [name], diagnosis
    first, *others = diagnosis.found
    assert all(other.caused_by == name for other in others), diagnosis
    assert 0 <= first.evidence.first_step <= first.evidence.last_step <= run.rows[-1]["step"]
    assert 0 < first.evidence.fraction <= 1
    assert advice(first.problem, run)


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(each, marks=[] if each in (PPO, A2C) else pytest.mark.system) for each in HEALTHY],
    ids=lambda overrides: overrides[0],
)
def test_no_problem_is_found_in_a_healthy_run(make: Make, overrides: list[str]) -> None:
    run, diagnosis = diagnosed(make, overrides)
    assert diagnosis == Diagnosis((), {}, too_short=False)
    assert run.logged_updates() >= 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["ppo", "trpo", "a2c", "reinforce", "vtrace"])
def test_no_problem_is_found_in_a_run_with_default_values(make: Make, name: str, seed: int) -> None:
    steps = {"ppo": 128, "trpo": 128, "a2c": 5, "vtrace": 20}.get(name)
    rollout = [] if steps is None else [f"runner.rollout_steps={steps}"]
    sized = ["env.num_envs=16", *rollout, "trainer.total_steps=60000"]
    _, diagnosis = diagnosed(make, [f"algo={name}", "env=CartPole-v1", *sized, f"seed={seed}"])
    assert diagnosis == Diagnosis((), {}, too_short=False)


def walker(**metrics: float) -> list[dict[str, Any]]:
    """Return rows with constant metrics."""
    tags = {metric.key: metric.tag for metric in TABLE}
    return [{"step": 100 * i} | {tags[key]: value for key, value in metrics.items()} for i in range(1, 11)]


CONFIG = {"algo": {"name": "trpo", "max_kl": 0.1, "damping": 0.6, "line_search_steps": 10, "discount": 0.99},
          "runner": {"name": "sync", "lag": 0}, "env": {"scale_reward": True}}  # fmt: skip


def test_missing_metrics_are_reported_and_the_others_are_checked() -> None:
    run = DiagnosedRun(walker(kl=0.9, ess=0.9), CONFIG)
    diagnosis = diagnose(run)
    assert [found.problem.name for found in diagnosis.found] == ["trust region too wide"]
    assert diagnosis.missing_metrics["line search rejects"] == ("algo/line_search_fraction",)
    assert "ESS collapse" not in diagnosis.missing_metrics


def test_consequences_are_listed_under_their_cause() -> None:
    found = diagnose(DiagnosedRun(walker(kl=0.9, ess=0.1), CONFIG)).found
    assert [(one.problem.name, one.caused_by) for one in found] == [
        ("trust region too wide", None),
        ("ESS collapse", "trust region too wide"),
    ]
    (alone,) = diagnose(DiagnosedRun(walker(kl=0.05, ess=0.1), CONFIG)).found
    assert alone.problem.name == "ESS collapse" and alone.caused_by is None


def names(rows: list[dict[str, Any]], config: dict[str, Any], **summary: Any) -> list[str]:
    return [found.problem.name for found in diagnose(DiagnosedRun(rows, config, summary)).found]


def rising(key: str, values: list[float], **metrics: float) -> list[dict[str, Any]]:
    """Return rows in which one metric changes."""
    tags = {metric.key: metric.tag for metric in TABLE}
    return [row | {tags[key]: value} for row, value in zip(walker(**metrics), values, strict=True)]


REINFORCE = {"algo": {"name": "reinforce", "normalize_advantage": False},
             "optimizer": {"name": "sgd", "learning_rate": 0.01, "max_grad_norm": None}}  # fmt: skip
FALLS, RISES = [2.0 - 0.1 * i for i in range(10)], [2.0 + 0.1 * i for i in range(10)]


def test_a_policy_that_does_not_move_is_a_problem_unless_its_return_rises() -> None:
    still = {"kl": 1e-9, "learning_rate": 0.01, "episode_return_min": 0.0, "episode_return_max": 0.0}
    poor = rising("episode_return_recent", [0.0, 0.05] * 5, **still | {"episode_return_max": 1.0})
    run = DiagnosedRun(poor, REINFORCE)
    (found,) = diagnose(run).found
    assert found.problem.name == "policy does not move"
    # An unset limit of the gradient's norm cannot be raised.
    assert advice(found.problem, run) == [
        "raise optimizer.learning_rate (now 0.01)", "set algo.normalize_advantage=true"
    ]  # fmt: skip
    assert names(rising("episode_return_recent", FALLS[::-1], kl=1e-9, learning_rate=0.01), REINFORCE) == []
    assert names(rising("episode_return_recent", [0.0, 0.05] * 5, kl=1e-3), REINFORCE) == []
    annealed = [0.01] * 4 + [1e-5] * 6
    moved = [row | {"health/kl": 1e-9 if i > 3 else 1e-3, "algo/learning_rate": annealed[i]}
             for i, row in enumerate(walker(episode_return_recent=1.0))]  # fmt: skip
    assert names(moved, REINFORCE) == []
    ppo = {"algo": {"name": "ppo"}, "optimizer": {"name": "adam", "learning_rate": 1e-9}}
    first, second = diagnose(DiagnosedRun(poor, ppo)).found
    assert (first.problem.name, second.caused_by) == ("steps too short", "steps too short")


def test_short_steps_count_only_before_the_learning_rate_is_annealed() -> None:
    """Steps that are short because the learning rate is annealed are healthy."""
    ppo = {"algo": {"name": "ppo"}, "optimizer": {"name": "adam", "learning_rate": 1e-3}}
    annealed = (1e-3 * np.linspace(1.0, 0.0, 40)).tolist()

    def found(kl: list[float], rates: list[float]) -> list[str]:
        tags = {metric.key: metric.tag for metric in TABLE}
        rows = [
            {"step": 100 * i, tags["kl"]: each, tags["learning_rate"]: rate}
            for i, (each, rate) in enumerate(zip(kl, rates, strict=True), start=1)
        ]
        return names(rows, ppo)

    held = [1e-3] * 14 + [1e-5] * 26  # annealed to a hundredth
    assert found([0.01] * 14 + [1e-9] * 26, held) == []
    assert found([0.01] * 14 + [1e-9] * 26, [1e-3] * 40) == ["steps too short"]
    assert found([1e-9] * 14 + [0.01] * 26, held) == ["steps too short"]
    assert found([0.01] * 12 + [1e-9] * 28, annealed) == [
        "steps too short"
    ]  # at half the rate they should move
    assert found([0.01] * 40, annealed) == []


def test_zero_advantages_explain_short_steps() -> None:
    metrics = {"kl": 0.0, "learning_rate": 3e-4, "advantage_std": 0.0, "episode_return_recent": 15.0,
                   "episode_return_min": 10.0, "episode_return_max": 20.0}  # fmt: skip
    config = {"algo": {"name": "ppo", "minibatch_size": 1, "normalize_advantage": "minibatch"},
              "optimizer": {"name": "adam", "learning_rate": 3e-4}, "env": {"num_envs": 4}}  # fmt: skip
    of_rule = {"algo": {"name": "a2c"}, "optimizer": config["optimizer"]}
    for rows, values in [
        (walker(**metrics), of_rule),  # by what the rule used
        (walker(**metrics | {"advantage_std": 0.7}), config),  # by the config: the batch has a deviation
        (walker(**metrics | {"advantage_std": 0.7})[:2], config),  # for which two rows are enough
    ]:
        first, *others = diagnose(DiagnosedRun(rows, values)).found
        assert first.problem.name == "advantages are all zero"
        assert {other.caused_by for other in others} <= {"advantages are all zero"}
        said = advice(first.problem, DiagnosedRun(rows, values))
        assert not any("learning_rate" in one for one in said)
    assert "raise algo.minibatch_size (now 1)" in said
    # Without a reward in an update all of its advantages are 0 as well; that is another cause.
    silent = walker(
        **metrics | {"episode_return_min": 0.0, "episode_return_max": 0.0, "episode_return_recent": 0.0}
    )
    assert names(silent, of_rule)[0] == "no reward"


def test_returns_that_never_differ_are_no_signal() -> None:
    assert names(walker(episode_return_min=7.0, episode_return_max=7.0), CONFIG) == ["no signal"]
    assert names(walker(episode_return_min=0.0, episode_return_max=0.0), CONFIG) == [
        "no reward", "no signal"
    ]  # fmt: skip
    assert names(walker(episode_return_min=0.0, episode_return_max=1.0), CONFIG) == []


def lasting(returns: list[float], lengths: list[float]) -> list[dict[str, Any]]:
    """Return rows with these returns and episode lengths."""
    rows = rising("episode_return_recent", returns)
    return [row | {"rollout/episode_length": length} for row, length in zip(rows, lengths, strict=True)]


def test_a_return_that_falls_while_rewards_per_step_rise_indicates_a_short_horizon() -> None:
    """At a discount of 0.99, 1,000 rewards of 1 have the value 100, and 170 rewards of 2.2 the value 180."""
    stood, lunged = ([1000.0] * 6, [1000.0] * 6), ([370.0] * 4, [170.0] * 4)
    returns, lengths = (one + other for one, other in zip(stood, lunged, strict=True))
    (found,) = diagnose(DiagnosedRun(lasting(returns, lengths), CONFIG)).found
    assert found.problem.name == "horizon too short"
    assert advice(found.problem, DiagnosedRun(walker(), CONFIG)) == ["raise algo.discount (now 0.99)"]
    far = CONFIG | {"algo": CONFIG["algo"] | {"discount": 0.999}}
    assert names(lasting(returns, lengths), far) == []  # it sees as far as the episodes last
    assert names(lasting(returns, [1000.0] * 6 + [500.0] * 4), CONFIG) == []  # rewards a step fell
    assert names(lasting(returns[:6] + [800.0] * 4, lengths), CONFIG) == []  # little is gone


def test_actions_outside_the_bounds_are_a_problem_if_entropy_rises() -> None:
    gaussian = CONFIG | {"policy": {"log_std_init": 0.0, "continuous": "gaussian"}}
    run = DiagnosedRun(rising("entropy", RISES, clipped_action_fraction=0.9), gaussian)
    (found,) = diagnose(run).found
    assert found.problem.name == "actions outside the bounds"
    assert "set policy.continuous=squashed_gaussian (now gaussian)" in advice(found.problem, run)
    assert names(rising("entropy", FALLS, clipped_action_fraction=0.9), gaussian) == []  # bang-bang control
    assert names(rising("entropy", RISES, clipped_action_fraction=0.1), gaussian) == []
    diagnosis = diagnose(DiagnosedRun(rising("entropy", RISES), gaussian))  # an earlier version wrote it
    assert not diagnosis.found and "actions outside the bounds" not in diagnosis.missing_metrics
    assert names(walker(clipped_reward_fraction=0.5), gaussian) == ["rewards are clipped"]


@pytest.mark.parametrize("dimensions", [1, 6])
@pytest.mark.parametrize("log_std", [-1.0, -2.0])
@pytest.mark.parametrize("squashed", [0.0, 3.0])
def test_a_tenfold_standard_deviation_is_a_problem(dimensions: int, log_std: float, squashed: float) -> None:
    """For any initial entropy; that of a squashed Gaussian is lower, so the dimensions do not follow from it."""
    config = CONFIG | {"policy": {"log_std_init": log_std}}

    def grown(factor: float) -> list[str]:
        widths = np.linspace(log_std, log_std + math.log(factor), 10)
        entropy = dimensions * (widths + 0.5 * math.log(2 * math.pi * math.e)) - squashed
        summary = {"action_dimensions": dimensions} if squashed else {}
        found = names(rising("entropy", entropy.tolist()), config, **summary)
        return [name for name in found if name == "standard deviation explodes"]

    assert grown(100.0) == ["standard deviation explodes"]
    assert grown(9.0) == []


def test_the_summary_has_the_number_of_action_dimensions(make: Make) -> None:
    of_two = ["algo=a2c", "env=tests.environments:Counter-v0", "env.backend=gymnasium"]
    assert make(*of_two).train()["action_dimensions"] == 2
    assert make("algo=a2c", "env=CartPole-v1", name="discrete").train()["action_dimensions"] is None


NAN = (
    "NotFiniteError: iteration 1: parameter log_std is NaN after the update; reproduce it with: pgx replay x"
)
ENV_NAN = "NotFiniteError: iteration 1: X-v0: the reward of environment 0, 1 is not a finite number (step 3)"


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_the_end_of_a_run_is_reported_first_for_any_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    folder = written(tmp_path, walker(kl=0.01)[:rows])
    for status, error, code in [
        ("failed", "EnvError: step() raised ValueError: the simulator burst", 1),
        ("failed", NAN, 1),
        ("failed", ENV_NAN, 1),
        ("interrupted", None, 0),
    ]:
        (tmp_path / "summary.json").write_text(json.dumps({"status": status, "error": error, "steps": 123}))
        found, out, _ = diagnose_cli(capsys, folder)
        assert found == code
        ending = " ".join(" ".join(out.splitlines()[1:4]).split())
        assert ending.startswith(f"{status}: at 123 steps: {error or 'stopped before trainer.total_steps'}")
        assert ("healthy" in out) == (status == "interrupted" and rows == 10)
        assert ("Problem: numbers not finite" in out) == (error == NAN)
        assert ("Problem: environment not finite" in out) == (error == ENV_NAN)
        record = json.loads(diagnose_cli(capsys, folder, "--json")[1])
        assert record["ended"]["state"] == status
        assert record["healthy"] is (False if code else True if rows == 10 else None)


def test_the_check_command_has_the_keyword_arguments_of_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, walker(kl=0.01)[:1])
    config = compose(["env=CartPole-v1", "env.kwargs.task='up hill'", "env.kwargs.limit=null", "run_dir=x"])
    OmegaConf.resolve(config)
    OmegaConf.save(config, tmp_path / "config.yaml")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "failed", "error": "it burst", "steps": 1}))
    out = diagnose_cli(capsys, str(tmp_path))[1]
    (line,) = [line for line in out.splitlines() if "pgx check" in line]
    said = shlex.split(line.partition(": ")[2])
    assert said == ["pgx", "check", "env=CartPole-v1", 'env.kwargs.task="up hill"', "env.kwargs.limit=null"]
    assert "1 logged update with health metrics" in out


def test_a_killed_run_is_distinguished_from_a_running_one(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(*A2C, "trainer.total_steps=800")
    trainer.train()
    assert "a2c on CartPole-v1" in diagnose_cli(capsys, str(trainer.run_dir))[1].splitlines()[0]
    (trainer.run_dir / "summary.json").unlink()
    code, out, _ = diagnose_cli(capsys, str(trainer.run_dir))
    assert code == 1 and out.splitlines()[1].startswith("killed: at ")
    assert f"  Resume: pgx train --resume {trainer.run_dir}" in out.splitlines()
    with lock_run(trainer.run_dir):
        code, out, _ = diagnose_cli(capsys, str(trainer.run_dir))
    assert code == 0 and not any(line.startswith("killed") for line in out.splitlines())


def test_four_updates_are_too_few() -> None:
    rows = walker(kl=0.9, ess=0.1)
    assert diagnose(DiagnosedRun(rows[:4], CONFIG)) == Diagnosis((), {}, too_short=True)
    assert diagnose(DiagnosedRun(rows[:5], CONFIG)).found


def test_an_accurate_critic_may_have_a_negative_explained_variance() -> None:
    """If all episodes return the same, the explained variance of a critic with small errors is negative."""
    critic = {"critic_optimizer": {"name": "adam"}}
    small = diagnose(DiagnosedRun(walker(explained_variance=-2, critic_loss=1e-4), CONFIG | critic))
    large = diagnose(DiagnosedRun(walker(explained_variance=-2, critic_loss=0.5), CONFIG | critic))
    assert not small.found
    assert [found.problem.name for found in large.found] == ["critic explains nothing"]


def test_advice_has_the_keys_and_values_of_the_run() -> None:
    run = DiagnosedRun(walker(kl=0.9), CONFIG)
    (found,) = diagnose(run).found
    assert advice(found.problem, run) == ["lower algo.max_kl (now 0.1)", "raise algo.damping (now 0.6)"]


@given(
    st.lists(st.floats(-10, 10), min_size=5, max_size=60),
    st.floats(-10, 10),
    st.floats(0.01, 1),
)
def test_a_detection_lies_within_the_run_and_has_the_stated_fraction(
    values: list[float], bound: float, lasting: float
) -> None:
    curve = MetricCurve("kl", np.arange(1.0, len(values) + 1), np.array(values))
    seen = detect_lasting(curve, lambda medians: medians > bound, lasting)
    medians, begins, ends = curve.medians()
    assert np.all(medians >= min(values)) and np.all(medians <= max(values))
    assert begins[0] == 1 and ends[-1] == len(values) and np.all(begins < ends)
    share = float((medians > bound).mean())
    assert (seen is not None) == (share > 0 and share >= lasting)
    if seen is not None:
        assert 1 <= seen.first_step < seen.last_step <= len(values) and seen.value > bound
        assert math.isclose(seen.fraction, share)


def test_a_single_outlier_is_not_a_problem() -> None:
    values = np.full(30, 0.01)
    values[10] = 1e6
    curve = MetricCurve("kl", np.arange(30.0), values)
    assert detect_lasting(curve, lambda medians: medians > 0.1, 0.01) is None


def test_causes_precede_their_consequences() -> None:
    names = [problem.name for problem in PROBLEMS]
    assert len(set(names)) == len(names)
    for place, problem in enumerate(PROBLEMS):
        for explained in problem.consequences:
            assert explained in names[place + 1 :], f"{problem.name} explains {explained}"


def test_every_problem_is_injected_or_tested_on_rows() -> None:
    """Problems in `rest` need a simulator or more time, or are tested on written rows."""
    rest = {"policy lag truncates the weights", "conjugate gradient does not converge", "KL over its bound",
            "line search rejects", "gain below prediction", "ESS collapse", "clip fraction high",
            "gradient always clipped", "horizon too short",
            "return lost", "no signal", "advantages are all zero", "rewards are clipped",
            "actions outside the bounds", "standard deviation explodes", "environment not finite"}  # fmt: skip
    assert {name for name, _ in BROKEN} | rest == {problem.name for problem in PROBLEMS}


def test_the_page_contains_the_table() -> None:
    """`python -m pgx.analysis.diagnostics` prints it."""
    assert problem_table() in PAGE.read_text()


def diagnose_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_the_report_has_the_problem_its_evidence_and_the_key(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(*TRPO, "algo.max_kl=10", "trainer.total_steps=3072")
    trainer.train()
    code, out, err = diagnose_cli(capsys, str(trainer.run_dir))
    assert code == 1 and err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"{trainer.run_dir}: trpo on CartPole-v1, 3,")
    assert lines[1] == "Problem: trust region too wide"
    assert any(line.startswith("  Evidence: health/kl ") for line in lines)
    assert "  Try: lower algo.max_kl (now 10); raise algo.damping (now 0.6)" in lines
    assert "docs/algorithms/trpo.md" in lines[-1]
    code, out, _ = diagnose_cli(capsys, str(trainer.run_dir), "--json")
    record = json.loads(out)
    assert (
        code == 1 and record["healthy"] is False and record["problems"][0]["name"] == "trust region too wide"
    )
    assert record["problems"][0]["value"] > record["problems"][0]["bound"]


def test_a_run_without_config_is_diagnosed_from_its_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = diagnose_cli(capsys, written(tmp_path, walker(ess=0.9, episode_return=1.0)))
    assert code == 0 and "config.yaml is missing" in out and "metrics.jsonl has no" in out


def test_a_short_run_is_reported_as_too_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, walker(kl=9.0)[:3])
    code, out, _ = diagnose_cli(capsys, folder)
    assert code == 0 and "too short to diagnose: 3 logged updates" in out and "healthy" not in out
    assert json.loads(diagnose_cli(capsys, folder, "--json")[1])["healthy"] is None


def test_a_folder_without_metrics_is_a_user_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = diagnose_cli(capsys, str(tmp_path))
    assert (
        code == 2
        and out == ""
        and err == f"pgx: error: {tmp_path}: not a run folder (it has no metrics.jsonl)\n"
    )
