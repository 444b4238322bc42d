"""What a reward's config may be, and what is refused before there is a run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgx.api.run_folder import compose_valid
from pgx.config.compose import compose
from pgx.core.errors import UserError
from pgx.core.paths import config_choices
from tests.command import Command

OWN_TERMS = "tests.envs.rewards.own_terms"
SMALL = ["algo=a2c", "env=CartPole-v1", "env.num_envs=2", "runner.rollout_steps=32", "trainer.total_steps=64"]
SMALL += ["trainer.compile=false", "logger.console=off", "logger.sinks=[]"]


def problem(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose_valid(list(overrides))
    (only,) = caught.value.problems
    return str(only)


@pytest.mark.parametrize("name", config_choices("reward"))
def test_every_file_is_a_reward_of_the_walker_under_its_name(name: str) -> None:
    cfg = compose_valid(["env=Walker2d-v4", f"reward={name}"])
    assert cfg.reward.name == name and bool(cfg.reward.terms) == (name != "none")


def test_terms_are_changed_added_and_removed_on_the_command_line() -> None:
    terms = compose_valid(
        [
            "reward=backward",
            "reward.terms.energy.weight=-1",
            "reward.terms.upright={weight:2}",
            "~reward.terms.alive",
        ]
    ).reward.terms
    assert set(terms) == {"backward_velocity", "energy", "upright"}
    assert terms["energy"]["weight"] == -1 and terms["upright"]["weight"] == 2
    mine = compose_valid([f"reward.terms.mine={{function:{OWN_TERMS}.pressed,weight:1}}"]).reward
    assert mine.environment == 1.0 and list(mine.terms) == ["mine"], "beside the environment's own"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("reward=backwards", "did you mean 'backward'?"),
        ("reward.terms.enrgy={weight:1}", "reward.terms.enrgy: no term 'enrgy'; did you mean 'energy'?"),
        ("reward.terms.energy=1", "reward.terms.energy: expected weight and the term's parameters"),
        ("reward.terms.energy={}", "reward.terms.energy.weight: missing; expected a number"),
        ("reward.terms.energy={weight:abc}", "reward.terms.energy.weight: expected a number, got 'abc'"),
        ("reward.terms.energy={weight:1,wieght:2}", "energy.wieght: unknown key; did you mean 'weight'?"),
        ("reward.terms.air_time={weight:1}", "air_time.longest: missing; expected a number > 0"),
        ("reward.terms.air_time={weight:1,longest:0}", "air_time.longest: expected a number > 0, got 0"),
        ("reward.terms.environment={weight:1}", "expected a name of letters"),
        ("reward.environment=0", "reward: all weights are 0"),
        ("reward.environment=0 reward.terms.energy={weight:0}", "reward: all weights are 0"),
        ("reward.environment=much", "reward.environment: expected a number, got 'much'"),
        ("env=CartPole-v1 reward.terms.upright={weight:1}", "parameter uprightness is unavailable for CartPole-v1"),
        ("reward=tiptoe +env.kwargs.xml_file=mine.xml", "unknown for a custom model"),
        ("reward.terms.mine={function:nowhere.term,weight:1}", "module 'nowhere' cannot be imported"),
        (f"reward.terms.mine={{function:{OWN_TERMS}.forwrd,weight:1}}", "did you mean 'forward'?"),
        (f"reward.terms.mine={{function:{OWN_TERMS}.opposite,weight:1,scale:-1}}", "mine.scale: expected a number > 0"),
        (f"reward.terms.mine={{function:{OWN_TERMS}.anything,weight:1}}", "a term's parameters have names"),
    ],
)  # fmt: skip
def test_invalid_reward_terms_are_named_with_the_nearest(overrides: str, said: str) -> None:
    assert said in problem(*overrides.split())


def test_a_misspelled_quantity_gets_the_nearest_one() -> None:
    with pytest.raises(UserError) as caught:
        compose_valid([f"reward.terms.mine={{function:{OWN_TERMS}.mistaken,weight:1}}"])
    assert any(
        "x_velocty is not a quantity of a step; did you mean 'x_velocity'?" in p
        for p in caught.value.problems
    )


def test_recorded_episodes_are_paid_what_they_were(tmp_path: Path) -> None:
    learn = ["algo=off_policy_reinforce", f"dataset={tmp_path}", "reward=backward"]
    with pytest.raises(UserError, match="runner=dataset learns from recorded rewards"):
        compose_valid(learn)


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with a term; the file is there once it was imported."""
    marker, folder = tmp_path / "imported", tmp_path / "modules"
    folder.mkdir()
    (folder / "strange_terms.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\ndef term(own_reward):\n    return own_reward\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield marker
    sys.modules.pop("strange_terms", None)


def forget(marker: Path) -> None:
    sys.modules.pop("strange_terms", None)
    marker.unlink()


def test_a_function_is_imported_where_it_is_named_and_from_a_file_only_when_trusted(
    command: Command, stranger: Path
) -> None:
    mine = "reward.terms.mine={function:strange_terms.term,weight:1}"
    compose([*SMALL, mine])
    assert not stranger.exists(), "composing imports nothing"
    said = command("train", *SMALL, mine, "run_dir=run")
    assert said.code == 0, said.err
    for line in ("eval run --episodes 1", "train --resume run trainer.total_steps=128"):
        forget(stranger)
        (told,) = command(*line.split()).problems
        assert (
            "strange_terms.term would import the module 'strange_terms'" in told and "--trust allows" in told
        )
        assert not stranger.exists()
        assert command(*line.split(), "--trust").code == 0
        assert stranger.exists()


@pytest.mark.system
def test_a_sweep_s_plan_imports_only_when_trusted(command: Command, stranger: Path) -> None:
    mine = "reward.terms.mine={function:strange_terms.term,weight:1}"
    said = command("train", "-m", *SMALL, mine, "seed=0", "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err
    again = command("train", "-m", *SMALL, mine, "seed=0", "hydra.sweep.dir=sweep")
    assert again.code == 0, again.err
    forget(stranger)
    (told,) = command("sweep", "resume", "sweep").problems
    assert "would import the module 'strange_terms'" in told and not stranger.exists(), (
        "told once, of the plan"
    )


def test_a_reward_is_described_by_its_terms_and_not_by_its_name(command: Command) -> None:
    said = command("train", *SMALL, "reward.terms.alive={weight:1.0}", "run_dir=run")
    assert said.code == 0 and "reward none + alive" in said.out
    assert "reward none" not in command("train", *SMALL, "reward.terms.alive={weight:0.0}", "run_dir=own").out
