"""The floors of the house: a file imports from lower floors only, and the lower floors know of tensors alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pgx"

FLOORS = {
    "errors": 0, "extras": 0, "own_modules": 0, "streams": 0, "schema": 0, "paths": 0, "specs": 0, "types": 0,
    "processes": 0, "process_end": 0, "metric_ranges": 0, "cores": 0,
    "ops": 1,
    "policies": 2, "algos": 2, "engines": 2, "optimizers": 2, "sequences": 2, "estimates": 2, "regression": 2,
    "improvement": 2,
    "seeding": 3, "envs": 3, "datasets": 3, "runners": 3, "health": 3, "metrics": 3, "loggers": 3, "checkpoint": 3,
    "evaluation": 3, "agents": 3, "rewards": 3, "run_lock": 3, "ranks": 3, "faults": 3, "records": 3, "versions": 3,
    "counters": 3, "agreement": 3,
    "every": 0, "stopping": 0, "film": 3, "export": 3, "foreign": 3, "command_lines": 3, "progress": 3, "run_names": 4,
    "trainer": 4, "config": 4, "sweeps": 4, "analysis": 4,
    "commands": 5, "verbs": 5, "cli": 5, "__main__": 5,
}  # fmt: skip
FORBIDDEN_BELOW = {"hydra", "omegaconf", "gymnasium", "tensorboard", "envpool", "rich", "numpy"}

FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The first name below pgx/: ops of pgx/ops/returns.py, types of pgx/types.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_or_stay(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    floor = FLOORS[part(path)]
    for module in imports(path):
        if module.startswith("pgx."):
            name = module.split(".")[1]
            if name in FLOORS:
                assert FLOORS[name] <= floor, (
                    f"{path} (floor {floor}) imports {module} (floor {FLOORS[name]})"
                )
        elif floor <= 2:
            assert module.split(".")[0] not in FORBIDDEN_BELOW, f"{path} (floor {floor}) imports {module}"


def test_rules_do_not_import_each_other() -> None:
    for path in (PACKAGE / "algos").glob("*.py"):
        others = [m for m in imports(path) if m.startswith("pgx.algos.")]
        assert not others, f"{path} imports {others}"


def test_files_stay_readable() -> None:
    for path in FILES:
        lines = path.read_text().count("\n")
        assert lines <= 320, f"{path}: {lines} lines"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno
                assert length <= 80, f"{path}:{node.lineno} {node.name}: {length} lines"


def test_every_rule_has_its_page_and_its_file() -> None:
    rules = {path.stem for path in (PACKAGE / "algos").glob("*.py")} - {"__init__"}
    files = {path.stem for path in (ROOT / "configs" / "algo").glob("*.yaml")}
    assert rules <= files  # others set what is around a rule
    assert files == {path.stem for path in (ROOT / "docs" / "algorithms").glob("*.md")}


def test_json_is_strict() -> None:
    """Readers in other languages refuse NaN and Infinity. Spaces are as Minari writes them, bounds without end too."""
    for path in [path for path in FILES if path != PACKAGE / "datasets" / "layout.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                strict = any(k.arg == "allow_nan" and ast.unparse(k.value) == "False" for k in node.keywords)
                assert strict, f"{path}:{node.lineno}: json.dumps without allow_nan=False"
