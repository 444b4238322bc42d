"""What a message suggests exists, and is what people of other libraries mean."""

import re
import sys
from pathlib import Path

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pgx.config.compose import compose
from pgx.config.rules import OTHER_RULE_NAMES, VALUE_BASED_RULES, rule_hint
from pgx.config.run_config import flatten_config
from pgx.config.suggestions import ALIASES, is_known_key, key_hint
from pgx.core.paths import config_choices, config_groups
from pgx.core.schema import most_similar
from pgx.envs.registry import KNOWN_PACKAGES, id_problem, nearest_id, package_hint
from tests.command import Command

PPO = OmegaConf.to_container(compose(["algo=ppo"]), resolve=False)
assert isinstance(PPO, dict)
OF_PPO = OmegaConf.create(PPO)
OFFERED = re.compile(r"'([^']+)'")


def test_every_alias_names_a_key_or_a_group_and_is_no_key_itself() -> None:
    for alias, targets in ALIASES.items():
        assert targets and all(is_known_key(target) or target in config_groups() for target in targets), alias
        assert alias not in PPO and alias == alias.casefold()


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.sampled_from(sorted(ALIASES)), st.text(max_size=8)), st.sampled_from(["", "algo.", "x."]))
def test_every_key_that_is_offered_is_there(leaf: str, section: str) -> None:
    offered = key_hint(f"{section}{leaf}", PPO)  # type: ignore[arg-type]
    if offered.startswith("; did you mean"):
        inside = section.rstrip(".")
        for key in OFFERED.findall(offered.partition("?")[0]):
            within = OmegaConf.select(OF_PPO, f"{inside}.{key}" if inside else key)
            assert is_known_key(key) or key in config_groups() or key in PPO or within is not None, offered


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["learning_rate=1"], "did you mean 'optimizer.learning_rate' or 'critic_optimizer.learning_rate'?"),
        (["total_timesteps=1"], "did you mean 'trainer.total_steps'?"),
        (["n_steps=1"], "did you mean 'runner.rollout_steps'?"),
        (["algo.gamma=1"], "did you mean 'algo.discount'?"),
        (["rollout_steps=1"], "did you mean 'runner.rollout_steps'?"),
        (["trainer.num_envs=1"], "did you mean 'env.num_envs'?"),
        (["algo.max_kl=1"], "algo.max_kl: unknown key; algo=ppo has: "),
        (
            ["cg_damping=1"],
            "'algo.damping' is that key of pgx, and algo=ppo does not have it; algo=npg, trpo have it",
        ),
        (["algo=PPO"], "did you mean 'ppo'?"),
        (["algo=sac"], "sac is not one of the policy-gradient rules of pgx"),
        (["--total-timesteps", "1000"], "use key=value: trainer.total_steps=..."),
        (["--seed", "1"], "use key=value: seed=..."),
    ],
)
def test_keys_and_rules_of_other_libraries(command: Command, overrides: list[str], says: str) -> None:
    chosen = [] if overrides[0].startswith("algo=") else ["algo=ppo"]
    said = command("train", *chosen, *overrides)
    assert said.code == 2 and says in said.err


def test_no_name_of_another_rule_is_one_of_ours_and_every_choice_is() -> None:
    assert not {*OTHER_RULE_NAMES, *VALUE_BASED_RULES} & set(config_choices("algo"))
    for line in set(OTHER_RULE_NAMES.values()):
        for choice in line.split():
            group, _, name = choice.partition("=")
            assert name in config_choices(group)
    assert "did you mean" not in "".join(map(rule_hint, VALUE_BASED_RULES))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_a_suggestion_is_one_of_the_choices(word: str, words: list[str]) -> None:
    assert most_similar(word, words) in [None, *words]
    for choice in words:
        same = most_similar(choice.swapcase(), words)
        assert same is not None and same.casefold() == choice.swapcase().casefold()


@pytest.mark.parametrize(
    ("word", "choice"),
    [("sac", "a3c"), ("Pong", "Ant"), ("x", "y"), ("dqn", "npg"), ("lr", "lx"), ("pg", "pi")],
)
def test_dissimilar_words_are_not_suggested(word: str, choice: str) -> None:
    assert most_similar(word, [choice]) is None


@pytest.mark.parametrize(
    ("word", "choice"),
    [
        ("rollout_len", "rollout_steps"),
        ("nenvs", "num_envs"),
        ("checkpoints", "checkpoint_every"),
        ("ppi", "ppo"),
    ],
)
def test_a_word_with_seven_tenths_in_common_or_one_slip_is_offered(word: str, choice: str) -> None:
    assert most_similar(word, [choice]) == choice


@pytest.mark.parametrize(
    ("env_id", "line"),
    [
        ("ALE/Pong-v5", "ALE/Pong-v5 comes from ale-py: pip install ale-py; env=ale_py:ALE/Pong-v5"),
        ("Pong-v5", "ALE/Pong-v5 comes from ale-py: pip install ale-py; env=ale_py:ALE/Pong-v5"),
        ("BreakoutNoFrameskip-v4", "env=ale_py:ALE/Breakout-v5"),
        ("MiniGrid-Empty-5x5-v0", "pip install minigrid; env=minigrid:MiniGrid-Empty-5x5-v0"),
        ("highway-fast-v0", "pip install highway-env; env=highway_env:highway-fast-v0"),
        ("FetchReach-v4", "pip install gymnasium-robotics; env=gymnasium_robotics:FetchReach-v4"),
        ("Meta-World/MT1", "env=metaworld:Meta-World/MT1 env.kwargs.env_name=reach-v3"),
        (
            "dm_control/cheetah-run-v0",
            "pip install 'shimmy[dm-control]'; env=shimmy:dm_control/cheetah-run-v0",
        ),
        ("mine/Env-v0", "env=MODULE:mine/Env-v0"),
    ],
)
def test_an_id_of_another_package_is_answered_with_the_line_to_type(env_id: str, line: str) -> None:
    said = id_problem(env_id)
    assert said is not None and line in said and "did you mean" not in said


def test_ids_that_gymnasium_has_come_from_no_other_package() -> None:
    own = [known for known in gymnasium.registry if "/" not in known]
    assert not [known for known in own if package_hint(known)]
    assert len({package.ids for package in KNOWN_PACKAGES}) == len(KNOWN_PACKAGES)


def test_an_id_of_a_missing_package_names_the_package() -> None:
    said = id_problem("panda_gym:PandaReach-v3")
    assert said is not None and said.endswith("; pip install panda-gym")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=10))
def test_an_id_that_is_offered_is_registered(text: str) -> None:
    for known in OFFERED.findall(nearest_id(text)):
        assert known in gymnasium.registry


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("Hopper-v9", "Hopper-v5"),
        ("Walker3d-v4", "Walker2d-v4"),
    ],
)
def test_the_nearest_id_has_the_version_that_was_asked_for_or_the_newest(typed: str, meant: str) -> None:
    assert nearest_id(typed) == f"; did you mean '{meant}'?"


def test_a_module_hidden_by_the_standard_library_is_reported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text("raise AssertionError\n")
    for overrides in (
        ["env=wave:Mine-v0"],
        ["algo=wave:Rule"],
        ["reward.terms.mine={function:wave.mine,weight:1}"],
    ):
        said = command("train", *overrides)
        assert said.code == 2
        assert (
            "wave.py in this folder is hidden by 'wave' of Python's standard library: rename the file"
            in said.err
        )
    assert "wave" in sys.modules


def test_a_sweep_names_the_run_without_such_a_key(command: Command) -> None:
    (problem,) = command("train", "-m", "env=CartPole-v1", "algo=trpo,ppo", "algo.max_kl=0.02").problems
    assert problem.startswith("algo=ppo: algo.max_kl: unknown key; algo=ppo has: ")


def test_keys_of_every_rule_are_known_without_a_run() -> None:
    for name in ("trpo", "impala", "off_policy_reinforce"):
        keys = flatten_config(OmegaConf.to_container(compose([f"algo={name}"]), resolve=False))
        assert not [
            k for k in keys if not is_known_key(k) and not k.startswith(("env.kwargs", "reward.terms"))
        ]
