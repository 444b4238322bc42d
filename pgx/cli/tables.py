"""Print tables."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print a table: wrapped to the width of a terminal, else 200 columns wide for pipes."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
