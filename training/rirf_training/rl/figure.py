"""Reward, held-out reward, PSNR and SSIM over a reinforcement run, as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rirf.errors import require
from rirf.files import write_atomic

__all__ = ["plot_rewards"]

_MODES = {"coarse": "", "1 step": "_1", "2 steps": "_2", "4 steps": "_4"}


def plot_rewards(rows: Sequence[dict[str, float]], kept: int, file: Path) -> None:
    """Draw three panels over the step as a PNG: both rewards, PSNR and SSIM of every mode.

    Args:
        rows: of the metrics, the first one of step 0.
        kept: the step whose weights the judge likes best, marked by a line.
        file: where.
    """
    require("matplotlib", "train", "draw training curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        "reward": {"reward": "reward", "held-out judge": "judge"},
        "PSNR, dB": {mode: f"predicted{suffix}_psnr" for mode, suffix in _MODES.items()},
        "SSIM": {mode: f"predicted{suffix}_ssim" for mode, suffix in _MODES.items()},
    }
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [row["step"] for row in rows]
    for place, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for label, name in lines.items():
            axes.plot(steps, [row[f"validation/{name}"] for row in rows], label=label, marker=".")
        axes.axvline(kept, color="grey", linewidth=0.8, linestyle="--")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(file, buffer.getvalue())
