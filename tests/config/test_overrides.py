"""Values as people type them: texts and paths with any characters, and whole numbers written as floats."""

import string
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pgx.config.compose import compose
from pgx.config.overrides import expand_sweep, parse, prepare
from pgx.config.run_config import FIXED_SECTIONS, TopLevelConfig
from pgx.config.suggestions import PATHS, is_known_key, takes_text, to_hydra_grammar
from pgx.core.errors import UserError
from pgx.core.schema import matches_type, parameter_types
from tests.command import Command
from tests.conftest import Make

TEXT_KEYS = ["label", "run_dir", "dataset"]
SECONDS = ["env=CartPole-v1", "env.num_envs=2", "env.backend=gymnasium", "algo=ppo"]
SECONDS += [
    "runner.rollout_steps=64",
    "algo.minibatch_size=64",
    "trainer.total_steps=128",
    "trainer.compile=false",
]

# Hydra's own words keep their meaning: quotes, escapes, references, sweeps and null.
printable = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12
).filter(
    lambda text: (
        not set(text) & set(",\\'\"") and "${" not in text and text not in ("null", "???") and "(" not in text
    )
)


def read(override: str) -> Override:
    return OverridesParser.create().parse_override(to_hydra_grammar(override))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TEXT_KEYS), printable)
@example("run_dir", "o/a=b")
@example("run_dir", "o/{x}")
@example("run_dir", "o/ü ö")
@example("label", "x y")
@example("label", "1e3")
@example("label", "true")
@example("label", "[a")
@example("label", " x ")
def test_a_text_is_what_was_typed(key: str, text: str) -> None:
    if text.startswith("~"):
        text = "x" + text
    override = read(f"{key}={text}")
    assert override.value() == text and not override.is_sweep_override()
    assert OmegaConf.create({"key": override.value()}).key == text


def test_a_comma_next_to_a_bracket_is_part_of_the_text() -> None:
    override = read("label=a[1,b")
    assert override.value() == "a[1,b" and not override.is_sweep_override()
    assert read("label=x y,z w").is_sweep_override()


@settings(max_examples=100, deadline=None)
@example("\\,#")
@given(st.text(st.sampled_from(string.printable), max_size=12))
def test_rewriting_twice_is_rewriting_once(value: str) -> None:
    for key in ("label", "run_dir", "trainer.total_steps", "env.kwargs.x"):
        once = to_hydra_grammar(f"{key}={value}")
        assert to_hydra_grammar(once) == once


def test_text_keys_are_those_with_the_type_text() -> None:
    hints = {
        f"{section}.{key}": hint
        for section, each in FIXED_SECTIONS.items()
        for key, hint in parameter_types(each).items()
    }
    for key, hint in (hints | parameter_types(TopLevelConfig)).items():
        assert is_known_key(key)
        assert takes_text(key) == (
            matches_type("any text", hint) and not matches_type(1, hint) and hint != "Any"
        ), key
    assert all(takes_text(key) or key.startswith("hydra.") for key in PATHS)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of an=other")
    assert compose(["run_dir=~/x"]).run_dir == "/home/of an=other/x"
    assert compose(["run_dir=o/~x", "label=~/x"]).run_dir == "o/~x"
    assert [job[0] for job in expand_sweep(prepare(["run_dir=~/a,~/b"]))] == [
        "run_dir='/home/of an=other/a'",
        "run_dir='/home/of an=other/b'",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"), [("1e4", 10_000), ("2.0", 2), ("1.5e1", 15), ("1_0e2", 1000), ("+1E3", 1000)]
)
def test_a_float_without_a_fraction_is_a_whole_number_where_one_is_wanted(typed: str, meant: int) -> None:
    cfg = compose([f"trainer.total_steps={typed}", "algo=ppo", "optimizer.learning_rate=1e0"])
    assert cfg.trainer.total_steps == meant and type(cfg.trainer.total_steps) is int
    assert type(cfg.optimizer.learning_rate) is float


@pytest.mark.parametrize("typed", ["1.5", "1e-3", "inf", "nan", "1e400"])
def test_other_floats_stay_floats(typed: str) -> None:
    assert to_hydra_grammar(f"trainer.total_steps={typed}") == f"trainer.total_steps={typed}"


def test_keywords_of_environments_take_addresses() -> None:
    address = "http://host:80/a?b=c&d=%20e@f"
    assert compose(["env=CartPole-v1", f"env.kwargs.url={address}"]).env.kwargs.url == address
    assert compose(["env=CartPole-v1", "env.kwargs.x=[1,2]"]).env.kwargs.x == [1, 2]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("optimizer.learning_rate=3e-4,", "optimizer.learning_rate=3e-4"),
        ("learning_rate=3e-4,", "optimizer.learning_rate=3e-4 or critic_optimizer.learning_rate=3e-4"),
        ("seed=,1,,2", "seed=1,2"),
        ("policy.hidden=[64,64],", "'policy.hidden=[64,64]'"),
        ("algo=ppo,", "algo=ppo"),
        ("env.kwargs.x=1.5,", "env.kwargs.x=1.5"),
        ("zzz=1,", "zzz=1"),
    ],
)
def test_a_comma_without_a_value_is_answered_with_the_line_to_type(typed: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([typed])
    assert str(caught.value) == f"{typed}: a comma without a value; type {line}"


@pytest.mark.parametrize(
    ("typed", "ends"),
    [
        ("optimizer.learning_rate=3e-4;", "expected a number"),
        ("algo=ppo;", "expected the name of one choice"),
        ("zzz=3e-4;", "to pass it as a text, type 'zzz='\"'\"'3e-4;'\"'\"''"),
    ],
)
def test_a_value_that_cannot_be_read_is_answered_with_what_its_key_takes(typed: str, ends: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([typed])
    assert str(caught.value).endswith(ends)


@pytest.mark.parametrize("given", ["goal=nan", "goal=[1,{x:nan}]"])
def test_nan_for_an_environment_is_passed_on_with_a_warning(
    given: str, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(
        "algo=a2c", "env=tests.environments:Gifted-v0", "env.backend=gymnasium", f"env.kwargs.{given}"
    )
    trainer.runner.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "pgx: env.kwargs.goal: the environment gets a number that is NaN; for the text, type "
    )
    assert compose(["env=CartPole-v1", line.rpartition("type ")[2].replace('"', "")]).env.kwargs.goal == "nan"


def test_several_values_without_m_name_the_line_to_type(command: Command) -> None:
    (problem,) = command("train", "algo=ppo,trpo").problems
    assert (
        problem == "algo=ppo,trpo: has several values; to train one run of each: pgx train -m algo=ppo,trpo"
    )
    (problem,) = command("train", "label=a,b").problems
    assert problem.endswith("""to pass one text: 'label='"'"'a,b'"'"''""")
    assert parse(["label='a,b'"])[0].value() == "a,b"


@pytest.mark.parametrize("name", ["a b=c", "o/{x}ü[1]", "it's (new), 100%"])
def test_every_command_takes_a_folder_of_any_name(command: Command, tmp_path: Path, name: str) -> None:
    quoted = f'run_dir="{name}"' if "," in name else f"run_dir={name}"
    assert command("train", *SECONDS, quoted, "label=x: y").code == 0
    assert (tmp_path / name / "summary.json").is_file()
    assert command("eval", name, "--episodes", "1").code == 0
    assert command("train", "--resume", name, "trainer.total_steps=2.56e2").code == 0
    assert command("runs", ".").code == 0
    assert command("compare", name).code == 0
