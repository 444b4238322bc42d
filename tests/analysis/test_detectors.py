"""Detectors of pgx doctor, on rows on both sides of the bound."""

from typing import Any

import numpy as np
import pytest

from pgx.analysis.curves import DiagnosedRun
from pgx.analysis.detectors import (
    gain_below_prediction,
    line_search_rejects,
    relative_to,
    return_lost,
    stays_above,
    typical_return,
    uncorrected_lag,
)
from pgx.runs.metrics import tag


def run(config: dict[str, Any] | None = None, **columns: Any) -> DiagnosedRun:
    """Return a run with these metrics every 100 environment steps."""
    length = max(np.size(values) for values in columns.values())
    full = {tag(key): np.broadcast_to(values, length) for key, values in columns.items()}
    rows = [
        {"step": 100 * (i + 1)} | {name: float(values[i]) for name, values in full.items()}
        for i in range(length)
    ]
    return DiagnosedRun(rows, config or {})


def peak(top: float, end: float, start: float = 100.0) -> DiagnosedRun:
    """Return a run whose return rises to `top` in the middle, and ends at `end`."""
    return run(episode_return_recent=np.concatenate([np.linspace(start, top, 30), np.linspace(top, end, 30)]))


def test_only_a_gained_return_can_be_lost() -> None:
    assert return_lost(peak(1000.0, 100.0), 0.75) is not None
    assert return_lost(peak(1000.0, 900.0), 0.75) is None
    assert return_lost(peak(1000.0, 2000.0), 0.75) is None
    assert return_lost(peak(120.0, 100.0), 0.75) is None  # a gain of a sixth is noise
    found = return_lost(peak(1000.0, 100.0), 0.75)
    assert found is not None and found.first_step < found.last_step == 6000 and found.value < 300


def test_a_bound_relative_to_a_config_value() -> None:
    detect = relative_to("algo.max_kl", stays_above("kl"))
    config = {"algo": {"max_kl": 0.01}}
    assert detect(run(config, kl=np.full(10, 0.04)), 3.0) is not None
    assert detect(run(config, kl=np.full(10, 0.02)), 3.0) is None
    assert detect(run({"algo": {"max_kl": 10.0}}, kl=np.full(10, 4.0)), 3.0) is None
    assert detect(run({}, kl=np.full(10, 4.0)), 3.0) is None


def test_a_shortened_step_is_not_rejected() -> None:
    assert line_search_rejects(run(line_search_fraction=[0.5, 0.8, 0.25, 1.0]), 0.25) is None
    assert line_search_rejects(run(line_search_fraction=[0.0, 0.5, 0.5, 0.5]), 0.25) is None
    found = line_search_rejects(run(line_search_fraction=[0.0, 0.0, 0.5, 0.5]), 0.25)
    assert found is not None and (found.first_step, found.last_step, found.fraction) == (100, 200, 0.5)


def test_a_gain_below_the_prediction_is_detected() -> None:
    assert gain_below_prediction(run(surrogate_gain=np.full(10, 0.1), predicted_gain=1.0), 0.25) is not None
    assert gain_below_prediction(run(surrogate_gain=np.full(10, 0.9), predicted_gain=1.0), 0.25) is None
    assert gain_below_prediction(run(surrogate_gain=np.full(10, 9.0), predicted_gain=1.0), 0.25) is None
    assert gain_below_prediction(run(surrogate_gain=np.full(10, -1.0), predicted_gain=-1.0), 0.25) is None


def test_a_measured_lag_overrides_the_configured_lag() -> None:
    config = {"runner": {"lag": 4}}
    assert uncorrected_lag(run({}, policy_lag=np.full(10, 3.0), ess=0.9), 2.0) is not None
    assert uncorrected_lag(run(config, policy_lag=np.full(10, 1.0), ess=0.9), 2.0) is None
    assert uncorrected_lag(run(config, ess=np.full(10, 0.9)), 2.0) is not None


def test_steps_per_update_exclude_unlogged_updates() -> None:
    assert run(iteration=np.arange(1, 9)).steps_per_update() == 100
    assert run(iteration=10 * np.arange(1, 9)).steps_per_update() == 10


@pytest.mark.parametrize(("length", "horizon"), [(20.0, 20.0), (1000.0, 100.0)])
def test_the_typical_return_is_limited_by_the_episode_and_the_horizon(length: float, horizon: float) -> None:
    """With a reward of 3 per step and a discount of 0.99."""
    recorded = run({"algo": {"discount": 0.99}}, episode_return=np.full(8, 3 * length), episode_length=length)
    assert typical_return(recorded)[1] == pytest.approx(3 * horizon)
