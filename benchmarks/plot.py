"""Draws every ``results/<machine>/*.json`` as a PNG beside it: time of each contender over gpuflow's, one panel a row.

python -m benchmarks.plot [FOLDER ...]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks._harness import OURS, RESULTS

_MOST_PANELS = 14  # in a column
OUR_COLOR, PEER_COLOR, SPREAD_COLOR = "#2b6cb0", "#b8bec6", "#3c4248"


def main(folders: list[str]) -> None:
    """Draw all results of the given folders; of all machines by default."""
    places = [Path(folder) for folder in folders] or [path for path in RESULTS.iterdir() if path.is_dir()]
    for path in sorted(file for place in places for file in place.glob("*.json")):
        result = json.loads(path.read_text())
        if "rows" in result:  # a stress has counts, and no times
            draw(result, path.with_suffix(".png"))
            print(path.with_suffix(".png"))


def draw(result: dict[str, Any], path: Path) -> None:
    """One benchmark: a panel a row, bars of median wall time with quartiles, labelled with the ratio to gpuflow."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = _columns(result["rows"])
    tallest = max(sum(map(_height, rows)) for rows in columns)
    layout = ConstrainedLayoutEngine(rect=(0, 0.02, 1, 0.97), w_pad=0.15)
    figure = plt.figure(figsize=(9.5 * len(columns), tallest + 1.2), layout=layout)
    grid = figure.add_gridspec(1, len(columns))
    for column, rows in enumerate(columns):
        heights = [_height(row) for row in rows]
        rest = [tallest - sum(heights)] if tallest > sum(heights) else []
        panels = grid[column].subgridspec(len(rows + rest), 1, height_ratios=heights + rest)
        for place, row in enumerate(rows):
            _panel(figure.add_subplot(panels[place]), row)
    figure.suptitle(f"gpuflow: {result['benchmark']}", x=0.02, ha="left", fontweight="bold")
    figure.text(0.02, 0.004, _caption(result), fontsize=7, color="#666666")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _height(row: dict[str, Any]) -> float:
    """In inches."""
    return 0.6 + 0.32 * len(row["entries"])


def _columns(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows in their order, in as many columns as they need, about as long as each other."""
    count = math.ceil(len(rows) / _MOST_PANELS)
    each = math.ceil(len(rows) / count)
    return [rows[first : first + each] for first in range(0, len(rows), each)]


def _panel(axis: Any, row: dict[str, Any]) -> None:
    entries = sorted(row["entries"].items(), key=lambda item: -item[1]["wall_ms"])
    for place, (name, entry) in enumerate(entries):
        low, high = entry["wall_quartiles_ms"]
        color = OUR_COLOR if name.startswith(OURS) else PEER_COLOR
        axis.barh(place, entry["wall_ms"], color=color, height=0.7)
        axis.plot([low, high], [place, place], color=SPREAD_COLOR, linewidth=1.2)
        cpu = f", CPU {_milliseconds(entry['cpu_ms'])}" if entry["cpu_ms"] else ""
        rate = f", {entry['images_per_second']:,.0f} images/s" if "images_per_second" in entry else ""
        label = f" {_milliseconds(entry['wall_ms'])}  x{entry['wall_ratio']:.2f}{cpu}{rate}"
        axis.text(max(entry["wall_ms"], high), place, label, va="center", fontsize=7.5)
    axis.set_yticks(range(len(entries)), [name for name, _ in entries], fontsize=8)
    axis.set_title(row["name"], fontsize=9, loc="left")
    with_rates = any("images_per_second" in entry for _, entry in entries)  # their labels are longer
    longest = max(entry["wall_quartiles_ms"][1] for _, entry in entries)
    axis.set_xlim(0, longest * (1.65 if with_rates else 1.45))
    axis.tick_params(axis="x", labelsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _caption(result: dict[str, Any]) -> str:
    machine = result["machine"]
    device = (
        machine["gpu"] if result["device"].startswith("cuda") else f"{machine['processor']}, {machine['cores']} cores"
    )
    return f"{device}; medians and quartiles, interleaved, warm; shorter is better. {result['note']}"


if __name__ == "__main__":
    main(sys.argv[1:])
