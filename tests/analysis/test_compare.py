"""Comparison of groups: runs, steps, scales and costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgx.analysis.comparison import (
    AXES,
    FISHER_PRODUCTS_AXIS,
    GRADIENT_STEPS_AXIS,
    SECONDS_AXIS,
    STEPS_AXIS,
    Comparison,
    Group,
    Request,
    compare_groups,
    cumulative_cost,
    is_exact,
    on_grid,
    read_reference,
)
from pgx.analysis.find import RunFolder, read_runs
from pgx.analysis.reading import RecordedRun, Series
from pgx.analysis.statistics import Resampling
from pgx.analysis.tables import comparison_tables, more_seeds
from pgx.core.errors import UserError
from tests.conftest import Make

METRIC = "rollout/episode_return_recent"
HOW = Resampling(resamples=200, level=0.95, seed=0)
STEPS_OF_ROWS = np.arange(100.0, 1100.0, 100.0)


def run(
    algo: str,
    seed: int,
    values: Any,
    env: str = "Walker2d-v4",
    state: str = "finished",
    steps: Any = STEPS_OF_ROWS,
    config: dict[str, Any] | None = None,
    others: dict[str, Series] | None = None,
) -> RecordedRun:
    """Return a run with a return in each row."""
    steps = np.asarray(steps, dtype=np.float64)
    returns = Series(steps, np.broadcast_to(np.asarray(values, dtype=np.float64), steps.shape).copy())
    return RecordedRun(
        folder=Path(f"{env}/{algo}/{state}{seed}{steps[-1]:.0f}"),
        source="pgx",
        env=env,
        algo=algo,
        seed=str(seed),
        config={"seed": seed, "algo.name": algo, **(config or {})},
        state=state,
        error="it burst" if state == "failed" else None,
        last_step=int(steps[-1]),
        series={METRIC: returns, **(others or {})},
    )


def compared(*runs: RecordedRun, **wishes: Any) -> Comparison:
    defaults: dict[str, Any] = {
        "metric": METRIC,
        "by": ("algo",),
        "at": None,
        "reference": None,
        "resampling": HOW,
    }
    return compare_groups(runs, Request(**(defaults | wishes)))


def groups(comparison: Comparison, env: str | None = "Walker2d-v4") -> dict[str, Group]:
    (panel,) = [panel for panel in comparison.panels if panel.env == env]
    return {group.name: group for group in panel.groups}


def test_values_are_linear_between_rows() -> None:
    """The last of several rows at one step counts; after the last row its value is constant."""
    series = Series(np.array([10.0, 20.0, 20.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    at = series.interpolate(np.array([5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0]))
    np.testing.assert_array_equal(at, [np.nan, 1, 2, 3, 3.5, 4, 4])
    grid, values = on_grid([series, Series(np.array([15.0, 30.0]), np.array([7.0, 8.0]))], end=30.0)
    assert (grid[0], grid[-1]) == (15.0, 30.0)
    assert np.isfinite(values).all() and values[:, -1].tolist() == [3.5, 8.0]


def test_runs_with_rows_at_different_steps_rank_as_with_rows_at_the_same_steps() -> None:
    """Six updates of slightly more than 2,000 steps each; one of nine runs ends a little earlier."""
    grows = {"slow": 10.0, "middle": 20.0, "fast": 30.0}
    runs = []
    for name, rate in grows.items():
        for seed in range(3):
            early = name == "slow" and seed == 0
            rows = 2000.0 * np.arange(1, 7) + (0 if early else 20 * seed + 100)
            runs.append(run(name, seed, rate * (rows / 1000) ** 2, steps=rows))
    comparison = compared(*runs)
    (panel,) = comparison.panels
    assert panel.step == 12_000 and [group.name for group in panel.groups] == ["fast", "middle", "slow"]
    for group in panel.groups:  # a chord of a parabola lies above it by at most (spacing / 2)^2
        is_exact = grows[group.name] * 12.0**2
        assert np.all(group.scores[0] >= is_exact) and np.all(group.scores[0] <= is_exact + grows[group.name])
    assert any("8 of 9 runs have no row there" in note for note in comparison.notes)


def test_a_metric_with_few_rows_is_compared_at_its_last_row() -> None:
    """Evaluations are rarer than rows: nothing is extrapolated to the end of the run."""
    tag = "eval/episode_return"
    runs = [
        run(
            "ppo",
            seed,
            1.0,
            others={tag: Series(np.array([300.0, 600.0 + 100 * seed]), np.array([1.0, 2.0]))},
        )
        for seed in range(2)
    ]
    assert compared(*runs, metric=tag).panels[0].step == 600


def test_scores_are_taken_at_the_last_common_step() -> None:
    long = run("ppo", 0, 10 * np.arange(1.0, 11.0))
    short = run("ppo", 1, [5.0, 6.0], steps=[100, 450])
    found = groups(compared(long, short))["ppo"]
    assert sorted(found.scores[0]) == [6.0, 45.0]


def test_a_failed_run_is_noted_and_does_not_limit_the_step() -> None:
    finished, failed = run("ppo", 0, 1.0), run("ppo", 1, 2.0, state="failed", steps=[100, 200])
    comparison = compared(finished, failed)
    assert groups(comparison)["ppo"].scores[0].tolist() == [1.0]
    notes = "\n".join(comparison.notes)
    assert "failed: it burst" in notes and "1 run left out (step 1,000 not reached)" in notes
    early = compared(finished, failed, at=200)
    assert sorted(groups(early)["ppo"].scores[0]) == [1.0, 2.0]


def test_a_run_that_limits_the_step_is_named() -> None:
    runs = [run("ppo", seed, 1.0) for seed in range(3)]
    comparison = compared(*runs, run("ppo", 3, 1.0, steps=[100]))
    assert any("leaves that run out" in note and "finished3" in note for note in comparison.notes)
    assert groups(comparison)["ppo"].scores[0].shape == (4,)


def test_a_running_run_does_not_limit_the_step_of_finished_runs() -> None:
    finished = [run("ppo", seed, 1.0) for seed in range(2)]
    begun = [run("ppo", seed, 2.0, state="running", steps=[100, 100 * seed]) for seed in (2, 3)]
    assert groups(compared(*finished, *begun))["ppo"].scores[0].tolist() == [1.0, 1.0]
    assert compared(*begun).panels[0].step == 200


def test_a_run_that_ended_before_others_had_a_value_is_left_out() -> None:
    late = [run("ppo", seed, 1.0, steps=[500, 1000]) for seed in range(2)]
    comparison = compared(*late, run("random", 0, 9.0, steps=[100]))
    assert comparison.panels[0].step == 1000
    assert any("1 run left out" in note and "random" in note for note in comparison.notes)


def test_groups_by_other_keys() -> None:
    runs = [run("ppo", seed, rate, config={"optimizer.lr": rate}) for seed in range(2) for rate in (1.0, 2.0)]
    found = groups(compared(*runs, by=("algo", "optimizer.lr")))
    assert set(found) == {"ppo, optimizer.lr=1.0", "ppo, optimizer.lr=2.0"}
    with pytest.raises(UserError, match=r"did you mean 'optimizer.lr'"):
        compared(*runs, by=("optimizer.rl",))
    with pytest.raises(UserError, match="a group is a set of seeds"):
        compared(*runs, by=("seed",))


def test_runs_that_differ_in_more_than_seeds_cause_a_warning() -> None:
    runs = [run("ppo", seed, 1.0, config={"algo.clip_range": 0.1 * (1 + seed)}) for seed in range(2)]
    assert any("--by algo,algo.clip_range" in note for note in compared(*runs).notes)
    assert not any("differ" in note for note in compared(*runs, by=("algo.clip_range",)).notes)
    twice = [run("ppo", 0, 1.0), run("ppo", 0, 1.0, steps=[100, 1001])]
    assert any("seed 0 more than once" in note for note in compared(*twice).notes)


def test_normalized_scores_are_relative_to_the_lowest_and_highest_values_of_each_environment() -> None:
    runs = [
        run(algo, seed, scale * value + seed, env=env)
        for env, scale in (("Walker2d-v4", 1000.0), ("Hopper-v4", 10.0))
        for algo, value in (("ppo", 1.0), ("trpo", 2.0))
        for seed in range(3)
    ]
    comparison = compared(*runs)
    overall = groups(comparison, None)
    scores = np.concatenate([*overall["ppo"].scores, *overall["trpo"].scores])
    assert scores.min() == 0 and scores.max() == 1
    assert overall["trpo"].mean.value > overall["ppo"].mean.value
    assert comparison.rule is not None and "lowest and highest" in comparison.rule
    given = compared(*runs, reference={"Walker2d-v4": (0.0, 1000.0), "Hopper-v4": (0.0, 10.0)})
    assert groups(given, None)["ppo"].median.value == pytest.approx((1.001 + 1.1) / 2)
    with pytest.raises(UserError, match="no scores of Walker2d-v4"):
        compared(*runs, reference={"Hopper-v4": (0.0, 1.0)})


def test_an_environment_with_equal_scores_is_left_out_of_the_normalized_scores() -> None:
    runs = [
        run(algo, seed, value, env=env)
        for env, values in (
            ("Walker2d-v4", (1.0, 2.0)),
            ("Hopper-v4", (1.0, 3.0)),
            ("CartPole-v1", (500.0, 500.0)),
        )
        for algo, value in zip(("ppo", "trpo"), values, strict=True)
        for seed in range(2)
    ]
    comparison = compared(*runs)
    assert (
        comparison.rule is not None
        and "left out, because all values are equal: CartPole-v1" in comparison.rule
    )
    assert len(groups(comparison, None)["ppo"].scores) == 2


def test_the_order_of_runs_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    runs = [run(algo, seed, generator.normal(size=10)) for algo in ("ppo", "trpo") for seed in range(4)]
    there, back = compared(*runs), compared(*reversed(runs))
    for name, group in groups(there).items():
        other = groups(back)[name]
        assert (group.iqm, group.area) == (other.iqm, other.area)
        np.testing.assert_allclose(group.curves[STEPS_AXIS].low, other.curves[STEPS_AXIS].low)
    assert there.panels[0].pairs == back.panels[0].pairs


def test_the_area_is_the_mean_over_training() -> None:
    found = groups(compared(run("ppo", 0, np.where(STEPS_OF_ROWS < 550, 0.0, 10.0))))["ppo"]
    assert found.area.value == pytest.approx((10 * 400 + 5 * 100) / 900, abs=0.05)


def test_the_number_of_seeds_that_separates_two_groups() -> None:
    far = [run("ppo", seed, 100 + seed) for seed in range(5)] + [run("trpo", seed, seed) for seed in range(5)]
    (pair,) = compared(*far).panels[0].pairs
    assert (pair.first, pair.second, pair.probability.value) == ("ppo", "trpo", 1.0)
    assert pair.p < 0.05 and more_seeds(pair) == "enough"
    near = [run("ppo", s, 2.0 * s) for s in range(5)] + [run("trpo", s, 2.0 * s - 1) for s in range(5)]
    (pair,) = compared(*near).panels[0].pairs
    assert pair.p > 0.05 and pair.needed is not None and pair.needed > 5
    assert more_seeds(pair) == str(pair.needed - 5)
    # The smaller group needs the most.
    assert (
        more_seeds(replace(pair, runs=(3, 5)))
        == more_seeds(replace(pair, runs=(5, 3)))
        == str(pair.needed - 3)
    )


def test_unknown_metrics_and_unreached_steps_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'rollout/episode_return_recent'"):
        compared(run("ppo", 0, 1.0), metric="rollout/episode_return_recnt")
    with pytest.raises(UserError, match=r"no run has reached it; .* from step 100 to 1,000"):
        compared(run("ppo", 0, 1.0), at=5000)
    with pytest.raises(UserError, match=r"no run has a row up to there; .* from step 100 to 1,000"):
        compared(run("ppo", 0, 1.0), at=50)


def test_the_message_about_runs_without_episodes_names_no_option() -> None:
    rows = Series(STEPS_OF_ROWS, STEPS_OF_ROWS)
    unended = replace(run("ppo", 0, 1.0), series={"health/kl": rows})
    with pytest.raises(
        UserError, match=r"^no episode has ended yet in 1 run \(the furthest is at step 1,000\)"
    ):
        compared(unended)
    notes = compared(unended, run("ppo", 1, 1.0)).notes
    assert any("1 run left out (no episode has ended)" in note for note in notes)


def test_one_seed_has_no_interval_and_no_p_value() -> None:
    comparison = compared(run("ppo", 0, 2.0), run("trpo", 0, 1.0), run("trpo", 1, 1.5))
    (pair,) = comparison.panels[0].pairs
    assert (pair.probability, pair.p, pair.needed) == (None, None, None)
    table = next(table for table in comparison_tables(comparison) if "pairs" in table.title)
    assert table.rows == [["ppo", "trpo", "-", "-", "0.75", "-", "-"]]
    assert any("one run of ppo: a single seed has no spread" in note for note in comparison.notes)
    assert any("different numbers of runs (ppo 1, trpo 2)" in note for note in comparison.notes)


def test_environments_are_never_pooled() -> None:
    """Versions, namespaces, and modules with environments of the same name."""
    ids = ["Walker2d-v4", "Walker2d-v5", "ALE/Pong-v5", "Pong-v5", "a:Maze-v0", "b:Maze-v0"]
    runs = [
        run("ppo", seed, 1.0 + i, env=env.split(":")[-1], config={"env.id": env})
        for i, env in enumerate(ids)
        for seed in range(2)
    ]
    found = compared(*[replace(one, folder=Path(f"r{i}")) for i, one in enumerate(runs)])
    assert sorted(panel.env for panel in found.panels if panel.env) == sorted(ids)
    registered = [
        replace(run("ppo", seed, 1.0, env="Maze-v0", config={"env.id": env}), folder=Path(env))
        for seed, env in enumerate(["Maze-v0", "a:Maze-v0"])
    ]
    assert groups(compared(*registered), "Maze-v0")["ppo"].scores[0].shape == (2,)


def test_counts_of_updates_add_up_and_rows_represent_unlogged_updates() -> None:
    rows = np.array([100.0, 200.0, 300.0])
    every = {
        "time/iteration": Series(rows, np.array([1.0, 2.0, 3.0])),
        "algo/gradient_steps": Series(rows, np.array([4.0, 5.0, 6.0])),
    }
    one = run("ppo", 0, 1.0, steps=rows, others=every)
    cost = cumulative_cost(one, GRADIENT_STEPS_AXIS)
    assert cost is not None and cost.values.tolist() == [4, 9, 15] and is_exact(one, GRADIENT_STEPS_AXIS)
    spaced = every | {"time/iteration": Series(rows, np.array([10.0, 20.0, 30.0]))}
    ten = run("ppo", 0, 1.0, steps=rows, others=spaced)
    cost = cumulative_cost(ten, GRADIENT_STEPS_AXIS)
    assert (
        cost is not None and cost.values.tolist() == [40, 90, 150] and not is_exact(ten, GRADIENT_STEPS_AXIS)
    )
    skipped = every | {"algo/gradient_steps": Series(rows[[0, 2]], np.array([4.0, 6.0]))}
    cost = cumulative_cost(run("ppo", 0, 1.0, steps=rows, others=skipped), GRADIENT_STEPS_AXIS)
    assert cost is not None and cost.values.tolist() == [4, 4, 10]
    assert cumulative_cost(one, FISHER_PRODUCTS_AXIS) is None


@pytest.mark.system
def test_costs_of_real_runs(make: Make, tmp_path: Path) -> None:
    """PPO's gradient steps follow from its config, TRPO's Fisher products from its rows."""
    for seed in (0, 1):
        make("env=CartPole-v1", "algo=ppo", "algo.minibatch_size=64", f"seed={seed}", name=f"p{seed}").train()
        make(
            "env=CartPole-v1", "algo=trpo", "algo.critic_minibatch_size=64", f"seed={seed}", name=f"t{seed}"
        ).train()
    runs, _ = read_runs([RunFolder(tmp_path)])
    found = groups(compared(*runs), "CartPole-v1")
    ppo, trpo = found["ppo"], found["trpo"]
    # 10 epochs of 256 / 64 minibatches, of the policy and of the critic, in each iteration.
    for one in ppo.runs:
        cost = cumulative_cost(one, GRADIENT_STEPS_AXIS)
        assert cost is not None
        np.testing.assert_array_equal(cost.values, 80 * one.series["time/iteration"].values)
    assert FISHER_PRODUCTS_AXIS not in ppo.costs
    products = [run.series["algo/cg_steps"].values.sum() for run in trpo.runs]
    assert 0.5 * min(products) < trpo.costs[FISHER_PRODUCTS_AXIS].value <= max(products)
    assert trpo.costs[GRADIENT_STEPS_AXIS].value < ppo.costs[GRADIENT_STEPS_AXIS].value
    for group in (ppo, trpo):
        assert (
            0
            < group.costs[SECONDS_AXIS].value
            <= max(r.series["time/seconds"].values[-1] for r in group.runs)
        )
        assert set(group.costs) <= set(AXES) and all(cost.exact for cost in group.costs.values())
        assert {STEPS_AXIS, SECONDS_AXIS, GRADIENT_STEPS_AXIS} <= set(group.curves)
    assert "health/kl" in ppo.health and "algo/line_search_steps" in trpo.health


def test_health_of_the_last_tenth() -> None:
    """Two of twenty rows up to step 1,000 are after step 900."""
    rows = np.arange(50.0, 1050.0, 50.0)
    kl = Series(rows, np.array([5.0] * 18 + [1.0, 3.0]))
    found = groups(compared(run("ppo", 0, 1.0, steps=rows, others={"health/kl": kl})))["ppo"].health[
        "health/kl"
    ]
    assert found == (pytest.approx(94 / 20), pytest.approx(2.0))


def test_health_at_a_step_between_two_rows() -> None:
    """With long updates, the last tenth before a step often contains no row."""
    rows = np.array([400.0, 800.0, 1200.0])
    kl = Series(rows, np.array([1.0, 2.0, 3.0]))
    one = run("ppo", 0, 1.0, steps=rows, others={"health/kl": kl})
    assert groups(compared(one, at=1000))["ppo"].health["health/kl"] == (1.5, 2.5)
    early = Series(rows[:2], np.array([1.0, 2.0]))  # undefined in the last update
    found = groups(compared(run("ppo", 0, 1.0, steps=rows, others={"health/kl": early})))["ppo"]
    assert found.health["health/kl"][0] == 1.5 and np.isnan(found.health["health/kl"][1])
    assert found.health_curves["health/kl"].x[-1] <= 800


def test_a_reference_file_has_a_low_and_a_high_score(tmp_path: Path) -> None:
    path = tmp_path / "reference.yaml"
    path.write_text("Walker2d-v4: [0, 5000.0]\n")
    assert read_reference(path) == {"Walker2d-v4": (0.0, 5000.0)}
    for wrong, said in [
        ("a: 1", "expected \\[low, high\\]"),
        ("a: [2, 1]", "low < high"),
        ("", "expected lines"),
    ]:
        path.write_text(wrong)
        with pytest.raises(UserError, match=said):
            read_reference(path)
