"""Files that somebody else wrote: nothing of them is imported, constructed, joined or unpickled unasked."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from omegaconf import OmegaConf

from pgx.cli.main import main
from pgx.config.compose import compose
from pgx.config.stored import read_config
from pgx.config.validate import validate
from pgx.core.errors import UserError
from pgx.sweeps.plan import read_plan
from pgx.sweeps.trust import untrusted_actions, untrusted_actions_of_runs
from tests.command import Command
from tests.conftest import composed

MODULE, ID = "stranger_s_module", "Strange-v0"
NAMED = f"{MODULE}:{ID}"
SMALL = ["env.num_envs=2", "runner.rollout_steps=32", "logger.sinks=[]", "algo=a2c"]
SMALL += ["trainer.total_steps=64", "trainer.compile=false", "logger.console=off"]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Whether the module of an environment was imported since it was last asked."""
    marker, folder = tmp_path / "imported", tmp_path / "modules"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(
        "from pathlib import Path\nimport gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        f"Path({str(marker)!r}).touch()\n"
        f"gymnasium.register({ID!r}, CartPoleEnv, max_episode_steps=50)\n"
    )
    monkeypatch.syspath_prepend(folder)

    def was() -> bool:
        there = marker.exists()
        marker.unlink(missing_ok=True)
        forget()
        return there

    yield was
    forget()


def forget() -> None:
    """As in a process that has never seen the module."""
    sys.modules.pop(MODULE, None)
    gymnasium.registry.pop(ID, None)


@pytest.fixture
def run(command: Command, imported: Callable[[], bool], tmp_path: Path) -> Path:
    """A run whose config names an environment of the module."""
    said = command("train", f"env={NAMED}", *SMALL, "run_dir=run")
    assert said.code == 0, said.err
    assert imported(), "named on the command line, it is imported"
    return tmp_path / "run"


PLAYING = [
    "eval run --episodes 1",
    "collect run --episodes 1 --out data",
    "train --resume run trainer.total_steps=128",
]


@pytest.mark.parametrize("line", PLAYING)
def test_the_config_of_a_run_imports_modules_with_trust_only(
    command: Command, run: Path, imported: Callable[[], bool], line: str
) -> None:
    said = command(*line.split())
    assert said.code == 2 and not imported()
    (problem,) = said.problems
    assert f"env.id={NAMED} would import the module '{MODULE}'" in problem and "--trust allows it" in problem
    said = command(*line.split(), "--trust")
    assert said.code == 0, said.err
    assert imported()


def test_a_module_named_on_the_command_line_needs_no_trust(
    command: Command, run: Path, imported: Callable[[], bool]
) -> None:
    said = command("train", "--resume", "run", "trainer.total_steps=128", f"env.id={NAMED}")
    assert said.code == 0, said.err
    assert imported()


def test_a_cluster_of_a_stored_config_is_joined_with_trust_only(command: Command, tmp_path: Path) -> None:
    text = OmegaConf.to_yaml(compose(["algo=impala", "env=CartPole-v1", "run_dir=run"]), resolve=True)
    cfg = OmegaConf.create(text)
    cfg.runner.backend, cfg.runner.address = "ray", "stranger:6379"
    (tmp_path / "run").mkdir()
    OmegaConf.save(cfg, tmp_path / "run" / "config.yaml")
    (problem,) = command("train", "--resume", "run").problems
    assert "runner.address=stranger:6379 would join that Ray cluster" in problem and "--trust" in problem
    for allowed in ("--trust", "runner.address=auto"):
        (problem,) = command("train", "--resume", "run", allowed, "seed=5").problems
        assert problem.startswith("seed: 0 -> 5")


# --- sweeps

JOBS = [f"env={MODULE}\\:{ID}"]


@pytest.fixture
def sweep(command: Command, imported: Callable[[], bool], tmp_path: Path) -> Path:
    """A sweep over one environment of the module, started by name."""
    said = command("train", "-m", f"env={NAMED}", "seed=0,1", *SMALL, "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err
    assert imported()
    return tmp_path / "sweep"


@pytest.mark.system
def test_a_sweep_with_a_module_resumes_with_trust_only(
    command: Command, sweep: Path, imported: Callable[[], bool]
) -> None:
    said = command("sweep", "resume", "sweep")
    assert said.code == 2 and not imported()
    assert any(f"would import the module '{MODULE}'" in line and "--trust" in line for line in said.problems)
    assert command("sweep", "status", "sweep").code == 0 and not imported()
    assert command("sweep", "resume", "sweep", "--trust").code == 0


@pytest.mark.system
def test_starting_the_same_sweep_again_names_the_module(
    command: Command, sweep: Path, imported: Callable[[], bool]
) -> None:
    said = command("train", "-m", f"env={NAMED}", "seed=0,1", *SMALL, "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err


def plain(tmp_path: Path, **changed: Any) -> Path:
    """A sweep's folder with a plan of one harmless job, but for what is changed."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    plan = {
        "format": 1,
        "cwd": str(tmp_path),
        "hydra": [],
        "search": None,
        "jobs": [{"overrides": ["env=CartPole-v1", *SMALL], "run_dir": str(tmp_path / "job")}],
    }
    (folder / "sweep.json").write_text(json.dumps(plan | changed))
    return folder


def job(*overrides: str, tmp_path: Path) -> list[dict[str, Any]]:
    return [{"overrides": list(overrides), "run_dir": str(tmp_path / "job")}]


SEARCH = {
    "overrides": ["env=CartPole-v1", *SMALL],
    "space": {"optimizer.learning_rate": "interval(0.001, 0.01)"},
    "trials": 1,
    "seed": 0,
    "objective": "final_return",
    "pruner": "none",
    "report_every": 64,
    "startup_trials": 0,
    "warmup_steps": 0,
}


def test_a_plain_plan_asks_for_nothing(tmp_path: Path) -> None:
    folder = plain(tmp_path, hydra=["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert untrusted_actions(folder, read_plan(folder), typed=[]) == []


@pytest.mark.parametrize(
    "overrides",
    [
        [f"env={NAMED}"],
        [f"env={MODULE}\\:{ID}"],
        [f"env=CartPole-v1,{MODULE}\\:{ID}"],
        [f"env.id={NAMED}", "env=CartPole-v1"],
        [f"++env.id='{NAMED}'", "env=CartPole-v1"],
        [f"label='{NAMED}'", "env=CartPole-v1", "env.id=${label}"],
        [f"label={MODULE}", "env=CartPole-v1", "env.id=${label}${oc.decode:':'}" + ID],
    ],
)
def test_whichever_way_a_plan_names_a_module_it_is_seen(
    command: Command, imported: Callable[[], bool], tmp_path: Path, overrides: list[str]
) -> None:
    plain(tmp_path, jobs=job(*SMALL, *overrides, tmp_path=tmp_path))
    said = command("sweep", "resume", "sweep")
    assert said.code == 2 and not imported() and not (tmp_path / "job").exists()
    assert said.problems


@pytest.mark.parametrize(
    "search",
    [
        SEARCH | {"overrides": [*SMALL, f"env={NAMED}"]},
        SEARCH | {"space": {"env": f"choice(CartPole-v1, '{NAMED}')"}},
        SEARCH | {"space": {"env.id": f"choice(CartPole-v1, '{NAMED}')"}},
    ],
)
def test_a_search_that_may_come_to_a_module_is_seen(
    command: Command, imported: Callable[[], bool], tmp_path: Path, search: dict[str, Any]
) -> None:
    plain(tmp_path, search=search, jobs=job(tmp_path=tmp_path))
    said = command("sweep", "resume", "sweep")
    assert said.code == 2 and not imported()
    assert f"would import the module '{MODULE}'" in said.err


def test_modules_in_folders_of_started_jobs_are_listed(
    command: Command, imported: Callable[[], bool], tmp_path: Path
) -> None:
    plain(tmp_path, search=SEARCH, jobs=job(tmp_path=tmp_path))
    (tmp_path / "job").mkdir()
    trial = tmp_path / "job" / "trial.json"
    trial.write_text(json.dumps({"number": 0, "overrides": [*SMALL, f"env={NAMED}"]}))
    assert f"trial.json: env={NAMED} would import" in command("sweep", "resume", "sweep").err
    trial.unlink()
    (tmp_path / "job" / "config.yaml").write_text(written().replace("id: CartPole-v1", f"id: {NAMED}"))
    assert f"config.yaml: env.id={NAMED} would import" in command("sweep", "resume", "sweep").err
    assert not imported()


@pytest.mark.parametrize(
    "text",
    [
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "hydra.launcher.address=stranger:6379",
        "+hydra.launcher.parameters.slurm_setup=['touch pwned']",
        "hydra.launcher.n_jobs=${oc.env:HOME}",
        "+hydra.job.env_set.LD_PRELOAD=x",
        "hydra.searchpath=[file:///tmp]",
        "--config-dir=/tmp",
        "--config-path=/tmp",
    ],
)
def test_hydra_options_in_a_plan_are_listed(command: Command, tmp_path: Path, text: str) -> None:
    plain(tmp_path, hydra=[text])
    said = command("sweep", "resume", "sweep")
    assert said.code == 2 and not (tmp_path / "job").exists()
    (problem,) = said.problems
    assert f"{text} would be passed to Hydra" in problem and "--trust" in problem


@pytest.mark.parametrize(
    ("planned", "typed"), [("submitit_local", "submitit_local"), ("basic", "submitit_local")]
)
def test_pickles_in_the_folder_of_a_sweep_are_listed_for_any_launcher(
    command: Command, tmp_path: Path, planned: str, typed: str
) -> None:
    pytest.importorskip("submitit")
    folder = plain(tmp_path, hydra=[f"hydra/launcher={planned}"])
    (folder / "submitit").mkdir()
    (problem,) = command("sweep", "resume", "sweep", f"hydra/launcher={typed}").problems
    assert "would unpickle its files" in problem


def test_hydra_options_that_the_user_typed_are_trusted(tmp_path: Path) -> None:
    plan = read_plan(folder := plain(tmp_path, hydra=["hydra.launcher.address=head:6379"]))
    assert untrusted_actions(folder, plan, typed=["hydra.launcher.address=head:6379"]) == []


def test_a_cluster_in_a_started_trial_is_listed_even_if_the_user_named_the_module(
    command: Command, imported: Callable[[], bool], tmp_path: Path
) -> None:
    folder = plain(tmp_path, search=SEARCH, jobs=job(tmp_path=tmp_path))
    (tmp_path / "job").mkdir()
    asked = ["algo=impala", f"env={NAMED}", "runner.backend=ray", "runner.address=stranger:6379"]
    (tmp_path / "job" / "trial.json").write_text(json.dumps({"number": 0, "overrides": asked}))
    (line,) = untrusted_actions_of_runs(read_plan(folder), frozenset({NAMED}))
    assert "would join that Ray cluster" in line


def test_a_choice_of_a_file_elsewhere_is_refused(command: Command, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(f"# @package _global_\nenv:\n  id: {NAMED}\n")
    up = "../" * 30 + str(outside.with_suffix("")).lstrip("/")
    for overrides in ([*SMALL, "env=CartPole-v1", f"algo={up}"], [*SMALL, f"env={up}"]):
        for path in tmp_path.glob("sweep/*"):
            path.unlink()
        if (tmp_path / "sweep").exists():
            (tmp_path / "sweep").rmdir()
        plain(tmp_path, jobs=job(*overrides, tmp_path=tmp_path))
        said = command("sweep", "resume", "sweep")
        assert said.code == 2 and said.problems


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"format": 1}',
        '{"format": 1, "jobs": 3}',
        "[" * 100_000,
        '{"format": 1, "cwd": ".", "hydra": [1], "search": null, "jobs": []}',
        '{"format": 1, "cwd": ".", "hydra": [], "search": {"trials": 1}, "jobs": []}',
    ],
)
def test_a_plan_that_pgx_did_not_write_is_one_message(command: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text(content)
    for action in ("status", "resume"):
        said = command("sweep", action, "sweep")
        assert said.code == 2 and "sweep.json" in said.err and said.problems


@pytest.mark.system
def test_a_study_s_values_are_those_of_the_search_and_no_others(
    tmp_path: Path, imported: Callable[[], bool]
) -> None:
    """A trial that waits in the file, with a value for a key that the plan does not search."""
    import optuna

    from pgx.config.run_config import SearchConfig
    from pgx.sweeps.search import Trial, open_study

    search = SearchConfig(**SEARCH)  # type: ignore[arg-type]
    study = open_study(tmp_path, search)
    env = optuna.distributions.CategoricalDistribution([NAMED])
    waiting = optuna.trial.create_trial(
        state=optuna.trial.TrialState.WAITING, params={"env": NAMED}, distributions={"env": env}
    )
    study.add_trial(waiting)
    trial = Trial(tmp_path, search, tmp_path / "job", 0)
    assert not any(NAMED in override for override in trial.overrides) and not imported()


# --- configs are data


@cache
def written() -> str:
    """A config as a run's folder has it."""
    return OmegaConf.to_yaml(composed("env=CartPole-v1", "run_dir=run"), resolve=True)


def config_with(tmp_path: Path, change: Callable[[str], str]) -> Path:
    (tmp_path / "run").mkdir(exist_ok=True)
    path = tmp_path / "run" / "config.yaml"
    path.write_text(change(written()))
    return path


def test_a_config_that_pgx_wrote_is_read_as_it_was(tmp_path: Path) -> None:
    for overrides in ([], ["algo=ppg"], ["policy=lstm", "env.kwargs={a:1,b:[x,'y z'],c:null,d:{e:1.5e-3}}"]):
        cfg = compose([*overrides, "run_dir=run"])
        path = tmp_path / "config.yaml"
        path.write_text(OmegaConf.to_yaml(cfg, resolve=True))
        assert OmegaConf.to_container(read_config(path)) == OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("label: ${oc.env:HOME}", "label: expected a value, got the reference ${oc.env:HOME}"),
        (r'label: "\x24{oc.env:HOME}"', "label: expected a value, got the reference"),
        ("label: [a, {b: '${seed}'}]", "label.1.b: expected a value"),
        ("label: ${", "not a config"),
        (
            "label: !!python/object/apply:os.system ['touch pwned']",
            "without YAML tags",
        ),
        ("label: !!python/object/apply:pathlib.Path [a]", "without YAML tags"),
        ("label: !!binary aGk=", "without YAML tags"),
        ("label: &a x", "without YAML tags, aliases"),
        ("label: *a", "without YAML tags, aliases"),
        ("label: [", "not YAML"),
        ("label: " + "9" * 5000, "cannot be read"),
        ("label: " + "[" * 5000, "endless nesting"),
        ("label: x\nlabel: y", "duplicate"),
        ("env: 3", "env: missing; expected a section of keys"),
        ("label: " + "x" * 1_000_000, "and no config is"),
    ],
)
def test_a_config_with_more_than_plain_values_is_one_message(
    command: Command, tmp_path: Path, line: str, says: str
) -> None:
    def change(text: str) -> str:
        key = line.split(":")[0]
        if key == "env":
            section = text.index("env:")
            end = text.index("\npolicy:")
            return text[:section] + line + text[end:]
        return text.replace("label: trpo", line)

    path = config_with(tmp_path, change)
    for words in ("eval run", "train --resume run", "collect run --episodes 1 --out data"):
        said = command(*words.split())
        assert said.code == 2 and not (tmp_path / "pwned").exists()
        assert all(str(path.relative_to(tmp_path)) in problem for problem in said.problems)
        assert says in said.err


@pytest.mark.parametrize("content", [b"", b"- a", b"a", b"\xff\xfe\x00", b"\x00", b"a: 1"])
def test_an_invalid_config_file_is_one_message(command: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    said = command("eval", "run")
    assert said.code == 2 and said.problems and "config.yaml" in said.err


# --- nothing is constructed by name

SECTIONS = [
    "algo",
    "policy",
    "critic",
    "optimizer",
    "critic_optimizer",
    "runner",
    "trainer",
    "health",
    "logger",
    "env",
]


@pytest.mark.parametrize("where", ["", *(f"{section}." for section in SECTIONS)])
def test_a_target_is_an_unknown_key_everywhere(tmp_path: Path, where: str) -> None:
    with pytest.raises(UserError, match=f"{where}_target_: unknown key"):
        validate(compose([f"+{where}_target_=os.system"]))

    def change(text: str) -> str:
        cfg = OmegaConf.create(text)
        OmegaConf.update(cfg, f"{where}_target_", "os.system", force_add=True)
        return OmegaConf.to_yaml(cfg)

    with pytest.raises(UserError, match=f"{where}_target_: unknown key"):
        validate(read_config(config_with(tmp_path, change)))


def test_a_target_in_env_kwargs_is_a_keyword_like_any_other(command: Command, tmp_path: Path) -> None:
    """It is passed to the environment, which has none of that name, and nothing calls it."""
    said = command(
        "train", "env=CartPole-v1", *SMALL, "env.kwargs={_target_: os.system, command: 'touch pwned'}"
    )
    assert said.code == 2 and not (tmp_path / "pwned").exists()
    assert "cannot be created with env.kwargs" in said.problems[0]


def test_the_metadata_of_a_dataset_imports_nothing(
    command: Command, imported: Callable[[], bool], tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    mu = [
        "train",
        "algo=reinforce",
        "env=CartPole-v1",
        "env.num_envs=2",
        "trainer.total_steps=10",
        "run_dir=mu",
    ]
    assert command(*mu, "logger.console=off", "logger.sinks=[]").code == 0
    assert command("collect", "mu", "--episodes", "2", "--out", "data").code == 0
    path = tmp_path / "data" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    spec = json.loads(metadata["env_spec"]) | {"id": NAMED, "entry_point": f"{MODULE}:Anything"}
    path.write_text(json.dumps(metadata | {"env_spec": json.dumps(spec), "env_id": NAMED}))
    learn = ["train", "algo=off_policy_reinforce", "env=CartPole-v1", "dataset=data", "runner.episodes=2"]
    said = command(
        *learn, "trainer.total_steps=10", "trainer.eval_every=null", "logger.console=off", "run_dir=pi"
    )
    assert said.code == 0, said.err
    assert not imported()


# --- modules of the current folder


def test_no_file_of_the_current_folder_stands_in_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    libraries = list(sys.path)
    with pytest.raises(SystemExit):
        main(["algos"])
    assert sys.path == [*libraries, ""]
