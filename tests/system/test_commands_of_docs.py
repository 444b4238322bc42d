"""Run every command in README.md and docs/; commands that take hours or a cluster are only parsed."""

import argparse
import inspect
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import pytest
from omegaconf import DictConfig
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from pgx.cli.main import COMMANDS, main
from pgx.config.compose import compose, hydra_config
from pgx.config.overrides import expand_sweep
from pgx.config.validate import validate
from pgx.training.build import check_ranks
from tests.docs_places import OF_THE_MODULE, STAND_FOR, make_places
from tests.system.docs_commands import ROOT, Shown, shown

TIMEOUT = 600  # seconds for a process
Pgx = Callable[..., int]
MODULES = ("my_module", "spo")


# --- the folder in which commands run


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        make_places(folder, _pgx(folder, patch))
    return folder


def _pgx(folder: Path, patch: pytest.MonkeyPatch) -> Pgx:
    """Return a function that runs a command in this process, in a folder."""
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["pgx"])
    patch.setattr(sys, "path", [*sys.path, ""])
    patch.setenv("HYDRA_FULL_ERROR", "0")
    patch.setenv("COLUMNS", "200")
    patch.setenv("WANDB_MODE", "offline")
    patch.delenv("PGX_DEBUG", raising=False)
    _forget()

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


@pytest.fixture
def run_in_folder(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pgx]:
    """Return a function that runs a command in a new folder with everything that commands of the docs name."""
    folder = tmp_path / "run_in_folder"
    shutil.copytree(places, folder)
    yield _pgx(folder, monkeypatch)
    _forget()


def _forget() -> None:
    """Remove the modules of another test's folder."""
    for module in MODULES:
        sys.modules.pop(module, None)
    gymnasium.registry.pop("MyEnv-v0", None)


# --- changes to commands


def _meant(command: Shown) -> list[str]:
    """Return the words of a command with placeholders replaced."""
    if command.words[:2] == ("pgx", "train") and "-m" in command.words:
        return ["algo=a2c" if word == "..." else word for word in command.words]
    words = [STAND_FOR.get(word, word) for word in command.words]
    if "env.id=my_module:MyEnv-v0" in words:
        words[words.index("--resume") + 1] = OF_THE_MODULE
    if "--checkpoint" in words:
        checkpoints = Path(words[words.index("--resume") + 1], "checkpoints").glob("step_*.pt")
        words[words.index("--checkpoint") + 1] = min(checkpoints).stem
    return words


def _cleared(words: list[str]) -> list[str]:
    """Remove the output of a command if it exists; return the words."""
    for word, following in itertools.pairwise([*words, ""]):
        target = (
            following if word == "--out" else word.partition("=")[2] if word.startswith("run_dir=") else ""
        )
        if target:
            shutil.rmtree(target, ignore_errors=True)
    return words


def _few(overrides: list[str]) -> list[str]:
    """Return overrides that make a training command short."""
    runner = _runner(tuple(o for o in overrides if o.startswith(("algo=", "runner", "experiment="))))
    few = ["trainer.compile=false", "logger.console=plain"]
    if runner.name == "dataset":
        return [*few, "runner.episodes=4", "trainer.eval_episodes=1", "trainer.total_steps=100"]
    if runner.name == "episodes":
        return [*few, "env.num_envs=2", "trainer.total_steps=40"]
    if runner.name == "sync":
        return [*few, "env.num_envs=4", "runner.rollout_steps=64", "trainer.total_steps=256"]
    envs = 4 if runner.workers == "auto" else runner.workers
    return [*few, f"env.num_envs={envs}", "trainer.total_steps=320"]


@cache
def _runner(chosen: tuple[str, ...]) -> DictConfig:
    """Return the runner of a config. Cached, because composing takes longer than a short run."""
    section: DictConfig = compose(list(chosen)).runner
    return section


def _short(words: list[str]) -> list[str]:
    """Return words with fewer seeds, episodes and steps."""
    text = [re.sub(r"^seed=range\((\d+),\d+\)$", r"seed=\1", word) for word in words]
    text = [re.sub(r"^seed=(\d+),.*", r"seed=\1", word) for word in text]
    text = [re.sub(r"^trainer.total_steps=.*", "trainer.total_steps=1536", word) for word in text]
    text = [re.sub(r"^sweep.trials=.*", "sweep.trials=2", word) for word in text]
    for position, word in enumerate(text):
        if word in ("--episodes", "--at"):
            text[position + 1] = {"--episodes": "2", "--at": "510"}[word]
    return text


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")


# --- run commands, in this process or in a new one


def train(command: Shown, pgx: Pgx) -> None:
    words = _cleared(_meant(command))
    assert pgx(*words[1:], *_few(words[2:])) == 0


def resume(command: Shown, pgx: Pgx) -> None:
    assert pgx(*_short(_meant(command))[1:]) == 0


def sweep(command: Shown, pgx: Pgx) -> None:
    words = _short(_meant(command))
    overrides = [word for word in words[2:] if _is_override(word)]
    searched = [o for o in overrides if o.startswith("sweep=")]
    few = (
        ["trainer.total_steps=4096", "sweep.trials=2", "trainer.compile=false"]
        if searched
        else _few(_first_job(overrides))
    )
    shutil.rmtree("outputs/sweeps/first")
    assert pgx("train", *words[2:], *few) == 0


def show(command: Shown, pgx: Pgx) -> None:
    """Run a command that reads runs. Only the doctor may exit with 1, which means that it found a problem."""
    if command.words[1] in [known.name for known in COMMANDS]:
        options(command)  # unchanged, before numbers are reduced
    words = _cleared(_short(_meant(command)))
    assert pgx(*words[1:]) in ((0, 1) if words[1] == "doctor" else (0,))


def refused(command: Shown, pgx: Pgx, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a command is refused with the message shown, if any."""
    assert pgx(*command.words[1:]) == 2
    said = capsys.readouterr().err
    for line in command.output:
        assert line.removesuffix(" ...") in said


def process(command: Shown) -> None:
    """Run a program other than pgx, shortened if it trains."""
    words = _cleared(_short(_meant(command)))
    if words[0] == "torchrun":
        at = words.index("train") + 1
        launched = re.sub(r"--nproc-per-node \d+", "--nproc-per-node 2", " ".join(words[:at])).split()
        few = [] if "--resume" in words else _few(words[at:])
        words = [sys.executable, "-m", "torch.distributed.run", *launched[1:], *words[at:], *few]
    elif words[0] == "python":
        words = [
            sys.executable,
            *(str(ROOT / word) if word.startswith("scripts/") else word for word in words[1:]),
        ]
    ended = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def page(command: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a module prints a page of docs/ or a part of one."""
    file = ROOT / f"{command.words[2].replace('.', '/')}.py"
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.strip() in (ROOT / command.page).read_text()


def tensorboard(command: Shown) -> None:
    """Start the server and wait until it prints its address."""
    with subprocess.Popen(
        [sys.executable, "-m", *_meant(command), "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        assert any("http://" in line for line in server.stderr)
        server.terminate()
        server.stderr.read()


def drawn_by_pygame(command: Shown, pgx: Pgx, capsys: pytest.CaptureFixture[str]) -> None:
    """Record CartPole; without pygame, check the message."""
    words = _cleared(_meant(command))
    if find_spec("pygame") is None:
        assert pgx(*words[1:]) == 2
        assert "pygame is not installed" in capsys.readouterr().err
    else:
        assert pgx(*words[1:]) == 0


# --- checks of commands that are not run, or only by slow tests


def options(command: Shown) -> None:
    """Check that a command accepts the arguments."""
    words = _meant(command)
    (known,) = [known for known in COMMANDS if known.name == words[1]]
    parser = argparse.ArgumentParser(exit_on_error=False)
    known.add_arguments(parser)
    parser.parse_args(words[2:])


def mentioned(command: Shown) -> None:
    """Check that a command of this name exists."""
    assert command.words[1] in ["train", *(known.name for known in COMMANDS)]


def config(command: Shown) -> None:
    """Check that the config of a run is valid."""
    validate(compose(_meant(command)[2:]))


def planned(command: Shown) -> None:
    """Check that the launcher exists and that the first and last jobs of a sweep are valid."""
    overrides = [word for word in _meant(command)[2:] if _is_override(word)]
    hydra = [o for o in overrides if o.lstrip("+").startswith("hydra")]
    assert hydra_config(hydra).launcher
    search = [o for o in overrides if o.startswith("sweep")]
    given = list(compose(search).sweep.overrides) if search else []
    drawn = [o for o in overrides if "interval(" in o]
    asked = expand_sweep([*given, *(o for o in overrides if o not in [*hydra, *search, *drawn])])
    for job in (asked[0], asked[-1]):
        validate(compose(job))


def ranks(command: Shown) -> None:
    """Check the arguments of torchrun and the config for its ranks."""
    asked = get_args_parser().parse_args(list(command.words[1:]))
    if "--resume" not in command.words:
        count = int(asked.nproc_per_node) * int(asked.nnodes.rpartition(":")[2])
        check_ranks(validate(compose([w for w in asked.training_script_args if _is_override(w)])), count)


def packages(command: Shown) -> None:
    """Check that names of packages are valid and that pgx has the extras.

    pgx is on no package index: it is installed from a clone (`.`) or from git, and only extras are added by name.
    """
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in command.words[2:]:
        if word.startswith("git+"):
            continue
        wanted = Requirement(re.sub(r"^\.(?=\[|$)", "pgx-rl", word))
        assert wanted.name != "pgx-rl" or wanted.extras or word.startswith(".")
        assert wanted.name != "pgx-rl" or wanted.extras <= set(extras)


def target(command: Shown) -> None:
    """Check that make knows the target."""
    subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=ROOT, capture_output=True, check=True, timeout=TIMEOUT
    )


def script(command: Shown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the help of a script has the flags and words."""
    monkeypatch.setattr(sys, "argv", [command.words[1], "--help"])
    monkeypatch.syspath_prepend(ROOT / "scripts")  # for its modules
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / command.words[1]), run_name="__main__")
    told = capsys.readouterr().out
    for word in command.words[2:]:
        if word.startswith("--") or (word.isalpha() and word.islower()):
            assert word in told, word


def batch_script(command: Shown) -> None:
    """Check the syntax of the batch script and its pgx command."""
    (found,) = re.findall(r"^    #!/bin/bash\n(?:    .*\n)+", (ROOT / command.page).read_text(), re.MULTILINE)
    subprocess.run(
        ["bash", "-n"], input=found.replace("\n    ", "\n"), text=True, check=True, timeout=TIMEOUT
    )
    (overrides,) = re.findall(r'command="(algo=[^"]+)"', found)
    validate(compose(overrides.replace("$RUN", "outputs/walker").split()))


def nothing(command: Shown) -> None:
    """Check nothing: pgx is not involved."""


def _first_job(overrides: list[str]) -> list[str]:
    return expand_sweep([o for o in overrides if not o.lstrip("+").startswith("hydra")])[0]


# --- the table: each command matches exactly one row


@dataclass(frozen=True)
class Way:
    """Handling of commands that match a pattern.

    Args:
        fits: pattern of the whole text of a command.
        run: runs the command; None: it is never run.
        reason: why it is not run in every test run, or never.
        looked_at: check to use instead.
    """

    fits: str
    run: Callable[..., None] | None
    reason: str = ""
    looked_at: Callable[..., None] | None = None


PROCESSES = "starts processes, which takes seconds"
WAYS = (
    # train
    Way(
        r"pgx train (?!-|.*(impala|a3c|backend=processes|max_k=|epsilo=|Walker2d|Hopper|steps=60_000)).+",
        train,
    ),
    Way(r"pgx train algo=trpo env=Walker2d-v4", train),
    Way(
        r"pgx train (?!-|algo=trpo env=Walker2d-v4$|.*(impala|a3c|max_k=)).*(Walker2d|Hopper|steps=60_000).*",
        train,
        "one of many alike",
        config,
    ),
    Way(r"pgx train (?!.*address).*(impala|a3c|backend=processes).*", train, PROCESSES, config),
    Way(r"pgx train .*runner.address=.*", None, "a Ray cluster", config),
    Way(r"pgx train .*(algo.max_k=|algo.epsilo=).*", refused),
    Way(r"pgx train --resume .+", resume),
    Way(r"pgx train (--help|--cfg job (?!\.\.\.).*)", show),
    Way(
        r"pgx train (--help|--cfg job) \.\.\.",
        None,
        "another command's overrides stand for the dots",
        mentioned,
    ),
    # sweeps
    Way(r"pgx train -m algo=trpo,ppo seed=0,1,2", sweep),
    Way(
        r"pgx train -m (?!.*(launcher|sweep=))(?!algo=trpo,ppo seed=0,1,2).*", sweep, "several runs", planned
    ),
    Way(
        r"pgx train -m (?=.*(launcher=(joblib|submitit_local|ray)|sweep=(?!NAME)))(?!.*address).*",
        sweep,
        PROCESSES,
        planned,
    ),
    Way(r"pgx train -m .*(submitit_slurm|launcher.address).*", None, "a cluster", planned),
    Way(r"pgx train -m sweep=NAME", None, "another command's name stands for NAME", mentioned),
    Way(r"pgx sweep (status|resume) .+", show),
    # other commands
    Way(r"pgx (eval|doctor|runs|envs|collect) .+", show),
    Way(r"pgx compare (?!.*--out).+", show),
    Way(r"pgx compare .*--out.*", show, "draws figures, which takes seconds", options),
    Way(r"pgx (runs|algos|(COMMAND )?--help)", show),
    Way(
        r"pgx (check|collect|train|eval|record|doctor|compare|sweep|sweep resume)",
        None,
        "a command by its name",
        mentioned,
    ),
    Way(r"pgx (check env=.*|record outputs/Walker.*|export .*|replay .*)", show, PROCESSES, options),
    Way(r"pgx record (?!outputs/Walker).*", drawn_by_pygame, PROCESSES, options),
    Way(r"pgx tensorboard.*", tensorboard, PROCESSES, options),
    # other programs
    Way(r"torchrun (?!--nnodes|-m).*", process, PROCESSES, ranks),
    Way(r"torchrun --nnodes.*", None, "two machines", ranks),
    Way(r"torchrun -m pgx train", None, "a program by its name", nothing),
    Way(r"python scripts/plot_run.py .*", process),
    Way(r"python -m (pgx|scripts)\..*", page),
    Way(r"python scripts/interval_coverage.py", None, "minutes", nothing),
    Way(r"python scripts/(?!plot_run|interval_coverage).*", None, "measures, for minutes or hours", script),
    Way(r"srun .*", None, "Slurm", batch_script),
    Way(r"pip install .*", None, "a network", packages),
    Way(r"python3 -m venv .*", None, "an environment of another library's own", nothing),
    Way(r"make .*", None, "makes an environment first, from a network", target),
)
SHOWN = shown()


def _ways(command: Shown) -> list[Way]:
    return [way for way in WAYS if re.fullmatch(way.fits, command.text.replace("'", ""))]


def _where(command: Shown) -> str:
    return f"{command.page}:{command.line} {command.text}"


def _those(wanted: Callable[[Way], bool]) -> list[Shown]:
    return [command for command in SHOWN if any(map(wanted, _ways(command)))]


@pytest.mark.parametrize("command", SHOWN, ids=_where)
def test_every_command_belongs_to_one_way(command: Shown) -> None:
    assert len(_ways(command)) == 1, f"{[way.fits for way in _ways(command)]}: write a row for it in WAYS"


def test_every_way_matches_a_command() -> None:
    assert {way.fits for command in SHOWN for way in _ways(command)} == {way.fits for way in WAYS}


def _called(
    function: Callable[..., None], command: Shown, run_in_folder: Pgx, request: pytest.FixtureRequest
) -> None:
    """Call a function with the arguments that it names: the command, `pgx`, or fixtures of pytest."""
    known = {"command": command, "pgx": run_in_folder}
    wanted = inspect.signature(function).parameters
    function(**{name: known[name] if name in known else request.getfixturevalue(name) for name in wanted})


@pytest.mark.parametrize("command", _those(lambda way: way.run is not None and not way.reason), ids=_where)
def test_it_runs(command: Shown, run_in_folder: Pgx, request: pytest.FixtureRequest) -> None:
    (way,) = _ways(command)
    assert way.run is not None
    _called(way.run, command, run_in_folder, request)


@pytest.mark.slow
@pytest.mark.parametrize("command", _those(lambda way: way.run is not None and bool(way.reason)), ids=_where)
def test_it_runs_slowly(command: Shown, run_in_folder: Pgx, request: pytest.FixtureRequest) -> None:
    (way,) = _ways(command)
    assert way.run is not None
    _called(way.run, command, run_in_folder, request)


@pytest.mark.parametrize("command", _those(lambda way: bool(way.reason)), ids=_where)
def test_it_could_run(
    command: Shown, places: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (way,) = _ways(command)
    assert way.looked_at is not None
    _called(way.looked_at, command, _pgx(places, monkeypatch), request)
