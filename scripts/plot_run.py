"""Plot metrics of runs over environment steps, with one or several metrics per panel.

python scripts/plot_run.py RUN [RUN ...] --panels health/kl health/surrogate_gain,health/predicted_gain --out a.svg
"""

import argparse
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams["svg.hashsalt"] = "pgx"  # makes files reproducible
WIDTH, HEIGHT = 3.6, 2.5  # of a panel, inches
STYLES = ("-", "--", ":")  # of the metrics of a panel; each run has a colour


def rows(run: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def smoothed(values: list[float], weight: float) -> list[float]:
    """Return the exponential moving average of values, starting at the first; weight 0 returns them unchanged."""
    mean, found = values[0], []
    for value in values:
        mean = weight * mean + (1 - weight) * value
        found.append(mean)
    return found


def draw(axes: Axes, runs: dict[str, list[dict[str, Any]]], tags: list[str], weight: float) -> None:
    """Draw the metrics of one panel for all runs."""
    for number, (name, logged) in enumerate(runs.items()):
        for tag, style in zip(tags, cycle(STYLES)):
            points = [(row["step"], row[tag]) for row in logged if tag in row]
            if points:
                steps, values = zip(*points, strict=True)
                label = name if len(tags) == 1 else f"{name}: {tag.rpartition('/')[2]}"
                axes.plot(
                    steps,
                    smoothed(list(values), weight),
                    style,
                    color=f"C{number}",
                    linewidth=1.1,
                    label=label,
                )
    axes.set_title(
        ", ".join(tag.rpartition("/")[2] if number else tag for number, tag in enumerate(tags)), fontsize=9
    )
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--panels", nargs="+", required=True, metavar="TAG[,TAG]", help="tags of metrics.jsonl"
    )
    parser.add_argument(
        "--smooth",
        type=float,
        default=0.8,
        help="weight of previous values in the moving average, in [0, 1) (0.8)",
    )
    parser.add_argument("--out", type=Path, required=True, help="file: .svg, .png or .pdf")
    options = parser.parse_args()
    runs = {run.name: rows(run) for run in options.runs}
    columns = min(2, len(options.panels))
    lines = -(-len(options.panels) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * lines), layout="constrained")
    for number, panel in enumerate(options.panels):
        draw(figure.add_subplot(lines, columns, number + 1), runs, panel.split(","), options.smooth)
    figure.savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
