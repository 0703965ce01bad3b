"""Draws what was measured.

python -m benchmarks.drawing RESULTS.JSON COMPARISON.SVG
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from .table import measured_with, number

_COLUMNS = 3
_COLOURS = {
    "socket-thread": "#0b6e99",
    "twisted-tcp": "#4aa3c7",
    "zc.zrs": "#d9822b",
    "FileStorage": "#8a8a8a",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars of the medians: a small chart for each figure that implementations are compared by."""
    panels = [
        (described, figure)
        for described in results["cases"]
        for figure in described["figures"]
        if figure["drawn"]
    ]
    rows = -(-len(panels) // _COLUMNS)
    caption = "\n".join(
        line for text in measured_with(results) for line in textwrap.wrap(text, 140)
    )
    height = 1.35 * rows + 0.18 * (caption.count("\n") + 2)
    # The same results make the same file; text stays text, which makes it small.
    matplotlib.rcParams.update({"svg.hashsalt": "zrs_core", "svg.fonttype": "none"})
    figure_, axes = pyplot.subplots(rows, _COLUMNS, figsize=(11, height), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _bars(axis, *panel)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    bottom = 0.18 * (caption.count("\n") + 2) / height
    figure_.text(0.01, 0.05 / height, caption, fontsize=7, color="#444444", va="bottom")
    figure_.tight_layout(rect=(0, bottom, 1, 1))
    figure_.savefig(path, metadata={"Date": None})


def _bars(axis: Axes, described: dict[str, Any], figure: dict[str, Any]) -> None:
    medians = described["medians"]
    names = [*medians][::-1]
    values = [medians[name][figure["name"]] for name in names]
    bars = axis.barh(names, values, color=[_COLOURS[name] for name in names])
    axis.bar_label(bars, [number(value) for value in values], padding=3, fontsize=7)
    better = "less" if figure["less_is_better"] else "more"
    axis.set_title(
        f"{described['name']}\n{figure['name']}, {figure['unit']} ({better} is better)",
        fontsize=7.5,
        loc="left",
    )
    axis.set_xlim(0, max(values) * 1.2 or 1)
    axis.set_xticks([])
    axis.tick_params(axis="y", labelsize=7, length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def main(results: str, path: str) -> None:
    draw(json.loads(Path(results).read_text()), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
