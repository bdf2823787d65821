"""Contact sheet: the best, the median and the worst cases by PSNR gain, to be looked at.

One row a case: input, restored, clean, and a card with the figures and true against predicted
severities. Draws with OpenCV alone; frames are drawn and restored anew, since a run keeps none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.diagnosis import EFFECTS
from rirf.evaluation.metrics import average
from rirf.evaluation.protocol import draw
from rirf.evaluation.runner import Evaluation, Row
from rirf.pipeline import Pipeline

__all__ = ["contact_sheet", "pick"]

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

# Sides in pixels.
_CELL = (420, 315)
_CARD = 400
_GAP = 12
_MARGIN = 28
_HEADER = 96
_SECTION = 44
# Colours in BGR.
_BACKGROUND: Colour = (26, 22, 20)
_PANEL: Colour = (40, 34, 31)
_TRACK: Colour = (68, 58, 52)
_TEXT: Colour = (238, 234, 230)
_MUTED: Colour = (170, 160, 152)
_TRUE: Colour = (196, 178, 112)
_PREDICTED: Colour = (92, 178, 250)
_BETTER: Colour = (140, 206, 132)
_WORSE: Colour = (112, 112, 236)


def pick(rows: Sequence[Row], count: int) -> dict[str, list[Row]]:
    """``count`` cases each from the top, the middle and the bottom by PSNR gain, none twice.

    With fewer than three times as many rows, the groups shrink: worst first, then median.
    """
    ranked = sorted(rows, key=lambda row: (-row.gain, row.case.name))
    best = ranked[:count]
    rest = ranked[len(best) :]
    worst = rest[max(0, len(rest) - count) :]
    left = ranked[len(best) : len(ranked) - len(worst)]
    centre = (len(left) - min(count, len(left))) // 2
    return {"Best": best, "Median": left[centre : centre + count], "Worst": worst}


def _text(
    canvas: Picture,
    text: str,
    x: int,
    baseline: int,
    *,
    size: float = 9.0,
    colour: Colour = _TEXT,
    heavy: bool = False,
    right: bool = False,
) -> int:
    """Draw with capitals ``size`` pixels high, from ``x`` or, ``right``, up to it; its width."""
    face = cv2.FONT_HERSHEY_DUPLEX if heavy else cv2.FONT_HERSHEY_SIMPLEX
    # The drawing font has no dash and no multiplication sign.
    text = text.replace("–", "-").replace("×", "x")
    scale = size / 21.0
    width = int(cv2.getTextSize(text, face, scale, 1)[0][0])
    start = x - width if right else x
    cv2.putText(canvas, text, (start, baseline), face, scale, colour, 1, cv2.LINE_AA)
    return width


def _fitted(frame: Picture) -> Picture:
    """The frame at the largest size that fits a cell, centred on the panel colour."""
    width, height = _CELL
    factor = min(width / frame.shape[1], height / frame.shape[0])
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    small = cv2.resize(frame, size, interpolation=method)
    cell = np.full((height, width, 3), _PANEL, dtype=np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def _bar(canvas: Picture, x: int, y: int, width: int, height: int, share: float, c: Colour) -> None:
    cv2.rectangle(canvas, (x, y), (x + width, y + height - 1), _TRACK, -1)
    if share > 0:
        end = x + max(1, round(width * min(1.0, share)))
        cv2.rectangle(canvas, (x, y), (end, y + height - 1), c, -1)


def _card(row: Row) -> Picture:
    height = _CELL[1]
    canvas = np.full((height, _CARD, 3), _PANEL, dtype=np.uint8)
    left, right = 18, _CARD - 18
    _text(canvas, row.case.name, left, 32, size=10.5, heavy=True)
    colour = _BETTER if row.gain >= 0 else _WORSE
    _text(
        canvas, f"{row.gain:+.2f} dB", right, 32, size=10.5, colour=colour, heavy=True, right=True
    )

    before, after = row.figures["input"], row.figures["predicted"]
    _text(canvas, "PSNR dB", 236, 58, size=7.5, colour=_MUTED, right=True)
    _text(canvas, "SSIM", right, 58, size=7.5, colour=_MUTED, right=True)
    for line, (label, figures) in enumerate((("input", before), ("restored", after))):
        y = 80 + 22 * line
        _text(canvas, label, left, y, colour=_MUTED)
        _text(canvas, f"{figures.psnr:.2f}", 236, y, right=True)
        _text(canvas, f"{figures.ssim:.3f}", right, y, right=True)

    _text(canvas, "severity", left, 136, size=7.5, colour=_MUTED)
    _text(canvas, "true", 292, 136, size=7.5, colour=_TRUE, right=True)
    _text(canvas, "predicted", right, 136, size=7.5, colour=_PREDICTED, right=True)
    bar_x, bar_width = 84, 160
    for line, name in enumerate(EFFECTS):
        y = 160 + 32 * line
        true, ours = row.truth.effect(name), row.prediction.effect(name)
        _text(canvas, name, left, y + 4, colour=_TEXT if true.present else _MUTED)
        _bar(canvas, bar_x, y - 9, bar_width, 7, true.severity / 100, _TRUE)
        _bar(canvas, bar_x, y + 1, bar_width, 7, ours.severity / 100, _PREDICTED)
        low, high = (bar_x + round(bar_width * bound / 100) for bound in ours.interval)
        cv2.line(canvas, (low, y + 4), (high, y + 4), _TEXT, 1)
        for end in (low, high):
            cv2.line(canvas, (end, y + 1), (end, y + 7), _TEXT, 1)
        shown = f"{true.severity:.0f}" if true.present else "-"
        _text(canvas, shown, 292, y + 4, right=True)
        shown = f"{ours.severity:.0f}" if ours.present else "-"
        _text(canvas, shown, right, y + 4, right=True)
    steps = (
        f"{row.steps} step{'' if row.steps == '1' else 's'}" if row.steps.isdigit() else row.steps
    )
    note = f"{steps}, {row.read_ms + row.restore_ms:.0f} ms"
    _text(canvas, note, left, height - 18, size=8, colour=_MUTED)
    return canvas


def _strip(pipeline: Pipeline, row: Row) -> Picture:
    sample = draw(row.case)
    restored = pipeline.restore(sample.frame, pipeline.read(sample.frame), steps="auto").image
    parts = [_fitted(frame) for frame in (sample.frame, restored, sample.truth)]
    gap = np.full((_CELL[1], _GAP, 3), _BACKGROUND, dtype=np.uint8)
    pieces = [piece for part in parts for piece in (part, gap)]
    return np.concatenate([*pieces, _card(row)], axis=1)


def _header(evaluation: Evaluation, environment: Mapping[str, Any], width: int) -> Picture:
    canvas = np.full((_HEADER, width, 3), _BACKGROUND, dtype=np.uint8)
    before = average(row.figures["input"] for row in evaluation.rows)
    after = average(row.figures["predicted"] for row in evaluation.rows)
    title = f"Evaluation protocol {evaluation.protocol.name}, {len(evaluation.rows)} images"
    _text(canvas, title, 0, 22, size=15, heavy=True)
    figures = (
        f"mean PSNR {before.psnr:.2f} to {after.psnr:.2f} dB, "
        f"SSIM {before.ssim:.3f} to {after.ssim:.3f}"
    )
    _text(canvas, figures, width, 22, size=11, heavy=True, right=True)
    where = ", ".join(
        f"{key} {environment[key]}"
        for key in ("bundle", "device", "provider", "threads")
        if key in environment
    )
    _text(canvas, where, 0, 50, size=9, colour=_MUTED)
    for place, label in enumerate(("Input", "Restored", "Clean")):
        _text(canvas, label, place * (_CELL[0] + _GAP), 86, size=9.5, colour=_MUTED, heavy=True)
    return canvas


def contact_sheet(
    pipeline: Pipeline,
    evaluation: Evaluation,
    environment: Mapping[str, Any],
    *,
    count: int = 2,
) -> Picture:
    """Draw ``count`` cases from the top, the middle and the bottom of the PSNR gains.

    Args:
        pipeline: the one that was evaluated; it restores the chosen cases once more.
        evaluation: what it measured, at least two rows.
        environment: bundle, device, provider and threads, for the header.
        count: cases a group, at least 1.

    Returns:
        uint8 BGR (h, w, 3), about 1750 pixels wide.
    """
    width = 3 * (_CELL[0] + _GAP) + _CARD
    blocks = [_header(evaluation, environment, width)]
    for group, rows in pick(evaluation.rows, count).items():
        if not rows:
            continue
        heading = np.full((_SECTION, width, 3), _BACKGROUND, dtype=np.uint8)
        reach = _text(heading, f"{group} by PSNR gain", 0, 29, size=12, heavy=True)
        cv2.line(heading, (reach + 16, 24), (width, 24), _TRACK, 1)
        blocks.append(heading)
        for row in rows:
            blocks += [_strip(pipeline, row), np.full((_GAP, width, 3), _BACKGROUND, np.uint8)]
    body = np.concatenate(blocks)
    border = (_MARGIN, _MARGIN - _GAP, _MARGIN, _MARGIN)
    framed = cv2.copyMakeBorder(body, *border, cv2.BORDER_CONSTANT, value=_BACKGROUND)
    return np.asarray(framed, dtype=np.uint8)
