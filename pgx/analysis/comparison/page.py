"""A comparison as one HTML page that needs nothing else: no network, no script, light and dark, any width."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from pgx.analysis.comparison.plots import inline_svg, plots_of
from pgx.analysis.comparison.result import Comparison
from pgx.analysis.comparison.tables import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --line: #d1d9e0; --ground: #ffffff; --head: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --ground: #0d1117; --head: #151b23; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, li { color: var(--dim); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--head); font-weight: 600; }
th.text, td.text { text-align: left; }
figure { margin: 1rem 0; } figcaption { color: var(--dim); font-size: .875rem; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; max-width: 40rem; }
"""


def page(comparison: Comparison, tables: Sequence[Table], command: str) -> str:
    """The page.

    Args:
        comparison: what it shows.
        tables: of it, in this order, below the figures.
        command: that made it.
    """
    title = f"Comparison: {comparison.metric}"
    figures = _figures(comparison)
    shown = "".join(f"<h2>{escape(table.title)}</h2>\n{_table(table)}\n" for table in tables)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"<p><code>{escape(command)}</code></p>\n{figures}{shown}{_notes(comparison)}</body>\n</html>\n"
    )


def _figures(comparison: Comparison) -> str:
    """A row a kind of figure, a figure a panel: as many beside each other as the width takes."""
    rows: dict[str, list[str]] = {}
    for number, panel in enumerate(comparison.panels):
        for plot in plots_of(comparison, [panel]):
            drawn = inline_svg(replace(plot, name=f"{plot.name}_{number}"))
            rows.setdefault(plot.caption, []).append(drawn)
    return "".join(
        f'<figure><figcaption>{escape(caption)}</figcaption><div class="row">{"".join(drawn)}</div></figure>\n'
        for caption, drawn in rows.items()
    )


def _table(table: Table) -> str:
    def row(cells: Sequence[str], mark: str) -> str:
        kinds = [' class="text"' if i < table.left else "" for i in range(len(cells))]
        return "".join(f"<{mark}{k}>{escape(c)}</{mark}>" for k, c in zip(kinds, cells, strict=True))

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    head = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _notes(comparison: Comparison) -> str:
    lines = [*([comparison.rule] if comparison.rule else []), *comparison.notes]
    if not lines:
        return ""
    return "<h2>Notes</h2>\n<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>\n"
