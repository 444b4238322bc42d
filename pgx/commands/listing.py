"""`pgx envs` and `pgx algos`: what can be chosen."""

import ast
import importlib.util
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pgx.paths import choices


def list_environments(pattern: str) -> int:
    """Registered Gymnasium ids, whether EnvPool knows them, and whether pgx has a file of values for them."""
    import gymnasium

    fast: set[str] = set()
    if importlib.util.find_spec("envpool") is not None:
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
    _show(table)
    print(f"{len(ids)} ids; env=module:Id imports a module that registers environments of your own")
    return 0


def list_rules() -> int:
    """Rules with the first line of their module's docstring; nothing is imported for it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("algo=", "rule"):
        table.add_column(heading)
    folder = Path(__file__).resolve().parents[1] / "algos"
    for name in choices("algo"):
        documentation = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
        table.add_row(name, documentation.splitlines()[0] if documentation else "")
    _show(table)
    return 0


def _show(table: Table) -> None:
    """As wide as it needs in a pipe, where a reader may cut or grep; folded to the window on a terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
