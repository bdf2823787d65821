"""Loss and validation curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rirf.errors import require
from rirf.files import write_atomic

__all__ = ["plot_curves"]

_COLUMNS = 4


def plot_curves(rows: Sequence[dict[str, float]], file: Path) -> None:
    """Draw every figure of the metric rows over the step, one small panel each, as a PNG."""
    require("matplotlib", "train", "draw training curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [key for key in rows[-1] if key not in ("step", "seconds")]
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names):
        axes = figure.add_subplot(lines, _COLUMNS, place + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        colour = "tab:blue" if name.startswith("train/") else "tab:orange"
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(file, buffer.getvalue())
