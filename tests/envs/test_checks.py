"""Each check fails for environments with its faults and for no others; no check fails for valid environments."""

import re
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

import tests.envs.broken
from pgx.envs.checks.env_under_test import CheckRequest, CheckResult, EnvUnderTest
from pgx.envs.checks.suite import CHECKS, run_check
from pgx.envs.checks.vector_env import VectorTrace, reset_rows_result
from pgx.envs.make import Backend
from pgx.envs.vector import Step

SLOW = "a worker process can create it"  # half a second each, and one fault only
SINGLE = ["it can be created", "policies support its spaces", "reset and step return Gymnasium's tuples"]
FORM, BOUNDS, FINITE, SIZE = (
    "observations have the shape and dtype of their space",
    "observations lie in their bounds",
    "observations and rewards are finite",
    "observations have a suitable magnitude",
)
REWARD, FLAGS, ENDS = (
    "rewards are real numbers",
    "terminated and truncated are booleans",
    "episodes end",
)
LAST, MASK, ACTIONS = (
    "last observations belong to the ended episode",
    "action masks are valid",
    "action bounds are usable",
)
KEPT, DRAWN = "returned observations are not overwritten", "steps do not render"
SEED, OTHER, NEXT = (
    "equal seeds give equal episodes",
    "different seeds give different episodes",
    "resets without a seed give different episodes",
)
ROWS, RESETS, ALL_SEED, APART = (
    "the run's environments return valid rows",
    "the step after an end only resets",
    "equal seeds give equal rows",
    "environments differ from each other",
)


def under_test(env_id: str, num_envs: int = 3, backend: Backend = "gymnasium", **kwargs: Any) -> EnvUnderTest:
    return EnvUnderTest(CheckRequest(env_id, num_envs, kwargs, backend, 1, 60.0, None))


def run_all(target: EnvUnderTest, but: tuple[str, ...] = (SLOW,)) -> dict[str, CheckResult]:
    """Run all checks but those in `but`."""
    found = {name: run_check(name, target) for name in CHECKS if name not in but}
    target.close()
    return found


def evidence_of(found: dict[str, CheckResult], outcome: str) -> dict[str, str]:
    """Return the evidence of the checks with an outcome."""
    return {name: result.evidence for name, result in found.items() if result.outcome == outcome}


def outcomes(target: EnvUnderTest, outcome: str, but: tuple[str, ...] = (SLOW,)) -> dict[str, str]:
    """Run the checks and return the evidence of those with an outcome."""
    return evidence_of(run_all(target, but), outcome)


@pytest.mark.parametrize(
    "fault", ["none", "continuous", "asserts actions", "unbounded", "valid mask", "noise"]
)
def test_all_checks_hold_for_a_valid_environment(fault: str) -> None:
    found = under_test("tests.envs.broken:Broken-v0", fault=fault)
    assert set(outcomes(found, "holds", but=())) == set(CHECKS)


@pytest.mark.parametrize(
    ("fault", "broken", "evidence"),
    [
        ("constructor", {SINGLE[0]}, r"raised RuntimeError: no licence, in __init__ \(broken.py:\d+\)"),
        ("dict", {SINGLE[1]}, r"observations are Dict\(.*supported are Box and Discrete"),
        ("four values", {SINGLE[2], ROWS}, r"step\(\) number 1 returned \(ndarray, float, bool, dict\), expected"),
        ("no info", {SINGLE[2], ROWS}, r"reset\(\) returned ndarray, expected \(observation, info\)"),
        ("raises", {SINGLE[2], ROWS}, r"number 31 raised RuntimeError: the robot fell, in _fail \(broken.py:\d+\)"),
        ("single instance", {SEED, ROWS}, r"raised RuntimeError: the port is taken, in __init__ \(broken.py:\d+\)"),
        ("shape", {FORM, ROWS}, r"output 0: shape \[1\], the space has \[2\]"),
        ("type", {FORM}, "output 0: dtype float64, the space has float32"),
        ("list", {FORM}, "output 0: a list, expected an array"),
        ("float of discrete", {FORM, ROWS}, "output 0: 0.0 is not an integer"),
        ("outside", {BOUNDS}, r"output 3: component 0 is \d\d.*, the space has \[-20.0, 20.0\]"),
        ("nan", {FINITE, ROWS}, "output 3: component 0 of the observation is nan"),
        ("infinite reward", {FINITE, ROWS}, "output 3: the reward is inf"),
        ("array of rewards", {REWARD, ROWS}, r"step 1: array.* a ndarray of shape \[2\]"),
        ("no reward", {REWARD, ROWS}, "step 1: None, a NoneType"),
        ("integer flags", {FLAGS}, "output 1: terminated is 0, a int"),
        ("resets itself", {LAST}, "ends it lies in the range of the first observations"),
        ("fixed start", {LAST, RESETS}, "ends it equals the first one of the next episode"),
        ("final observation", {LAST}, r'another observation in info\["final_observation"\]'),
        ("short mask", {MASK, ROWS}, r"output 0: the mask has the shape \[3\]; expected \[2\]"),
        ("mask of sevens", {MASK, ROWS}, "output 0: the mask contains 7; expected 0 or 1"),
        ("empty mask", {MASK, ROWS}, "output 2: the mask forbids every action"),
        ("empty bounds", {ACTIONS}, r"component 1 is in \[1, 1\]"),
        ("buffer", {KEPT}, "the observation of output 0 was overwritten by a later one"),
        ("shared buffer", {KEPT, APART}, "the observation of output 0 was overwritten by a later one"),
        ("unseeded randomness", {SEED, ALL_SEED}, "another observation after a second reset with the same seed"),
        ("noisy start", {SEED, ALL_SEED}, "output 0: another observation after a second reset with the same seed"),
        ("earlier episodes", {SEED, ALL_SEED}, "output 0: another observation after a second reset with the same seed"),
        ("earlier instances", {SEED}, "output 0: another observation in a new environment"),
        ("fixed stream", {SEED, ALL_SEED, APART}, "another observation after a second reset with the same seed"),
        ("one seed", {OTHER}, "8 seeds begin equally, episodes after them do not: the seed is not used"),
        ("repeats the episode", {NEXT}, "resets without a seed begin equally, while different seeds do not"),
        ("coarse seeds", {APART}, "all 3 are equal, while more distant seeds are not"),
    ],
)  # fmt: skip
def test_a_fault_fails_its_checks_and_no_others(fault: str, broken: set[str], evidence: str) -> None:
    found = outcomes(under_test("tests.envs.broken:Broken-v0", fault=fault), "fails")
    assert set(found) == broken
    assert re.search(evidence, next(found[name] for name in CHECKS if name in broken))


@pytest.mark.parametrize(
    ("fault", "open_", "evidence"),
    [
        ("endless", {ENDS, LAST, RESETS}, r"none ended within 2,000 steps; there is no time limit"),
        ("ignores seeds", {OTHER, NEXT, APART}, "8 seeds begin equally: a deterministic task"),
        ("masked start", {APART}, "all 3 begin equally"),
    ],
)
def test_checks_without_evidence_are_unknown(fault: str, open_: set[str], evidence: str) -> None:
    found = run_all(under_test("tests.envs.broken:Broken-v0", fault=fault))
    assert not evidence_of(found, "fails")
    unknown = evidence_of(found, "unknown")
    assert set(unknown) == open_
    assert re.search(evidence, next(unknown[name] for name in CHECKS if name in open_))


@pytest.mark.parametrize(("reward", "end"), [(1.0, False), (0.0, True)])
def test_a_reset_row_with_a_reward_or_an_end_fails(reward: float, end: bool) -> None:
    """No environment can cause this, but a faulty backend could."""
    obs, no, yes = np.arange(4.0).reshape(4, 1, 1), np.array([False]), np.array([True])
    last, valid = Step(obs[1], np.array([1.0]), yes, no), Step(obs[2], np.array([0.0]), no, no)
    wrong = Step(obs[2], np.array([reward]), no, np.array([end]))
    following = Step(obs[3], np.array([1.0]), no, no)
    assert reset_rows_result(VectorTrace(obs[0], [last, valid, following], [], 1.0)).outcome == "holds"
    assert reset_rows_result(VectorTrace(obs[0], [last, wrong, following], [], 1.0)).outcome == "fails"


def test_an_environment_that_renders_every_step_fails() -> None:
    found = under_test("tests.envs.broken:Broken-v0", render_mode="human")
    assert set(outcomes(found, "fails")) == {DRAWN}


@pytest.mark.parametrize(
    ("fault", "does"),
    [
        ("continuous", "clips them"),
        ("asserts actions", "raises AssertionError: too far"),
        ("unbounded", "passed as sampled"),
    ],
)
def test_the_evidence_describes_actions_beyond_the_bounds(fault: str, does: str) -> None:
    assert does in run_check(ACTIONS, under_test("tests.envs.broken:Broken-v0", fault=fault)).evidence


def test_an_environment_that_no_worker_can_create_fails() -> None:
    generator = (number for number in range(3))  # cannot be pickled
    gymnasium.register("Local-v0", lambda: tests.envs.broken.Broken() if generator else None)
    try:
        result = run_check(SLOW, under_test("Local-v0"))
    finally:
        del gymnasium.registry["Local-v0"]
    assert result.outcome == "fails" and "cannot be sent to worker processes" in result.evidence


@pytest.mark.parametrize(
    ("env_id", "backend"),
    [
        ("CartPole-v1", "gymnasium"),
        ("MountainCar-v0", "gymnasium"),
        ("MountainCarContinuous-v0", "gymnasium"),
        ("Pendulum-v1", "gymnasium"),
        ("Acrobot-v1", "gymnasium"),
        ("FrozenLake-v1", "gymnasium"),
        pytest.param("Walker2d-v4", "gymnasium", marks=pytest.mark.system),
        ("Walker2d-v4", "envpool"),
        pytest.param("Walker2d-v5", "processes", marks=pytest.mark.system),
        ("tests.environments:TwoButtons-v0", "gymnasium"),
        ("tests.environments:Catch-v0", "gymnasium"),
        ("tests.environments:Recall-v0", "gymnasium"),
    ],
)
def test_no_check_fails_for_common_environments(env_id: str, backend: Backend) -> None:
    if backend == "envpool":
        pytest.importorskip("envpool")
    but = () if env_id.startswith("Walker2d-v4") else (SLOW,)
    found = run_all(under_test(env_id, backend=backend), but)
    assert evidence_of(found, "fails") == {}
    assert not {*SINGLE, FORM, FINITE, REWARD, FLAGS, SEED, ROWS} & set(evidence_of(found, "unknown"))


@pytest.mark.parametrize(
    ("low", "high", "outcome", "evidence"),
    [
        (-1.0, 1.0, "holds", r"\[-1, 1\]"),
        (-2.0, 2.0, "holds", r"\[-2, 2\]"),
        (
            1.0,
            900.0,
            "unknown",
            r"reach 0.0022 of that range .* probability 0.16; .*squashed_gaussian",
        ),
        (-0.01, 0.01, "unknown", r"reach 1 of that range .* probability 0.008"),
        (2.2250738585072014e-308, 1.0, "fails", "likely the smallest number of a type by mistake"),
        (-1.0, -1.1754944e-38, "fails", "likely the smallest number of a type by mistake"),
    ],
)
def test_bounds_that_a_gaussian_policy_rarely_reaches_are_reported(
    low: float, high: float, outcome: str, evidence: str
) -> None:
    result = run_check(ACTIONS, under_test("tests.envs.odd:Bounded-v0", low=low, high=high))
    assert result.outcome == outcome and re.search(evidence, result.evidence), result


@pytest.mark.parametrize(("above", "outcome"), [(0, "holds"), (2, "holds"), (40, "fails")])
def test_rounding_may_exceed_the_bounds_of_observations(above: int, outcome: str) -> None:
    result = run_check(BOUNDS, under_test("tests.envs.odd:Bounded-v0", above=above))
    assert result.outcome == outcome
    assert outcome == "holds" or re.search(r"is 1\.0000\d+, the space has \[-1\.0, 1\.0\]", result.evidence)


@pytest.mark.parametrize(
    ("magnitude", "image", "normalize", "outcome", "evidence"),
    [
        (
            10,
            True,
            True,
            "unknown",
            "divide them by 255: their inputs are 0.039 at most; multiply by 25.5",
        ),
        (255, True, True, "holds", "the largest is 255"),
        (2_000_000, False, False, "unknown", "the largest is 2e.06, .* set env.normalize_obs=true"),
        (2_000_000, False, True, "holds", "the largest is 2e.06"),
        (2, False, False, "holds", "the largest is 2"),
    ],
)
def test_network_inputs_that_are_too_large_or_too_small_are_reported(
    magnitude: int, image: bool, normalize: bool, outcome: str, evidence: str
) -> None:
    found = under_test("tests.envs.odd:Large-v0", magnitude=magnitude, image=image)
    found.request = replace(found.request, normalize_obs=normalize)
    result = run_check(SIZE, found)
    assert result.outcome == outcome and re.search(evidence, result.evidence), result


def test_a_slow_environment_does_not_fail() -> None:
    """Checks that would take too long are unknown, and the evidence is the duration of a step."""
    found = under_test("tests.envs.broken:Broken-v0")
    found.trace.step_seconds[:] = [1.5] * len(found.trace.step_seconds)
    results = {name: run_check(name, found) for name in (SEED, OTHER, NEXT, ROWS, ALL_SEED, APART)}
    found.close()
    assert results[ROWS].outcome == "unknown"
    assert results[ROWS].evidence == "one step takes 1.5 s, one of all 3 environments 4.5 s"
    assert {result.outcome for result in results.values()} == {"holds", "unknown"}
