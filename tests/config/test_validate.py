"""Every mistake in a config is one error, all of them at once, naming key, expectation and nearest choice."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from pgx.algos import rule, rules
from pgx.config.compose import compose
from pgx.config.cross_checks import conflict_problems
from pgx.config.overrides import expand_sweep
from pgx.config.run_config import (
    FIXED_SECTIONS,
    NAMED_SECTIONS,
    SearchConfig,
    TopLevelConfig,
    keys_of_choice,
    to_run_config,
)
from pgx.config.validate import plain_values, validate
from pgx.core.errors import UserError
from pgx.core.paths import config_choices
from pgx.core.schema import matches_type, parameter_types
from pgx.ops.optim import OPTIMIZERS
from pgx.training.build import build
from tests.conftest import NEEDED, composed


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a run would be made in; nothing in this file may leave anything there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def problems(*overrides: str) -> list[str]:
    """What is wrong with these overrides, as the person who typed them is told."""
    with pytest.raises(UserError) as caught:
        build(validate(composed(*overrides)))
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in problem for problem in caught.value.problems)
    return list(caught.value.problems)


def problem(*overrides: str) -> str:
    found = problems(*overrides)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("name", config_choices("algo"))
def test_the_defaults_of_every_rule_are_accepted(name: str) -> None:
    cfg = composed(f"algo={name}", *NEEDED.get(name, []))
    validate(cfg)
    assert cfg.label == name


@pytest.mark.parametrize(
    "meant",
    [  # by override; those of a case are one command
        {
            "algo=trop": "trpo",
            "policy=mpl": "mlp",
            "critic=mpl": "mlp",
            "critic_optimizer=adamm": "adam",
            "runner=synk": "sync",
            "logger=defualt": "default",
            "env=Walker3d-v4": "Walker2d-v4",
        },
        {"algo=pp": "ppo", "env=CartPole": "CartPole-v1"},
        {"env.id=CartPole-v2": "CartPole-v1"},
    ],
    ids=lambda meant: next(iter(meant)),
)
def test_an_unknown_choice_is_named_with_the_nearest(meant: dict[str, str]) -> None:
    messages = problems(*meant)
    assert len(messages) == len(meant), messages
    for override, near in meant.items():
        key = override.partition("=")[2] if override.startswith("env") else override
        (message,) = (line for line in messages if f"{key}:" in line)
        assert f"did you mean '{near}'?" in message


def test_an_unknown_choice_gets_the_list_of_choices() -> None:
    groups = ["algo", "policy", "optimizer", "runner"]
    messages = problems(*(f"{group}=zzz" for group in groups))
    assert len(messages) == len(groups), messages
    for group, message in zip(groups, messages, strict=True):
        assert message.startswith(f"{group}=zzz:")
        assert message.endswith(f"{group} offers: {', '.join(config_choices(group))}")


@pytest.mark.parametrize(
    "meant",
    [  # by override; those of a case are one command
        {
            "algo.max_k=1": "max_kl",
            "trainer.total_step=5": "total_steps",
            "env.num_env=4": "num_envs",
            "sed=1": "seed",
            "algos.max_kl=1": "algo",
            "policy.hiden=[64]": "hidden",
            "critic_optimizer.learning_rat=1": "learning_rate",
        },
        {"+algo.max_k=1": "max_kl", "++sed=1": "seed"},
    ],
    ids=["set", "added"],
)
def test_an_unknown_key_is_named_with_the_nearest(meant: dict[str, str]) -> None:
    messages = problems(*meant)
    assert len(messages) == len(meant), messages
    for override, near in meant.items():
        key = override.lstrip("+").partition("=")[0]
        (message,) = (line for line in messages if line.startswith(f"{key}: unknown key"))
        assert f"did you mean '{near}'?" in message


def test_no_key_of_pgx_takes_a_number_that_is_nan() -> None:
    kinds = [TopLevelConfig, SearchConfig, *FIXED_SECTIONS.values(), *map(rule, rules())]
    hints = [hint for kind in kinds for hint in parameter_types(kind).values()]
    hints += [
        hint
        for section, named in NAMED_SECTIONS.items()
        for name in named
        for hint in keys_of_choice(section, name).values()
    ]
    assert len(hints) > 100 and not [
        hint for hint in hints if matches_type(math.nan, hint) or matches_type([math.nan], hint)
    ]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["algo=a2c", "runner.rollout_steps=1"],
            "normalize_advantage=true: runner.rollout_steps 1 x env.num_envs 1",
        ),
        (
            ["algo=ppo", "algo.minibatch_size=1"],
            "normalize_advantage=minibatch: algo.minibatch_size 1 = 1 row",
        ),
        (
            ["algo=ppo", "algo.minibatch_size=1", "runner.rollout_steps=1", "algo.normalize_advantage=batch"],
            "set runner.rollout_steps or env.num_envs to 2 or more, or algo.normalize_advantage=off",
        ),
    ],
)
def test_advantages_of_one_row_are_not_normalised(overrides: list[str], says: str) -> None:
    of_one = ["env=CartPole-v1", "env.num_envs=1", "algo.normalize_advantage=true"]
    of_one = of_one[: 3 - (overrides[0] == "algo=ppo")]
    (found,) = [line for line in problems(*of_one, *overrides) if "normalize_advantage" in line]
    assert says in found


@pytest.mark.parametrize("name", sorted({*rules()} - {"reinforce", "off_policy_reinforce"}))
def test_every_rule_that_normalises_advantages_refuses_a_single_row(name: str) -> None:
    """Rules of whole episodes do not know their rows."""
    hints = parameter_types(rule(name))
    assert "normalize_advantage" in hints
    on = "true" if hints["normalize_advantage"] is bool else "batch"
    one = ["env=CartPole-v1", "env.num_envs=1", "runner.rollout_steps=1", f"algo.normalize_advantage={on}"]
    assert any(f"algo.normalize_advantage={on}" in line for line in problems(f"algo={name}", *one))
    two = [*one[:1], "env.num_envs=2", *one[2:]]
    said = conflict_problems(to_run_config(plain_values(composed(f"algo={name}", *two))))
    assert not any("normalize_advantage" in line for line in said)


def test_an_unknown_key_without_a_similar_one_gets_the_keys_of_its_section() -> None:
    message = problem("runner.zzz=1")
    assert message.startswith("runner.zzz: unknown key")
    assert "rollout_steps" in message


@pytest.mark.parametrize(
    ("override", "key", "expected", "got"),
    [
        ("algo.max_kl=abc", "algo.max_kl", "a number > 0", "'abc'"),
        ("algo.max_kl=-1", "algo.max_kl", "a number > 0", "-1"),
        ("algo.max_kl=0", "algo.max_kl", "a number > 0", "0"),
        ("algo.max_kl=true", "algo.max_kl", "a number > 0", "true"),
        ("algo.max_kl=null", "algo.max_kl", "a number > 0", "null"),
        ("algo.max_kl=nan", "algo.max_kl", "a number > 0", "nan"),
        ("algo.max_kl=inf", "algo.max_kl", "a number > 0", "inf"),
        ("algo.max_kl=[0.01]", "algo.max_kl", "a number > 0", "[0.01]"),
        ("algo.gae_lambda=1.5", "algo.gae_lambda", "a number in [0, 1]", "1.5"),
        ("algo.line_search_shrink=1", "algo.line_search_shrink", "a number in (0, 1)", "1"),
        ("algo.cg_steps=0", "algo.cg_steps", "a whole number >= 1", "0"),
        ("algo.normalize_advantage=1", "algo.normalize_advantage", "true or false", "1"),
        ("algo.fisher=exact", "algo.fisher", "one of gauss_newton, kl_hessian", "'exact'"),
        ("env.num_envs=0", "env.num_envs", "a whole number >= 1", "0"),
        ("env.backend=isaac", "env.backend", "one of auto, envpool, processes, gymnasium", "'isaac'"),
        ("env.obs_clip=-5", "env.obs_clip", "a number > 0 or null", "-5"),
        ("seed=-1", "seed", "a whole number >= 0", "-1"),
        ("seed=abc", "seed", "a whole number >= 0", "'abc'"),
        ("seed=", "seed", "a whole number >= 0", "''"),
        ("runner.rollout_steps=1.5", "runner.rollout_steps", "a whole number >= 1", "1.5"),
        ("trainer.total_steps=0", "trainer.total_steps", "a whole number >= 1", "0"),
        ("trainer.checkpoint_every=0", "trainer.checkpoint_every", "a whole number >= 1 or null", "0"),
        ("logger.console=fancy", "logger.console", "one of auto, live, plain, off", "'fancy'"),
        ("logger.every=maybe", "logger.every", "a whole number >= 1", "'maybe'"),
        ("device=tpu", "device", "one of cpu, cuda", "'tpu'"),
        ("label=null", "label", "a text", "null"),
        ("policy.hidden=[64,0]", "policy.hidden", "a list, each a whole number >= 1", "[64, 0]"),
        ("policy.hidden=64", "policy.hidden", "a list, each a whole number >= 1", "64"),
        (
            "critic_optimizer.schedule=step",
            "critic_optimizer.schedule",
            "one of constant, linear, cosine, inverse_sqrt",
            "'step'",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(
    override: str, key: str, expected: str, got: str
) -> None:
    assert problem(override) == f"{key}: expected {expected}, got {got}"


def test_a_deleted_key_is_missing() -> None:
    assert problem("~algo.max_kl") == "algo.max_kl: missing; expected a number > 0"


def test_a_misspelt_optimizer_is_named_where_a_rule_uses_one() -> None:
    message = problem("optimizer=adamm", "algo=ppo")
    assert message.startswith("optimizer=adamm:")
    assert "did you mean 'adam'?" in message


def test_an_optimizer_that_would_do_nothing_is_refused() -> None:
    message = problem("algo=trpo", "optimizer=adam")
    assert message.startswith("optimizer=adam:")
    assert "is unused with trpo" in message
    assert "optimizer=none" in message


def test_a_rule_without_the_optimizer_that_it_needs_is_refused() -> None:
    message = problem("algo=ppo", "optimizer=none")
    assert message.startswith("optimizer=none:")
    assert "ppo" in message
    assert ", ".join(OPTIMIZERS) in message


@pytest.mark.parametrize("name", ["trpo", "ppo"])
def test_a_rule_without_an_optimizer_for_its_critic_is_refused(name: str) -> None:
    assert any("critic_optimizer" in line for line in problems(f"algo={name}", "critic_optimizer=none"))


def test_a_batch_that_does_not_divide_into_minibatches_shows_the_arithmetic() -> None:
    message = problem("algo=ppo", "runner.rollout_steps=256", "env.num_envs=8", "algo.minibatch_size=60")
    assert message.startswith("algo.minibatch_size:")
    for part in ("runner.rollout_steps 256", "env.num_envs 8", "= 2048", "60", "34.13"):
        assert part in message


def test_a_minibatch_larger_than_the_batch_shows_the_arithmetic() -> None:
    message = problem("env.num_envs=1", "runner.rollout_steps=64", "algo.critic_minibatch_size=128")
    assert message.startswith("algo.critic_minibatch_size:")
    for part in ("runner.rollout_steps 64", "env.num_envs 1", "= 64", "128"):
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("trainer.total_steps=2047", "runner.rollout_steps 128 x 16 environments = 2048 steps"),
        (
            "algo=a3c runner.workers=4 trainer.total_steps=19",
            "runner.rollout_steps 5 x 4 environments = 20 steps",
        ),
        (
            "algo=impala runner.workers=4 runner.trajectories=2 runner.queue=4 trainer.total_steps=159",
            "runner.rollout_steps 20 x 8 environments = 160 steps",
        ),
    ],
)
def test_a_budget_below_one_rollout_shows_the_arithmetic(overrides: str, says: str) -> None:
    message = problem(*overrides.split())
    steps = int(overrides.rpartition("=")[2])
    assert message.startswith(f"trainer.total_steps={steps}: less than one rollout, ")
    assert says in message
    validate(composed(*overrides.split()[:-1], f"trainer.total_steps={steps + 1}"))


def test_a_budget_of_whole_episodes_is_at_least_one_step() -> None:
    validate(composed("algo=reinforce", "trainer.total_steps=1"))


def test_a_rollout_shorter_than_the_target_s_rewards_shows_the_arithmetic() -> None:
    steps = ["algo=actor_critic", "algo.gae_lambda=null", "runner.rollout_steps=8"]
    message = problem(*steps, "algo.n_steps=9")
    assert message.startswith("algo.n_steps=9:") and "runner.rollout_steps 8 < 9" in message
    assert message.endswith("at most 8")
    validate(composed(*steps, "algo.n_steps=8"))


@pytest.mark.parametrize("name", ["ppg", "off_policy_reinforce", "npg"])
def test_a_recurrent_policy_under_a_rule_that_has_no_sequences_is_named(name: str) -> None:
    alone = {"npg": ["algo.solver=compatible", "algo.fisher=empirical"]}
    overrides = [f"algo={name}", *NEEDED.get(name, []), *alone.get(name, [])]
    validate(composed(*overrides))
    with pytest.raises(UserError) as caught:
        validate(composed(*overrides, "policy=lstm"))
    assert any(
        "policy=lstm" in line and ("recurrent" in line or "sequences" in line)
        for line in caught.value.problems
    )


def test_a_number_beyond_64_bits_is_refused_before_anything_counts_with_it() -> None:
    for key in ("seed", "env.num_envs", "trainer.total_steps", "runner.rollout_steps"):
        message = problem(f"{key}={2**63}")
        assert message.startswith(f"{key}: expected a whole number") and message.endswith("63 bits")
    assert problem("seed=-1" + "0" * 300).endswith("63 bits")


def test_a_very_long_value_is_shown_in_part() -> None:
    assert len(problem("algo.fisher=" + "x" * 5000)) < 400


def test_line_ends_in_what_was_typed_do_not_break_a_message() -> None:
    (line,) = problems("algo=a\nb")
    assert line.startswith(r"'algo=a\nb':")


# --- sweeps that no machine could hold


@pytest.mark.parametrize("values", ["range(0,1000000000)", "range(0,1,1e-9)", "shuffle(range(0,1000000000))"])
def test_a_sweep_over_more_values_than_runs_can_be_is_refused_at_once(values: str) -> None:
    with pytest.raises(UserError, match="more than 10,000 values"):
        expand_sweep([f"seed={values}"])


def test_a_sweep_over_more_combinations_than_runs_can_be_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="1,000,000 runs; a sweep has at most 10,000"):
        expand_sweep(["seed=range(0,1000)", "env.num_envs=range(0,1000)"])


@pytest.mark.parametrize("values", ["range(0,3,0)", "range(0,1,0.0)", "glob(*)", "glob([a*],exclude=b)"])
def test_invalid_sweeps_are_named(values: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"seed={values}: ")):
        expand_sweep([f"seed={values}"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    message = problem("device=cuda")
    assert message.startswith("device=cuda:")
    assert "device=cpu" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy.hidden=[64", "a bracket is missing in the value"),
        ("policy.hidden={a:1", "a bracket is missing in the value"),
        ("seed", "not of the form key=value"),
        ("x", "not of the form key=value"),
        ("seed='a", "a quote is missing in the value"),
        ("algo.max_kl=(1", "a bracket is missing in the value"),
        ("key=a]", "a bracket is missing in the value"),
        ("=3", "not of the form key=value"),
        ("a b", "not of the form key=value"),
        ("seed=a=b", "the value cannot be read; expected a whole number"),
        ("zzz=a=b", "to pass it as a text, type"),
        ("policy.hidden=(32,32)", "a list has square brackets; type 'policy.hidden=[32,32]'"),
        ("policy.hidden[0]=128", "type the whole list, e.g. 'policy.hidden=[128,128]'"),
        ("policy.hidden.0=128", "type the whole list, e.g. 'policy.hidden=[128,128]'"),
    ],
)
def test_a_text_that_is_no_override_is_quoted_with_what_to_type(text: str, says: str) -> None:
    message = problem(text)
    assert message.startswith(text.partition("=")[0])
    assert says in message


def test_all_texts_that_are_no_overrides_are_quoted() -> None:
    found = problems("seed", "policy.hidden=[64", "algo=ppo")
    assert [line.split(":")[0] for line in found] == ["seed", "policy.hidden=[64"]


def starts(lines: Iterable[str]) -> list[str]:
    """What each problem is about, in alphabetical order."""
    return sorted(line.split(":")[0] for line in lines)


def test_mistakes_of_every_kind_are_reported_together() -> None:
    found = problems("algo.max_k=1", "algo.max_kl=-1", "seed=abc", "device=tpu", "runner.rollout_steps=1.5")
    assert starts(found) == ["algo.max_k", "algo.max_kl", "device", "runner.rollout_steps", "seed"]


def test_several_unknown_keys_and_choices_are_reported_together() -> None:
    assert starts(problems("sed=1", "algo.max_k=1", "trainer.total_step=5")) == [
        "algo.max_k",
        "sed",
        "trainer.total_step",
    ]
    assert starts(problems("algo=trop", "policy=mpl")) == ["algo=trop", "policy=mpl"]


def test_an_unknown_choice_an_unknown_key_and_a_bad_value_are_reported_together() -> None:
    assert starts(problems("policy=mpl", "sed=1", "device=tpu")) == ["device", "policy=mpl", "sed"]
    assert starts(problems("algo=trop", "sed=1", "seed=-1")) == ["algo=trop", "sed", "seed"]


def test_an_unknown_choice_is_named_though_keys_of_it_are_set() -> None:
    assert problems("algo=pppo", "algo.clip_range=0.1")[0].startswith("algo=pppo:")


def test_an_unknown_environment_and_a_bad_value_are_reported_together() -> None:
    found = problems("env=Walker3d-v4", "env.num_envs=0", "algo.max_kl=-1")
    assert len(found) == 3
    for part in ("Walker3d-v4", "env.num_envs", "algo.max_kl"):
        assert any(part in line for line in found)


def test_an_unknown_rule_is_not_blamed_for_what_another_rule_would_not_take() -> None:
    assert starts(problems("algo=pppo", "optimizer=adam")) == ["algo=pppo"]


def test_contradictions_are_reported_together() -> None:
    found = problems("algo=trpo", "optimizer=adam", "algo.critic_minibatch_size=60", "env=CartPole-v1")
    assert starts(found) == ["algo.critic_minibatch_size", "optimizer=adam"]


def test_a_reference_to_a_key_that_is_not_there_names_both() -> None:
    message = problem("algo.max_kl=${sed}")
    assert "algo.max_kl" in message
    assert "sed" in message


def test_a_rule_is_not_changed_by_its_name_alone() -> None:
    found = problems("algo.name=ppo")
    assert any(line.startswith("algo.max_kl: unknown key") for line in found)


def test_a_config_read_from_a_file_is_checked_like_an_override() -> None:
    text = OmegaConf.to_yaml(compose(["env=CartPole-v1"]), resolve=True)
    cfg = OmegaConf.create(text.replace("max_kl: ", "max_kl: -") + "extra: 1\n")
    with pytest.raises(UserError) as caught:
        validate(cfg)
    assert starts(caught.value.problems) == ["algo.max_kl", "extra"]


def test_preferences_of_a_rule_for_another_runner_are_dropped_and_values_of_the_user_are_not() -> None:
    """a2c's file sets runner.rollout_steps, a key that whole episodes do not have."""
    validate(composed("algo=a2c", "runner=episodes"))
    message = problem("algo=a2c", "runner=episodes", "runner.rollout_steps=64")
    assert message.startswith("runner.rollout_steps: unknown key")
    message = problem("algo=trpo", "critic_optimizer=lbfgs", "critic_optimizer.max_grad_norm=3")
    assert message.startswith("critic_optimizer.max_grad_norm: unknown key")


ONE_ROW = ["env.num_envs=1", "runner.rollout_steps=1"]
CRITIC = ["algo.critic_minibatch_size=1"]


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        (["algo=ppo", "algo.minibatch_size=1"], "algo.minibatch_size 1"),
        (["algo=ppo_kl", "algo.minibatch_size=1"], "algo.minibatch_size 1"),
        (["algo=ppg", "algo.minibatch_size=1"], "algo.minibatch_size 1"),
        (["algo=ppo", "algo.normalize_advantage=batch", "algo.minibatch_size=1", *ONE_ROW], "env.num_envs 1"),
        (["algo=a2c", "algo.normalize_advantage=true", *ONE_ROW], "env.num_envs 1"),
        (["algo=vtrace", "algo.normalize_advantage=true", *ONE_ROW], "env.num_envs 1"),
        (
            ["algo=actor_critic", "algo.normalize_advantage=true", *ONE_ROW],
            "env.num_envs 1",
        ),
        *((["algo=" + name, *ONE_ROW, *CRITIC], "env.num_envs 1") for name in ("trpo", "npg", "mdpo")),
    ],
)
def test_advantages_normalized_over_one_row_are_refused_with_the_arithmetic(
    overrides: list[str], source: str
) -> None:
    said = problem("env=CartPole-v1", *overrides)
    assert said.startswith("algo.normalize_advantage=") and f"{source} = 1 row" in said
    fix = re.search(r"or (algo\.normalize_advantage=\w+)$", said)
    assert fix is not None
    validate(composed("env=CartPole-v1", *overrides, fix.group(1)))


def test_one_row_without_normalized_advantages_is_accepted() -> None:
    validate(composed("env=CartPole-v1", "algo=a2c", *ONE_ROW))
    validate(composed("env=CartPole-v1", "algo=ppo", "algo.minibatch_size=2"))
