"""Structure of the package: levels of imports, and one definition for each public name."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pgx"

LEVELS = {
    "core": 0,
    "ops": 1, "distributed": 1,
    "compiler": 2, "networks": 2, "algos": 2, "envs": 2,
    "rollouts": 3,
    "config": 4,
    "runs": 5,
    "training": 6, "analysis": 6,
    "sweeps": 7, "lab": 7,
    "cli": 8, "api": 8,
}  # fmt: skip
TENSORS_ALONE = {"core", "ops", "networks", "algos"}
OUTSIDE = {"hydra", "omegaconf", "gymnasium", "tensorboard", "envpool", "rich"}
COMMAND_NAMES = {"COMMAND", "add_arguments", "run"}  # defined by each command of pgx/cli

FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """Return the first name below pgx/: ops for pgx/ops/returns.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Yield all modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def public_names(path: Path) -> set[str]:
    """Return the public names that a file defines at module level; imported names do not count."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_is_defined_in_two_modules() -> None:
    modules = defaultdict(list)
    for path in FILES:
        for name in public_names(path):
            if not (path.parent.name == "cli" and name in COMMAND_NAMES):
                modules[name].append(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


def test_the_package_has_the_entries_of_the_table() -> None:
    entries = {part(path) for path in FILES} - {"__init__", "__main__"}
    assert entries <= set(LEVELS), entries - set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_or_stay(path: Path) -> None:
    if path.parent == PACKAGE:
        return  # what `import pgx` and `python -m pgx` are
    name = part(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "pgx" and rest.split(".")[0] in LEVELS:
            imported = rest.split(".")[0]
            assert LEVELS[imported] <= LEVELS[name], f"{path} imports {module}"
        reads_configs = path == PACKAGE / "core" / "defaults.py" and top == "omegaconf"
        assert name not in TENSORS_ALONE or top not in OUTSIDE or reads_configs, f"{path} imports {module}"


def test_rules_do_not_import_each_other() -> None:
    for path in (PACKAGE / "algos").glob("*.py"):
        others = [m for m in imports(path) if m.startswith("pgx.algos.") and ".common." not in m]
        assert not others, f"{path} imports {others}"


def test_every_rule_has_a_page_and_a_file() -> None:
    rules = {path.stem for path in (PACKAGE / "algos").glob("*.py")} - {"__init__"}
    files = {path.stem for path in (ROOT / "configs" / "algo").glob("*.yaml")}
    assert rules <= files  # others set what is around a rule
    assert files == {path.stem for path in (ROOT / "docs" / "algorithms").glob("*.md")}


def test_json_is_strict() -> None:
    """JSON readers in other languages refuse NaN and Infinity. Minari's format of spaces has infinite bounds."""
    minari = PACKAGE / "rollouts" / "dataset_files.py", "space_to_json"
    for path in FILES:
        tree = ast.parse(path.read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        excepted = {id(n) for f in functions if (path, f.name) == minari for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                strict = any(k.arg == "allow_nan" and ast.unparse(k.value) == "False" for k in node.keywords)
                assert strict or id(node) in excepted, (
                    f"{path}:{node.lineno}: json.dumps without allow_nan=False"
                )
