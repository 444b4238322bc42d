"""What a resumed run may change: the named list, what is refused with the difference, and what a change costs."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from pgx.config.changes import ALLOWED_CHANGES, apply_changes, is_allowed, resume_changes
from pgx.config.compose import compose
from pgx.config.overrides import parse
from pgx.config.run_config import flatten_config
from pgx.config.stored import ADDED_KEYS, read_config
from pgx.config.validate import problems_of, validate
from pgx.core.paths import config_choices
from pgx.core.schema import format_value
from pgx.training.build import build
from pgx.training.trainer import Trainer
from tests.command import Command
from tests.conftest import QUIET, composed, parameters

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def stored(*overrides: str) -> DictConfig:
    """A config as it stands in a run's folder."""
    text = OmegaConf.to_yaml(composed(*overrides, "run_dir=somewhere"), resolve=True)
    cfg = OmegaConf.create(text)
    assert isinstance(cfg, DictConfig)
    return cfg


CFG = stored("env=CartPole-v1")


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str):
        return f"'{value}'"
    return (
        str(value).lower().replace("none", "null") if value is None or isinstance(value, bool) else str(value)
    )


def refused(*overrides: str, cfg: DictConfig = CFG) -> tuple[str, ...]:
    return resume_changes(cfg, parse(list(overrides))).refused


def made(*overrides: str, cfg: DictConfig = CFG) -> list[str]:
    found = resume_changes(cfg, parse(list(overrides)))
    assert found.refused == ()
    return [str(change) for change in found.made]


# --- the list


def test_every_key_of_the_list_is_a_key_of_some_run() -> None:
    known: set[str] = set()
    for runner in config_choices("runner"):
        known |= flatten_config(OmegaConf.to_container(composed(f"runner={runner}"), resolve=False)).keys()
    for each in ALLOWED_CHANGES:
        there = each.key in known or (each.key.endswith(".") and any(k.startswith(each.key) for k in known))
        assert there, each.key


def test_the_page_has_the_list() -> None:
    section = PAGE.read_text().split("## What may change")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.*]+)` \| (\w+) \| (.+?) \|$", section, re.MULTILINE)
    assert rows == [
        (each.key + "*" * each.key.endswith("."), each.same_bits, each.cost) for each in ALLOWED_CHANGES
    ]


def test_a_section_of_the_list_stands_for_its_keys_and_a_key_for_itself_alone() -> None:
    assert is_allowed("logger.every") and is_allowed("logger.console_interval")
    assert not is_allowed("logger") and not is_allowed("loggers.every")
    assert is_allowed("device") and not is_allowed("device.x") and not is_allowed("devices")


# --- what is refused


@pytest.mark.parametrize(
    "key", [key for key in flatten_config(OmegaConf.to_container(CFG)) if key != "env.kwargs"]
)
def test_a_key_set_to_what_it_is_is_no_change_and_to_another_value_one_that_is_made_or_refused(
    key: str,
) -> None:
    value = OmegaConf.select(CFG, key)
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    assert made(f"{key}={written(plain)}") == []
    found = resume_changes(CFG, parse([f"{key}=other"]))
    assert [str(change) for change in found.made] == (
        [f"{key}: {format_value(plain)} -> 'other'"] * is_allowed(key)
    )
    assert len(found.refused) == (not is_allowed(key))
    assert all(line.startswith(f"{key}: {format_value(plain)} -> 'other'") for line in found.refused)


def test_the_difference_is_shown() -> None:
    (line,) = refused("algo.max_kl=0.02")
    assert line.startswith("algo.max_kl: 0.1 -> 0.02; ")


def test_all_refused_changes_are_in_one_message_without_the_allowed_ones() -> None:
    lines = refused("algo.max_kl=0.02", "seed=1", "trainer.total_steps=5", "trainer.total_step=5", "algo=ppo")
    assert [re.split("[:;]", line)[0] for line in lines] == [
        "algo.max_kl",
        "seed",
        "trainer.total_step",
        "algo",
    ]


def test_the_choices_of_a_run_are_named() -> None:
    (line,) = refused("algo=ppo")
    assert line.startswith("algo: 'trpo' -> 'ppo'")
    assert made("algo=trpo", "env=CartPole-v1") == []


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    assert refused("trainer.total_step=5")[0].endswith("did you mean 'total_steps'?")
    assert refused("trainr.total_steps=5")[0].endswith("did you mean 'trainer'?")
    assert "env.kwargs.new: unset -> 1" in refused("env.kwargs.new=1")[0]


@pytest.mark.parametrize(
    "override",
    [
        "~seed",
        "+trainer.new=1",
        "trainer.total_steps=1,2",
        "torch_threads=range(1,3)",
        "seed@x=1",
        "trainer.total_steps=${seed}",
        "logger.console='${oc.env:HOME}'",
        "trainer.eval_every=[${seed}]",
    ],
)
def test_overrides_other_than_plain_values_are_refused(override: str) -> None:
    (line,) = refused(override)
    assert line.startswith(f"{override}: ")


def test_truth_values_are_not_numbers() -> None:
    assert made(
        "trainer.compile_min_steps=false",
        cfg=apply_changes(CFG, resume_changes(CFG, parse(["trainer.compile_min_steps=0"])).made),
    )


def test_a_key_that_an_older_config_lacks_can_be_given() -> None:
    older = CFG.copy()
    del older.trainer["compile_min_steps"]
    assert made("trainer.compile_min_steps=7", cfg=older) == ["trainer.compile_min_steps: unset -> 7"]


def test_changes_are_made_to_a_copy() -> None:
    before = OmegaConf.to_yaml(CFG)
    wanted = resume_changes(CFG, parse(["trainer.total_steps=7", "logger.console=off", "device=cuda"]))
    cfg = apply_changes(CFG, wanted.made)
    assert (cfg.trainer.total_steps, cfg.logger.console, cfg.device) == (7, "off", "cuda")
    assert OmegaConf.to_yaml(CFG) == before


# --- what a change costs

OTHERWISE = {
    "trainer.eval_every": "256",
    "trainer.eval_episodes": "3",
    "trainer.compile_min_steps": "7",
    "logger.": "every=2",
    "env.num_threads": "2",
    "trainer.keep_checkpoints": "1",
    "trainer.on_nan": "skip_update",
    "trainer.disk_retry_seconds": "5",
    "env.worker_timeout": "500",
    "trainer.checkpoint_every": "300",
    "trainer.total_steps": "1536",
}


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """The folder of a finished run whose checkpoint of 512 steps is a boundary, and what it had learned in the end."""
    run = tmp_path_factory.mktemp("resume") / "run"
    settings = [
        "algo=ppo",
        "env=Pendulum-v1",
        "env.num_envs=4",
        "runner.rollout_steps=64",
        "optimizer.schedule=linear",
        "env.normalizer_warmup_steps=0",
    ]
    settings += ["trainer.total_steps=1024", "trainer.checkpoint_every=512", "trainer.compile=false"]
    trainer = build(validate(composed(*QUIET, *settings, f"run_dir={run}")))
    trainer.train()
    return run, parameters(trainer)


def resumed(run: Path, into: Path, *overrides: str) -> Trainer:
    """The run gone on with from its first checkpoint, in a folder of its own."""
    shutil.copytree(run, into)
    wanted = resume_changes(cfg := read_config(into / "config.yaml"), parse(list(overrides)))
    assert wanted.refused == () and len(wanted.made) == len(overrides)
    cfg = apply_changes(cfg, wanted.made)
    cfg.run_dir = str(into)
    trainer = build(validate(cfg))
    trainer.load_state_dict(
        trainer.writer.checkpoints.load(min(n for n in trainer.writer.checkpoints.names() if "step" in n))
    )
    trainer.train()
    return trainer


def test_from_an_earlier_checkpoint_a_run_ends_as_it_did(
    halfway: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    run, ended = halfway
    assert torch.equal(parameters(resumed(run, tmp_path / "again")), ended)


@pytest.mark.parametrize("key", OTHERWISE)
def test_changes_alter_the_bits_exactly_where_the_list_predicts(
    halfway: tuple[Path, torch.Tensor], tmp_path: Path, key: str
) -> None:
    run, ended = halfway
    override = key + ("" if key.endswith(".") else "=") + OTHERWISE[key]
    (entry,) = [each for each in ALLOWED_CHANGES if each.key == key]
    same = torch.equal(parameters(resumed(run, tmp_path / "again", override)), ended)
    assert same == (entry.same_bits == "yes")


def test_a_config_of_an_earlier_version_gets_the_values_that_its_runs_had(tmp_path: Path) -> None:
    values: Any = OmegaConf.to_container(compose(["run_dir=elsewhere"]), resolve=True)
    for section, added in ADDED_KEYS.items():
        for key in added:
            del values[section][key]
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))
    read = read_config(tmp_path / "config.yaml")
    assert not problems_of(read)
    assert all(
        read[section][key] == value for section, added in ADDED_KEYS.items() for key, value in added.items()
    )


# --- the command


@pytest.fixture
def run(halfway: tuple[Path, torch.Tensor], command: Command, tmp_path: Path) -> Path:
    """A finished run with a checkpoint at half its steps, in the folder `run` of the current one."""
    return Path(shutil.copytree(halfway[0], tmp_path / "run"))


def test_the_command_resumes_from_the_named_checkpoint_and_prints_the_changes(
    command: Command, run: Path
) -> None:
    before = (run / "metrics.jsonl").read_text().splitlines()
    first = min(path.stem for path in run.glob("checkpoints/step_*.pt"))
    said = command(
        "train",
        "--resume",
        "run",
        "--checkpoint",
        first,
        "logger.console_interval=9",
        "logger.every=1",
        "logger.console=plain",
    )
    assert said.code == 0, said.err
    assert "changed logger.console: 'off' -> 'plain'" in said.out and "logger.every" not in said.out
    after = (run / "metrics.jsonl").read_text().splitlines()
    assert len(after) == len(before) and after[: len(before) // 2] == before[: len(before) // 2]
    assert read_config(run / "config.yaml").logger.console == "plain"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--resume", "--resume: expected the folder of a run"),
        ("--resume run --checkpoint", "--checkpoint: expected last, best or step_<steps>"),
        ("--resume run --checkpoint nope", "nope.pt: no such checkpoint"),
        ("--resume run --chekpoint last", "--chekpoint: unknown flag; did you mean '--checkpoint'?"),
        ("--resume=nowhere", "nowhere: not a run folder"),
        ("--checkpoint last", "--checkpoint: is unused without --resume"),
        ("--trust", "--trust: is unused without --resume"),
        (
            "--resume run logger.console_interval=3 logger.console=off",
            "unused with logger.console='off'",
        ),
    ],
)
def test_a_mistake_on_resuming_is_one_message(command: Command, run: Path, arguments: str, says: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = command("train", *arguments.split())
    assert said.code == 2 and says in said.err and len(said.problems) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_refused_changes_and_invalid_values_are_in_one_message(command: Command, run: Path) -> None:
    said = command("train", "--resume", "run", "trainer.total_steps=-1", "algo.max_kl=1", "seed=3")
    assert [line.split(":")[0] for line in said.problems] == ["algo.max_kl", "seed", "trainer.total_steps"]
