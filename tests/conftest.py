"""Shared fixtures: trainers from real configs, the command line, datasets."""

import gc
import os
import pickle
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from pgx.cli.main import main
from pgx.config.compose import compose
from pgx.config.overrides import may_add_key, parse
from pgx.config.validate import validate
from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.core.paths import config_choices
from pgx.envs.gymnasium_backend import make_single
from pgx.envs.registry import id_problem
from pgx.rollouts.dataset_files import RecordedEpisode, split_episodes, write_dataset
from pgx.rollouts.sources import Episode
from pgx.training.build import build
from pgx.training.callbacks import STOP, PeriodicEvaluation, Stop, TrainingState, as_callback
from pgx.training.trainer import Trainer
from tests.command import Command, CommandResult

torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores SIGINT in background jobs, and child processes would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores SIGHUP

Make = Callable[..., Trainer]

# Overrides with which a rule learns from the 256 rows of `make`, in few passes.
SMALL = {
    "trpo": ["algo.critic_minibatch_size=64", "algo.critic_epochs=2"],
    "npg": ["algo.critic_minibatch_size=64", "algo.critic_epochs=2"],
    "ppo": ["algo.epochs=2"],
    "ppo_kl": ["algo.epochs=2"],
    "off_policy_reinforce": ["runner.episodes=4"],
    "ppg": [
        "algo.policy_epochs=2",
        "algo.value_epochs=2",
        "algo.policy_iterations=3",  # phases that end within a short run
        "algo.auxiliary_epochs=2",
    ],
}

# Overrides that a rule requires.
NEEDED = {"off_policy_reinforce": ["dataset=somewhere"]}

QUIET = ["logger.console=off", "logger.sinks=[]", "env.num_threads=1"]


TIERS = {"system": pytest.mark.system, "learning": pytest.mark.slow}  # folder: marker of its tests


# Modules and collected tests are never freed. Without this, the garbage collector traverses them repeatedly, which
# takes a third of the time of a collection.
gc.disable()


def pytest_collection_finish() -> None:
    """Enable the garbage collector for the objects of tests."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of each tier's folder. Single tests in other folders have explicit marks."""
    for item in items:
        folder = item.path.relative_to(item.config.rootpath).parts[1]
        if folder in TIERS:
            item.add_marker(TIERS[folder])


@pytest.fixture
def make(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that builds a small trainer without output from overrides; its run is in tmp_path/<name>.

    With runner=dataset and without dataset=..., the trainer gets recorded episodes of its environment.
    """

    def trainer(*overrides: str, name: str = "run") -> Trainer:
        few = ["trainer.total_steps=512", "env.num_envs=4", "trainer.compile=false"]
        few.append("env.normalizer_warmup_steps=0")
        runner = _runner(tuple(o for o in overrides if o.startswith(("algo=", "runner="))))
        if runner in ("sync", "actor_learner"):
            few.append("runner.rollout_steps=64")
        elif runner == "dataset" and not any(o.startswith("dataset=") for o in overrides):
            env = tuple(o for o in overrides if o.startswith("env"))
            few.append(f"dataset={recorded_dataset(tmp_path_factory.getbasetemp(), env)}")
        cfg = composed(*QUIET, *few, "run_dir=???", *overrides)
        if OmegaConf.is_missing(cfg, "run_dir"):
            cfg.run_dir = str(tmp_path / name)
        return build(validate(cfg))

    return trainer


def composed(*overrides: str) -> DictConfig:
    """Return a new config equal to `compose(overrides)`, in a fraction of the time.

    Each combination of groups is composed once per session; other keys are set on a copy, as Hydra sets them.
    """
    try:
        parsed = [(text, _parsed(text)) for text in overrides]
        envs = [(text, o) for text, o in parsed if o.key_or_group == "env"]
        # Environments without a file share a composition.
        named = {text: o for text, o in envs if len(envs) == 1 and _needs_no_file(o)}
        chosen = [text for text, o in parsed if may_add_key(o) or ":" in text]
        cfg = _copy(tuple("env=default" if text in named else text for text in chosen))
    except UserError:
        return compose(list(overrides))  # raises with all problems
    keys = [o for text, o in parsed if text not in chosen]
    if any(o.is_delete() or not _exists(cfg, o.key_or_group) for o in keys):
        return _copy(overrides)
    for o in named.values():
        cfg.env.id = o.value()
    for o in keys:
        OmegaConf.update(cfg, o.key_or_group, o.value(), merge=True, force_add=_is_open(o.key_or_group))
    return cfg


def _copy(overrides: tuple[str, ...]) -> DictConfig:
    cfg: DictConfig = pickle.loads(_pickled(overrides))  # a tenth of the time of a deep copy
    return cfg


@cache
def _pickled(overrides: tuple[str, ...]) -> bytes:
    return pickle.dumps(compose(list(overrides)))


@cache
def _runner(chosen: tuple[str, ...]) -> str:
    return str(composed(*chosen).runner.name)


@cache
def _parsed(text: str) -> Override:
    return parse([text])[0]


def _needs_no_file(o: Override) -> bool:
    """Return whether an override chooses an environment with the values of configs/env/default.yaml."""
    name = None if o.is_delete() else o.value()
    return isinstance(name, str) and name not in config_choices("env") and id_problem(name) is None


def _is_open(key: str) -> bool:
    return key.startswith("env.kwargs.")


def _exists(cfg: DictConfig, key: str) -> bool:
    if _is_open(key):
        return True
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, section, throw_on_missing=False) if section else cfg
    return isinstance(parent, DictConfig) and name in set(parent)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command of pgx in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pgx"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("PGX_DEBUG", raising=False)

    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        output = capsys.readouterr()
        assert isinstance(exit_info.value.code, int)
        return CommandResult(exit_info.value.code, output.out, output.err)

    return run


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for compiled programs, shared by all tests and processes of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "programs"
    monkeypatch.setenv("PGX_CACHE", str(folder))
    return folder


@cache
def recorded_dataset(folder: Path, env: tuple[str, ...]) -> Path:
    """Return a dataset of at least 16 episodes of an initial policy, some with rewards."""
    path = folder / "-".join(["recorded", *re.findall(r"[\w.]+", " ".join(env))])
    settings = [
        "algo=reinforce",
        "env.num_envs=4",
        "seed=100",
        "trainer.compile=false",
        f"run_dir={path}-run",
    ]
    trainer = build(validate(compose([*QUIET, *settings, *env, "env.scale_reward=false"])))
    episodes: list[RecordedEpisode] = []
    while len(episodes) < 16 or not any(episode.reward.any() for episode in episodes):
        episodes += split_episodes(trainer.runner.collect(trainer.agent))
    trainer.runner.close()
    single = make_single(trainer.runner.envs.id, {})
    write_dataset(path, episodes, single.observation_space, single.action_space, {})
    single.close()
    return path


def stop_when(trainer: Trainer, condition: Callable[[TrainingState], bool], stop: Stop = STOP) -> None:
    """End a run after the first iteration that meets a condition."""
    trainer.callbacks.append(as_callback(lambda state: stop if condition(state) else None))


def evaluate(trainer: Trainer, iteration: int) -> list[Episode]:
    """Return the episodes that the run would play as its evaluation after an iteration."""
    (callback,) = [c.given for c in trainer.callbacks if isinstance(c.given, PeriodicEvaluation)]
    return callback.evaluate(iteration, lambda: False)


def resumed_run(make: Make, *settings: str, at: int) -> Trainer:
    """Train until a checkpoint after `at` steps, then resume with a new trainer until the end; return that trainer."""
    cut = make(*settings, name="cut")
    stop_when(cut, lambda state: state.step >= at)
    cut.train()
    assert cut.counters.steps < cut.total_steps
    resumed = make(*settings, name="cut")
    resumed.load_state_dict(resumed.writer.checkpoints.load("last"))
    resumed.train()
    return resumed


def small(name: str) -> list[str]:
    """Return overrides that select a rule and with which it learns from the rows of `make`."""
    return [f"algo={name}", *SMALL.get(name, [])]


def as_observations(features: torch.Tensor, action_mask: torch.Tensor | None = None) -> Observations:
    """Return features [B, ...] as the first observations of B episodes."""
    return Observations(features, torch.zeros(len(features), dtype=torch.int64), action_mask)


def parameters(trainer: Trainer) -> torch.Tensor:
    """Return a copy of all parameters of policy and critic as one vector."""
    agent = trainer.agent
    return torch.cat(
        [p.detach().reshape(-1) for net in (agent.policy, agent.critic) for p in net.parameters()]
    )


def double(obs: Observations) -> Observations:
    """Return the observations in double precision."""
    return replace(obs, features=obs.features.double())
