"""Print tables."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """As wide as it needs in a pipe, where a reader may cut or grep; folded to the window on a terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
