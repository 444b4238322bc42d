"""Print the table of names in other libraries for docs/migrating.md: `python -m scripts.migration_table`."""

from pgx.config.suggestions import ALIASES


def table() -> str:
    """Return the table of docs/migrating.md: names of the same keys share a row."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, keys in ALIASES.items():
        names.setdefault(keys, []).append(name)
    lines = ["| name there | key of pgx |", "|---|---|"]
    for keys, aliases in names.items():
        lines.append(
            f"| {', '.join(f'`{name}`' for name in aliases)} | {', '.join(f'`{key}`' for key in keys)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
