"""Values that are right by themselves and contradict each other: each is named with what to choose instead."""

import re

import pytest

from pgx.config.cross_checks import conflict_problems, rank_problems
from pgx.config.run_config import to_run_config
from pgx.config.validate import plain_values
from tests.conftest import composed

RECORDED = ["algo=off_policy_reinforce", "env=CartPole-v1", "dataset=somewhere"]


def found(*overrides: str) -> list[str]:
    return conflict_problems(to_run_config(plain_values(composed(*overrides))))


def test_compatible_choices_are_accepted() -> None:
    assert found("env=CartPole-v1") == found(*RECORDED) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["algo=ppo", "runner=dataset", "dataset=x"],
            "runner=dataset: ppo learns from steps of its own policy only",
        ),
        (["algo=ppo", "dataset=x"], "dataset=x: runner=sync does not use it"),
        ([*RECORDED[:2]], "runner=dataset: the dataset is missing"),
        (
            [*RECORDED, "++reward.terms.alive={weight:1}"],
            "reward: runner=dataset learns from recorded rewards",
        ),
        ([*RECORDED, "reward.environment=2"], "reward: runner=dataset learns from recorded rewards"),
        (["algo=ppo", "runner=actor_learner"], "runner=actor_learner: its policies are some updates old"),
        (
            ["algo=a3c", "trainer.on_nan=skip_update"],
            "trainer.on_nan=skip_update: runner=a3c cannot undo an update",
        ),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_conflicts_are_named(overrides: list[str], says: str) -> None:
    assert any(line.startswith(says) for line in found("env=CartPole-v1", *overrides)), found(*overrides)


def test_conflicts_of_all_kinds_are_in_one_message() -> None:
    lines = found(
        "env=CartPole-v1", "algo=ppo", "dataset=x", "run_dir=' '", "trainer.total_steps=3", "optimizer=none"
    )
    assert [re.split("[:=]", line)[0] for line in lines] == [
        "run_dir",
        "dataset",
        "trainer.total_steps",
        "optimizer",
    ]


def of_ranks(size: int, *overrides: str) -> list[str]:
    return rank_problems(
        to_run_config(plain_values(composed("env=CartPole-v1", "algo=ppo", *overrides))), size
    )


def test_ranks_share_environments_out_evenly_and_take_no_rollouts_that_wait() -> None:
    assert of_ranks(2, "env.num_envs=4") == of_ranks(4, "env.num_envs=4") == []
    (line,) = of_ranks(3, "env.num_envs=4")
    assert line.startswith("env.num_envs=4: 3 ranks") and line.endswith("expected a multiple of 3: 3 or 6")
    (line,) = of_ranks(8, "env.num_envs=4")
    assert line.endswith("expected a multiple of 8: 8")
    (line,) = of_ranks(2, "env.num_envs=4", "runner.lag=1")
    assert line.startswith("runner.lag=1:")
