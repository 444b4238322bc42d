"""Default values of rules, policies, critics and optimizers: configs/ is the only place that has them."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from pgx.algos import rule, rules
from pgx.algos.ppo import PPO
from pgx.config.compose import compose
from pgx.config.validate import validate
from pgx.core.defaults import DEFAULT, given_fields
from pgx.core.schema import check_fields
from pgx.networks import CRITICS, POLICIES
from pgx.ops.optim import CRITIC_OPTIMIZERS, OPTIMIZERS

PLAIN = ["env=Acrobot-v1", "algo=ppo"]  # an environment without a file in configs/env


@pytest.mark.parametrize("name", rules())
def test_a_rule_without_arguments_has_the_values_of_its_config(name: str) -> None:
    offline = ["dataset=recorded"] if name == "off_policy_reinforce" else []
    assert rule(name)() == validate(compose([f"algo={name}", "env=Acrobot-v1", *offline])).algo


SPECS = [
    ("policy", POLICIES),
    ("critic", CRITICS),
    ("optimizer", OPTIMIZERS),
    ("critic_optimizer", CRITIC_OPTIMIZERS),
]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, specs in SPECS for name in specs])
def test_a_spec_without_arguments_has_the_values_of_its_config(group: str, name: str) -> None:
    """The two groups of optimizers have the same values, apart from what the rule prefers."""
    spec = dict(SPECS)[group][name]()
    written = compose([*PLAIN, f"{group}={name}"])[group]
    prefers = {"learning_rate", "max_grad_norm", "schedule"} if "optimizer" in group else set()
    for field in fields(spec):
        if field.name not in prefers:
            assert getattr(spec, field.name) == written[field.name]


def test_a_given_value_is_kept_checked_and_known_from_a_default() -> None:
    ppo = PPO(clip_range=0.3)
    assert ppo.clip_range == 0.3 and ppo.epochs == PPO().epochs
    assert given_fields(ppo) == {"clip_range"} and given_fields(PPO()) == set()
    with pytest.raises(ValueError, match=r"PPO\.clip_range: expected a number > 0, got -1"):
        PPO(clip_range=-1)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a rule whose values are in the YAML file next to it."""
    (tmp_path / "own_defaults.py").write_text(
        "from dataclasses import dataclass\nfrom pgx.core.defaults import DEFAULT, fill_defaults\n"
        "@dataclass\nclass Own:\n    discount: float = DEFAULT\n    scale: float = DEFAULT\n"
        "    def __post_init__(self):\n        fill_defaults(self)\n"
    )
    (tmp_path / "own_defaults.yaml").write_text(
        "algo:\n  name: x\n  discount: ${env.discount}\n  scale: 3.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("own_defaults").Own
    sys.modules.pop("own_defaults")


def test_a_user_s_rule_takes_its_values_from_the_file_next_to_its_module(own: Any) -> None:
    assert (own().discount, own().scale, own(scale=2.0).scale) == (0.99, 3.0, 2.0)


@dataclass
class Undocumented:
    """Dataclass without a config file."""

    speed: float = DEFAULT


def test_a_value_that_no_file_has_must_be_passed() -> None:
    check_fields(Undocumented(speed=1.0))
    with pytest.raises(ValueError, match=r"Undocumented\.speed: no value; pass it"):
        check_fields(Undocumented())


def test_a_rule_that_extends_another_one_takes_its_values() -> None:
    @dataclass
    class Own(PPO):
        bonus: float = 1.0

    assert Own(clip_range=0.3) == Own(**{**vars_of(PPO()), "clip_range": 0.3})
    assert given_fields(Own(clip_range=0.3)) == {"clip_range", "bonus"}


def vars_of(rule: PPO) -> dict[str, Any]:
    return {each.name: getattr(rule, each.name) for each in fields(rule)}
