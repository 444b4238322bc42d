"""Values returned by environments: valid ones are accepted, invalid ones refused with the broken rule."""

from typing import Any, Literal

import numpy as np
import pytest

from pgx.core.errors import RunError
from pgx.envs.checks.env_under_test import CheckRequest, EnvUnderTest
from pgx.envs.checks.suite import run_check
from pgx.envs.make import BackendChoice, make_envs
from pgx.envs.rewards.spec import NO_SHAPING
from pgx.envs.vector import Step, step
from tests.envs.odd import REWARDS

ODD = "tests.envs.odd:Odd-v0"
CHECK = rf"\(`pgx check env={ODD}` tests every rule\)"

REFUSED = {
    "vector reward": rf"step\(\) returned array\(\[1., 1.\]\), a ndarray of shape \[2\], as reward; .*{CHECK}",
    "text reward": rf"step\(\) returned 'a lot', a str, as reward; expected one number {CHECK}",
    "no reward": rf"step\(\) returned None, a NoneType, as reward; expected one number {CHECK}",
    "text flag": rf"step\(\) returned 'no', a str, as terminated; expected one boolean {CHECK}",
    "vector flag": rf"step\(\) returned .* as truncated; expected one boolean {CHECK}",
    "wider": rf"returned an observation of shape \[4\]; the observation space has shape \[3\] {CHECK}",
    "column": r"returned an observation of shape \[3, 1\]; the observation space has shape \[3\]",
    "dict": r"returned a dict as observation; the observation space is Box",
    "complex": r"returned an observation of dtype complex\d+; the observation space has dtype float32",
    "bare": rf"reset\(\) returned a ndarray; expected \(observation, info\).*{CHECK}",
    "no info": rf"reset\(\) returned .*; expected \(observation, info\), info a dict.*{CHECK}",
    "four": rf"step\(\) returned 4 values \(ndarray, float, bool, dict\); expected .*{CHECK}",
    "raises": r"step\(\) raised KeyError: 'joint', in step \(odd.py:\d+\)$",
    "json": r"step\(\) raised TypeError: .* not JSON serializable, in step \(odd.py:\d+\)$",
    "additive mask": r"of environment 0.* contains -1000000000.0; expected 0 or 1 .* convert an additive mask",
    "negative mask": r"of environment 0.* contains -1; expected 0 or 1",
    "nan mask": r"of environment 0.* contains nan; expected 0 or 1",
    "probabilities": r"of environment 0.* contains 0.2; expected 0 or 1",
    "text mask": r"of environment 0.* contains 'yes'; expected 0 or 1",
    "zero mask": r"of environment 0.* forbids every action",
    "short mask": r"of environment 0.* has the shape \[2\]; expected \[3\]",
}


def played(
    kind: str, backend: Literal["gymnasium", "processes"] = "gymnasium", late: bool = False, name: str = ODD
) -> Step:
    """Take seven steps of two environments and return the last."""
    kwargs: dict[str, Any] = {"kind": kind, "late": late}
    envs = make_envs(BackendChoice(backend, "test"), name, 2, kwargs, 1, 60.0, NO_SHAPING)
    try:
        envs.reset(0)
        for _ in range(7):
            action = np.ones(2, np.int64)
            assert envs.action_mask is None or envs.action_mask[:, 1].all()
            took = step(envs, action)
        return took
    finally:
        envs.close()


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("kind", REFUSED)
def test_an_invalid_result_names_the_broken_rule(kind: str, late: bool) -> None:
    with pytest.raises(RunError, match=rf"^{ODD}: .*{REFUSED[kind]}"):
        played(kind, late=late)


@pytest.mark.parametrize("kind", ["vector reward", "raises", "additive mask"])
def test_worker_processes_report_the_same_errors(kind: str) -> None:
    with pytest.raises(RunError, match=rf"^{ODD}: .*{REFUSED[kind]}"):
        played(kind, "processes")


def test_the_error_of_an_invalid_mask_names_the_step() -> None:
    with pytest.raises(RunError, match=r"of environment 0 at step 2 of the episode contains -1"):
        played("negative mask", late=True)


def test_the_error_of_a_reset_without_a_seed_parameter_shows_the_signature() -> None:
    with pytest.raises(
        RunError, match=r"reset\(\) has no parameter seed; define it as reset\(self, \*, seed=None"
    ):
        played("", name="tests.envs.odd:Seedless-v0")


@pytest.mark.parametrize("kind", [*(k for k in REWARDS if k not in REFUSED), "array flag"])
def test_a_reward_of_one_number_is_accepted_in_every_form(kind: str) -> None:
    took = played(kind)
    assert took.reward.tolist() == [1.0, 1.0] and took.reward.dtype == np.float64
    assert took.terminated.tolist() == [False, False]


def test_a_discrete_action_can_be_a_dictionary_key() -> None:
    """NumPy integers equal Python integers and have the same hash."""
    assert played("table").reward.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("backend", ["gymnasium", "processes"])
def test_an_observation_that_the_environment_overwrites_is_copied(
    backend: Literal["gymnasium", "processes"],
) -> None:
    """This includes the last observation at a time limit, whose value is bootstrapped."""
    kept = []
    for kind in ("", "buffer"):
        kwargs = {"kind": kind, "max_episode_steps": 3}
        envs = make_envs(BackendChoice(backend, "test"), ODD, 2, kwargs, 1, 60.0, NO_SHAPING)
        rows = [envs.reset(0), *(step(envs, np.ones(2, np.int64)).obs for _ in range(5))]
        kept.append(np.stack(rows))
        envs.close()
    last = np.float32(0.1 * 3)
    assert np.array_equal(*kept) and (kept[0][3] == last).all() and (kept[0][4] == 0).all()


@pytest.mark.parametrize("kind", ["int mask", "bool mask", "float mask"])
def test_masks_of_zeros_and_ones_are_obeyed(kind: str) -> None:
    assert played(kind).reward.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", [k for k in REFUSED if k.endswith("mask") or k == "probabilities"])
def test_check_refuses_the_masks_that_training_refuses(kind: str) -> None:
    target = EnvUnderTest(CheckRequest(ODD, 2, {"kind": kind}, "gymnasium", 1, 60.0, None))
    result = run_check("action masks are valid", target)
    assert result.outcome == "fails", result
    target.close()
