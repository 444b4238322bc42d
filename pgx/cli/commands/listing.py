"""`pgx envs` and `pgx algos`: what can be chosen."""

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pgx.core.extras import import_problem
from pgx.core.paths import choices, config_dir


def list_environments(pattern: str) -> int:
    """Registered Gymnasium ids, whether EnvPool knows them, and whether pgx has a file of values for them."""
    import gymnasium

    fast: set[str] = set()
    if import_problem("envpool") is None:
        import envpool

        fast = set(envpool.list_all_envs())
    own = set(choices("env"))
    ids = sorted(i for i in gymnasium.registry if pattern.lower() in i.lower())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("env=", "EnvPool", "values"):
        table.add_column(heading, no_wrap=True)
    for env_id in ids:
        own_file = f"configs/env/{env_id}.yaml" if env_id in own else "configs/env/default.yaml"
        table.add_row(env_id, "yes" if env_id in fast else "no", own_file)
    show(table)
    print(f"{len(ids)} ids; env=module:Id imports a module that registers environments of your own")
    return 0


def list_rules() -> int:
    """What algo= takes: rules, as their modules begin; settings of a rule, as their files do."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("algo=", "rule"):
        table.add_column(heading)
    folder = Path(__file__).resolve().parents[2] / "algos"
    for name in choices("algo"):
        path = folder / f"{name}.py"
        if path.is_file():  # read, not imported: this answers at once
            line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "\n").splitlines()[0]
        else:
            comment = (config_dir() / "algo" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1]
            line = comment.removeprefix("# ").partition(" Page:")[0]
        table.add_row(name, line)
    show(table)
    return 0


def show(table: Table) -> None:
    """As wide as it needs in a pipe, where a reader may cut or grep; folded to the window on a terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
