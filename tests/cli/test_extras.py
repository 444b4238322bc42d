"""Optional packages that are missing or broken: one message with the fix, or the documented fallback."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pgx.config.compose import compose
from pgx.config.run_config import SearchConfig
from pgx.core.imports import EXTRAS, import_problem
from pgx.sweeps.plan import Job, Plan, write_plan
from pgx.sweeps.search import STUDY_FILE
from tests.command import Command

ROOT = Path(__file__).parents[2]
REASON = "ImportError: /lib64/libm.so.6: version `GLIBC_2.29' not found"
TINY = ["env=CartPole-v1", "env.num_envs=2", "env.num_threads=1", "runner.rollout_steps=64"]
TINY += [
    "algo.minibatch_size=64",
    "trainer.total_steps=128",
    "trainer.compile=false",
    "algo=ppo",
    "run_dir=run",
]

# Commands that need each package. They must write nothing before they refuse.
NEEDED_BY = {
    "optuna": [
        ["train", "-m", "sweep=ppo_cartpole"],
        ["train", "-m", "sweep=ppo_cartpole", "hydra/launcher=joblib"],
    ],
    "joblib": [["train", "-m", "hydra/launcher=joblib", "seed=0,1"]],
    "ray": [
        ["train", "-m", "hydra/launcher=ray", "seed=0,1"],
        ["train", "algo=impala", "env=CartPole-v1", "runner.backend=ray"],
    ],
    "submitit": [
        ["train", "-m", "hydra/launcher=submitit_local", "seed=0,1"],
        ["train", "-m", "hydra/launcher=submitit_slurm", "seed=0,1"],
    ],
    "matplotlib": [["compare", ".", "--out", "report"]],
    "av": [["record", "run", "--out", "film.mp4"]],
    "onnx": [["export", "run", "--to", "onnx", "--out", "policy.onnx"]],
    "onnxscript": [["export", "run", "--to", "onnx", "--out", "policy.onnx"]],
    "onnxruntime": [["export", "run", "--to", "onnx", "--out", "policy.onnx"]],
    "wandb": [["train", *TINY, "logger.sinks=[wandb]"]],
    "mlflow": [["train", *TINY, "logger.sinks=[mlflow]"]],
    "h5py": [["train", "algo=off_policy_reinforce", "env=CartPole-v1", "dataset=data"]],
    "envpool": [["train", *TINY, "env.backend=envpool"]],
}
IN_PYTHON_ALONE = {"pandas"}  # no command needs them
Absent = Callable[[str, bool], str]


@pytest.fixture
def absent(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Absent:
    """Make a package missing, or installed and broken; return what the message must say."""

    def without(package: str, broken: bool) -> str:
        for name in [n for n in sys.modules if n.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        if not broken:
            monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
            return f"the package {package} is not installed; pip install 'pgx-rl[{EXTRAS[package]}]'"
        folder = tmp_path_factory.mktemp("broken") / package
        folder.mkdir()
        (folder / "__init__.py").write_text(f"raise ImportError({REASON.partition(': ')[2]!r})\n")
        monkeypatch.syspath_prepend(folder.parent)
        return f"the package {package} is installed but cannot be imported ({REASON})"

    return without


def test_the_table_of_extras_is_that_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert any(re.match(rf"{package}(-skinny)?>=", line) for line in declared[extra]), package
    assert set(EXTRAS) == set(NEEDED_BY) | IN_PYTHON_ALONE


def test_every_import_of_an_optional_package_is_in_the_table() -> None:
    allowed = {*sys.stdlib_module_names, *EXTRAS, "pgx", "hydra_plugins"}
    allowed |= {
        "torch",
        "gymnasium",
        "hydra",
        "omegaconf",
        "numpy",
        "tensorboard",
        "PIL",
        "rich",
        "mujoco",
        "yaml",
        "cloudpickle",
        "pandas",
    }
    found = set()
    for path in [*(ROOT / "pgx").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    assert found <= allowed


@pytest.mark.parametrize("broken", [False, True], ids=["missing", "broken"])
@pytest.mark.parametrize(
    ("package", "arguments"),
    [(package, arguments) for package, each in NEEDED_BY.items() for arguments in each],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_missing_package_is_reported_once(
    command: Command, absent: Absent, tmp_path: Path, package: str, arguments: list[str], broken: bool
) -> None:
    says = absent(package, broken)
    said = command(*arguments)
    (problem,) = said.problems
    assert said.code == 2 and says in problem and f"pip install 'pgx-rl[{EXTRAS[package]}]'" in problem
    assert said.out == "" and {path.name for path in tmp_path.iterdir()} <= {"run"}


@pytest.mark.parametrize("broken", [False, True], ids=["missing", "broken"])
def test_without_envpool_runs_use_gymnasium_and_say_why_once(
    command: Command, absent: Absent, broken: bool
) -> None:
    says = absent("envpool", broken)
    said = command("train", *TINY)
    assert said.code == 0 and said.err == ""
    assert f"backend gymnasium (auto: {says}" in said.out and said.out.count(says) == 1
    assert command("envs", "CartPole").code == 0


def test_a_search_is_seen_and_not_resumed_without_optuna(
    command: Command, absent: Absent, tmp_path: Path
) -> None:
    section = OmegaConf.to_container(compose(["sweep=ppo_cartpole"]).sweep, resolve=True)
    search = tmp_path / "search"
    search.mkdir()
    write_plan(search, Plan((Job((), search / "trial_000"),), (), tmp_path, SearchConfig(**section)))  # type: ignore[arg-type]
    (search / STUDY_FILE).touch()
    says = absent("optuna", True)
    seen = command("sweep", "status", "search")
    assert seen.code == 0 and f"best trial: unknown: {says}" in seen.out
    again = command("sweep", "resume", "search")
    assert again.code == 2 and says in again.err


def test_collecting_without_h5py_writes_nothing(command: Command, absent: Absent, tmp_path: Path) -> None:
    assert command("train", *TINY).code == 0
    says = absent("h5py", True)
    said = command("collect", "run", "--episodes", "1", "--out", "data")
    assert said.code == 2 and says in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_broken_package_gives_the_same_reason_again(absent: Absent) -> None:
    absent("av", True)
    first = import_problem("av")
    assert first is not None and import_problem("av") == first


def test_a_package_whose_own_dependency_is_missing_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    problem = import_problem("av")
    assert problem is not None and "cannot be imported (ModuleNotFoundError" in problem
