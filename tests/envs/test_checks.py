"""Each assumption fails of an environment that breaks it, and of no other; sound ones get a clean bill."""

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

SLOW = "a worker process can create it"  # half a second each, and one way of being broken
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


def subject(env_id: str, num_envs: int = 3, backend: Backend = "gymnasium", **kwargs: Any) -> EnvUnderTest:
    return EnvUnderTest(CheckRequest(env_id, num_envs, kwargs, backend, 1, 60.0, None))


def verdicts(subject: EnvUnderTest, but: tuple[str, ...] = (SLOW,)) -> dict[str, CheckResult]:
    """The verdict on every assumption."""
    found = {name: run_check(name, subject) for name in CHECKS if name not in but}
    subject.close()
    return found


def evidence_of(found: dict[str, CheckResult], outcome: str) -> dict[str, str]:
    """Evidence of the assumptions that have an outcome."""
    return {name: verdict.evidence for name, verdict in found.items() if verdict.outcome == outcome}


def outcomes(subject: EnvUnderTest, outcome: str, but: tuple[str, ...] = (SLOW,)) -> dict[str, str]:
    """Evidence of the assumptions of a subject that have an outcome."""
    return evidence_of(verdicts(subject, but), outcome)


@pytest.mark.parametrize("fault", ["none", "real", "picky", "unbounded", "sound mask", "noise"])
def test_of_a_sound_environment_every_assumption_holds(fault: str) -> None:
    found = subject("tests.envs.broken:Broken-v0", fault=fault)
    assert set(outcomes(found, "holds", but=())) == set(CHECKS)


@pytest.mark.parametrize(
    ("fault", "broken", "evidence"),
    [
        ("constructor", {SINGLE[0]}, r"raised RuntimeError: no licence, in __init__ \(broken.py:\d+\)"),
        ("dict", {SINGLE[1]}, r"observations are Dict\(.*supported are Box and Discrete"),
        ("four", {SINGLE[2], ROWS}, r"step\(\) number 1 returned \(ndarray, float, bool, dict\), expected"),
        ("no info", {SINGLE[2], ROWS}, r"reset\(\) returned ndarray, expected \(observation, info\)"),
        ("raises", {SINGLE[2], ROWS}, r"number 31 raised RuntimeError: the robot fell, in _meet \(broken.py:\d+\)"),
        ("alone", {SEED, ROWS}, r"raised RuntimeError: the port is taken, in __init__ \(broken.py:\d+\)"),
        ("shape", {FORM, ROWS}, r"output 0: shape \[1\], the space has \[2\]"),
        ("type", {FORM}, "output 0: dtype float64, the space has float32"),
        ("list", {FORM}, "output 0: a list, expected an array"),
        ("numbered", {FORM, ROWS}, "output 0: 0.0 is not an integer"),
        ("outside", {BOUNDS}, r"output 3: component 0 is \d\d.*, the space has \[-20.0, 20.0\]"),
        ("nan", {FINITE, ROWS}, "output 3: component 0 of the observation is nan"),
        ("infinite reward", {FINITE, ROWS}, "output 3: the reward is inf"),
        ("array of rewards", {REWARD, ROWS}, r"step 1: array.* a ndarray of shape \[2\]"),
        ("no reward", {REWARD, ROWS}, "step 1: None, a NoneType"),
        ("whole flags", {FLAGS}, "output 1: terminated is 0, a int"),
        ("resets itself", {LAST}, "ends it lies in the range of the first observations"),
        ("fixed start", {LAST, RESETS}, "ends it equals the first one of the next episode"),
        ("tells of its end", {LAST}, r'another observation in info\["final_observation"\]'),
        ("short mask", {MASK, ROWS}, r"output 0: the mask has the shape \[3\]; expected \[2\]"),
        ("odd mask", {MASK, ROWS}, "output 0: the mask contains 7; expected 0 or 1"),
        ("empty mask", {MASK, ROWS}, "output 2: the mask forbids every action"),
        ("pointless bounds", {ACTIONS}, r"component 1 is in \[1, 1\]"),
        ("buffer", {KEPT}, "the observation of output 0 was overwritten by a later one"),
        ("shared buffer", {KEPT, APART}, "the observation of output 0 was overwritten by a later one"),
        ("own chance", {SEED, ALL_SEED}, "another observation after a second reset with the same seed"),
        ("noisy start", {SEED, ALL_SEED}, "output 0: another observation after a second reset with the same seed"),
        ("left over", {SEED, ALL_SEED}, "output 0: another observation after a second reset with the same seed"),
        ("made", {SEED}, "output 0: another observation in a new environment"),
        ("deaf stream", {SEED, ALL_SEED, APART}, "another observation after a second reset with the same seed"),
        ("one seed", {OTHER}, "8 seeds begin equally, episodes after them do not: the seed is not used"),
        ("again", {NEXT}, "resets without a seed begin equally, while different seeds do not"),
        ("near seeds", {APART}, "all 3 are equal, while more distant seeds are not"),
    ],
)  # fmt: skip
def test_what_is_broken_fails_and_nothing_else(fault: str, broken: set[str], evidence: str) -> None:
    found = outcomes(subject("tests.envs.broken:Broken-v0", fault=fault), "fails")
    assert set(found) == broken
    assert re.search(evidence, next(found[name] for name in CHECKS if name in broken))


@pytest.mark.parametrize(
    ("fault", "open_", "evidence"),
    [
        ("endless", {ENDS, LAST, RESETS}, r"none ended within 2,000 steps; there is no time limit"),
        ("deaf", {OTHER, NEXT, APART}, "8 seeds begin equally: a deterministic task"),
        ("masked start", {APART}, "all 3 begin equally"),
    ],
)
def test_what_cannot_be_told_is_not_held_against_it(fault: str, open_: set[str], evidence: str) -> None:
    found = verdicts(subject("tests.envs.broken:Broken-v0", fault=fault))
    assert not evidence_of(found, "fails")
    told = evidence_of(found, "unknown")
    assert set(told) == open_
    assert re.search(evidence, next(told[name] for name in CHECKS if name in open_))


@pytest.mark.parametrize(("reward", "end"), [(1.0, False), (0.0, True)])
def test_a_row_after_an_end_that_is_more_than_a_reset_fails(reward: float, end: bool) -> None:
    """No environment can bring this about, but a backend that is not pgx's could."""
    obs, no, yes = np.arange(4.0).reshape(4, 1, 1), np.array([False]), np.array([True])
    last, sound = Step(obs[1], np.array([1.0]), yes, no), Step(obs[2], np.array([0.0]), no, no)
    wrong = Step(obs[2], np.array([reward]), no, np.array([end]))
    following = Step(obs[3], np.array([1.0]), no, no)
    assert reset_rows_result(VectorTrace(obs[0], [last, sound, following], [], 1.0)).outcome == "holds"
    assert reset_rows_result(VectorTrace(obs[0], [last, wrong, following], [], 1.0)).outcome == "fails"


def test_one_that_draws_every_step_is_told_of() -> None:
    found = subject("tests.envs.broken:Broken-v0", render_mode="human")
    assert set(outcomes(found, "fails")) == {DRAWN}


@pytest.mark.parametrize(
    ("fault", "does"),
    [
        ("real", "clips them"),
        ("picky", "raises AssertionError: too far"),
        ("unbounded", "passed as sampled"),
    ],
)
def test_it_is_told_what_an_action_outside_of_its_bounds_does(fault: str, does: str) -> None:
    assert does in run_check(ACTIONS, subject("tests.envs.broken:Broken-v0", fault=fault)).evidence


def test_what_no_worker_can_make_is_told_of() -> None:
    gymnasium.register("Local-v0", lambda: tests.envs.broken.Broken())
    try:
        verdict = run_check(SLOW, subject("Local-v0"))
    finally:
        del gymnasium.registry["Local-v0"]
    assert verdict.outcome == "fails" and "cannot be sent to worker processes" in verdict.evidence


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
def test_environments_that_people_use_get_a_clean_bill(env_id: str, backend: Backend) -> None:
    if backend == "envpool":
        pytest.importorskip("envpool")
    but = () if env_id.startswith("Walker2d-v4") else (SLOW,)
    found = verdicts(subject(env_id, backend=backend), but)
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
def test_bounds_that_a_gaussian_policy_hardly_meets_are_told_of(
    low: float, high: float, outcome: str, evidence: str
) -> None:
    verdict = run_check(ACTIONS, subject("tests.envs.odd:Bounded-v0", low=low, high=high))
    assert verdict.outcome == outcome and re.search(evidence, verdict.evidence), verdict


@pytest.mark.parametrize(("above", "outcome"), [(0, "holds"), (2, "holds"), (40, "fails")])
def test_rounding_is_no_observation_outside_of_its_bounds(above: int, outcome: str) -> None:
    verdict = run_check(BOUNDS, subject("tests.envs.odd:Bounded-v0", above=above))
    assert verdict.outcome == outcome
    assert outcome == "holds" or re.search(r"is 1\.0000\d+, the space has \[-1\.0, 1\.0\]", verdict.evidence)


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
def test_observations_that_networks_see_too_large_or_too_small_are_told_of(
    magnitude: int, image: bool, normalize: bool, outcome: str, evidence: str
) -> None:
    found = subject("tests.envs.odd:Large-v0", magnitude=magnitude, image=image)
    found.request = replace(found.request, normalize_obs=normalize)
    verdict = run_check(SIZE, found)
    assert verdict.outcome == outcome and re.search(evidence, verdict.evidence), verdict


def test_a_slow_environment_is_not_called_broken() -> None:
    """Its steps are said to be slow; nothing waits for them."""
    found = subject("tests.envs.broken:Broken-v0")
    found.trace.step_seconds[:] = [1.5] * len(found.trace.step_seconds)
    run_checks = {name: run_check(name, found) for name in (SEED, OTHER, NEXT, ROWS, ALL_SEED, APART)}
    found.close()
    assert run_checks[ROWS].outcome == "unknown"
    assert run_checks[ROWS].evidence == "one step takes 1.5 s, one of all 3 environments 4.5 s"
    assert {verdict.outcome for verdict in run_checks.values()} == {"holds", "unknown"}
