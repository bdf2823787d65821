"""One picture that shows what was done: the panels side by side, the diagnosis below them.

Draws with OpenCV alone. Knows nothing of files, networks or how a diagnosis came to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.images import check_frame

__all__ = ["comparison"]

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

_BACKGROUND: Colour = (28, 23, 20)
_CARD: Colour = (41, 34, 30)
_TRACK: Colour = (66, 56, 50)
_TICK: Colour = (92, 80, 72)
_TEXT: Colour = (238, 234, 230)
_MUTED: Colour = (172, 160, 150)
_ACCENTS: dict[str, Colour] = {
    "fog": (214, 186, 140),
    "shake": (92, 178, 250),
    "rain": (240, 144, 84),
    "noise": (178, 122, 226),
}

# Sides in pixels. A frame is scaled into its cell, up as well as down.
_CELL_WIDTHS = {2: (468, 940), 3: (420, 640)}
_STACKED_WIDTHS = (912, 1600)
_CELL_HEIGHT_MAX = 900
_NARROWEST_CELL = 300
_CANVAS_WIDTH_MIN = 960
# Frames wider than this many heights go one below the other.
_STACK_ASPECT = 2.2


@dataclass(frozen=True)
class _Type:
    """A text style; ``height`` is that of a capital letter, in pixels."""

    height: float
    colour: Colour
    heavy: bool = False

    @property
    def face(self) -> int:
        return cv2.FONT_HERSHEY_DUPLEX if self.heavy else cv2.FONT_HERSHEY_SIMPLEX

    @property
    def scale(self) -> float:
        # A Hershey capital is 21 units high at scale 1, in both faces.
        return self.height / 21.0

    @property
    def line(self) -> int:
        return round(self.height * 2.1)

    def width(self, text: str) -> int:
        return int(cv2.getTextSize(text, self.face, self.scale, 1)[0][0])

    def draw(self, canvas: Picture, text: str, x: int, baseline: int) -> None:
        cv2.putText(canvas, text, (x, baseline), self.face, self.scale, self.colour, 1, cv2.LINE_AA)

    def wrap(self, text: str, width: int) -> list[str]:
        """Lines no wider than ``width``; a word that is wider by itself is broken."""
        lines: list[str] = []
        current = ""
        for word in text.split():
            candidate = f"{current} {word}" if current else word
            if self.width(candidate) <= width:
                current = candidate
                continue
            if current:
                lines.append(current)
            while len(word) > 1 and self.width(word) > width:
                fits = next(
                    (n for n in range(len(word) - 1, 1, -1) if self.width(word[:n]) <= width), 1
                )
                lines.append(word[:fits])
                word = word[fits:]  # noqa: PLW2901  the rest of the word goes on
            current = word
        return [*lines, current] if current else lines


def comparison(
    before: Picture,
    after: Picture,
    diagnosis: Diagnosis,
    *,
    clean: Picture | None = None,
    caption: str = "",
) -> Picture:
    """Draw input, restored frame and, where known, the original, with the diagnosis below.

    Frames are scaled into the picture, which is 960 to about 1980 pixels wide whatever their size.

    Args:
        before, after, clean: uint8 BGR (H, W, 3), H and W >= 16; sizes may differ.
        diagnosis: severities are drawn as bars of 0 to 100 with their interval as a whisker.
        caption: a last line of text, for example steps and time.

    Returns:
        uint8 BGR (h, w, 3).

    Raises:
        ImageError: a frame breaks the contract of :func:`rirf.images.check_frame`.
    """
    panels = [("Input", check_frame(before)), ("Restored", check_frame(after))]
    if clean is not None:
        panels.append(("Original", check_frame(clean)))
    upper = _panels(panels)
    lower = _report(diagnosis, caption, upper.shape[1])
    return np.concatenate([upper, lower])


def _unit(width: int) -> float:
    """Scale of everything but the frames, for a picture of this width in pixels."""
    return float(np.clip(width / 1200, 1.0, 1.5))


def _blank(height: int, width: int, colour: Colour = _BACKGROUND) -> Picture:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def _scaled(frame: Picture, width: int, height: int) -> Picture:
    """The frame at the largest size that fits into ``width`` x ``height``."""
    rows, columns = frame.shape[:2]
    factor = min(width / columns, height / rows)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size, interpolation=method), dtype=np.uint8)


def _panels(panels: Sequence[tuple[str, Picture]]) -> Picture:
    rows, columns = panels[0][1].shape[:2]
    stacked = columns > _STACK_ASPECT * rows
    low, high = _STACKED_WIDTHS if stacked else _CELL_WIDTHS[len(panels)]
    room = min(max(columns, low), high)
    frames = [_scaled(frame, room, _CELL_HEIGHT_MAX) for _, frame in panels]
    cell = max(_NARROWEST_CELL, *(frame.shape[1] for frame in frames))
    tallest = max(frame.shape[0] for frame in frames)

    across = 1 if stacked else len(panels)
    unit = _unit(across * cell)
    gap, margin = round(14 * unit), round(24 * unit)
    heading = _Type(11 * unit, _TEXT, heavy=True)
    head = round(heading.height * 2.4)
    width = max(_CANVAS_WIDTH_MIN, across * cell + (across - 1) * gap + 2 * margin)
    left = (width - across * cell - (across - 1) * gap) // 2
    down = len(panels) // across
    canvas = _blank(margin + down * (head + tallest) + (down - 1) * gap, width)
    for number, ((name, _), frame) in enumerate(zip(panels, frames, strict=True)):
        x = left + (number % across) * (cell + gap)
        y = margin + (number // across) * (head + tallest + gap)
        inset = x + (cell - frame.shape[1]) // 2
        heading.draw(canvas, name, inset, y + round(heading.height * 1.2))
        canvas[y + head : y + head + frame.shape[0], inset : inset + frame.shape[1]] = frame
    return canvas


def _parameters(diagnosis: Diagnosis, name: str) -> str:
    """What a person wants to know of an effect's parameters, in one line."""
    if not diagnosis.effect(name).present:
        return ""
    if name == "fog":
        light = " ".join(f"{value:.2f}" for value in diagnosis.fog.atmospheric_light)
        return f"transmission {diagnosis.fog.transmission_mean:.2f}, light RGB {light}"
    if name == "shake":
        shake = diagnosis.shake
        return (
            f"direction {shake.direction_deg:.0f} deg, length {shake.length_px:.1f} px, "
            f"energy {shake.energy:.2f}"
        )
    if name == "rain":
        rain = diagnosis.rain
        return (
            f"streaks {rain.length_px:.0f} x {rain.width_px:.1f} px, "
            f"slant {rain.slant_deg:.0f} deg, opacity {rain.opacity:.2f}, "
            f"covers {100 * rain.coverage:.0f} %"
        )
    return f"gain {diagnosis.noise.gain:.3f}, offset {diagnosis.noise.offset:+.1f} grey levels"


def _report(diagnosis: Diagnosis, caption: str, width: int) -> Picture:
    unit = _unit(width - 48)
    margin, pad = round(24 * unit), round(20 * unit)
    heading = _Type(11 * unit, _TEXT, heavy=True)
    name_type, plain = _Type(9.5 * unit, _TEXT, heavy=True), _Type(9 * unit, _TEXT)
    muted = _Type(8.5 * unit, _MUTED)

    card = width - 2 * margin
    name_x = pad
    bar_x = name_x + max(name_type.width(name.capitalize()) for name in EFFECTS) + pad
    bar_width = round(card * 0.27)
    value_x = bar_x + bar_width + pad
    text_x = value_x + plain.width("100 (100 to 100)") + pad
    texts = {
        name: muted.wrap(_parameters(diagnosis, name), card - pad - text_x) for name in EFFECTS
    }
    # The scene's text starts below the bars, where the card is free to its right end.
    scene = plain.wrap(diagnosis.scene or "not described", card - pad - bar_x)
    notes = muted.wrap(caption, card - 2 * pad)

    row = plain.line + round(8 * unit)
    heights = {name: row + max(0, len(texts[name]) - 1) * muted.line for name in EFFECTS}
    top = pad + heading.line
    height = top + sum(heights.values()) + round(14 * unit) + len(scene) * plain.line
    height += len(notes) * muted.line + (round(8 * unit) if notes else 0) + pad // 2

    canvas = _blank(height, card, _CARD)
    title_end = pad + round(heading.height)
    heading.draw(canvas, "Diagnosis", name_x, title_end)
    legend = "severity of 100, whisker: interval"
    muted.draw(canvas, legend, card - pad - muted.width(legend), title_end)
    y = top
    for name in EFFECTS:
        effect = diagnosis.effect(name)
        middle = y + row // 2
        baseline = middle + round(plain.height / 2)
        style = name_type if effect.present else muted
        style.draw(canvas, name.capitalize(), name_x, baseline)
        _bar(canvas, bar_x, middle, bar_width, unit, _ACCENTS[name], effect.severity)
        lower, upper = effect.interval
        if upper > lower:
            _whisker(canvas, bar_x, middle, bar_width, unit, lower, upper)
        if effect.present:
            value, rest = f"{effect.severity:.0f}", f" ({lower:.0f} to {upper:.0f})"
            plain.draw(canvas, value, value_x, baseline)
            if upper > lower:
                muted.draw(canvas, rest, value_x + plain.width(value), baseline)
        else:
            muted.draw(canvas, "absent", value_x, baseline)
        for number, line in enumerate(texts[name]):
            muted.draw(canvas, line, text_x, baseline + number * muted.line)
        y += heights[name]
    y += round(14 * unit)
    name_type.draw(canvas, "Scene", name_x, y + round(plain.height))
    for line in scene:
        plain.draw(canvas, line, bar_x, y + round(plain.height))
        y += plain.line
    y += round(8 * unit)
    for line in notes:
        muted.draw(canvas, line, name_x, y + round(muted.height))
        y += muted.line

    framed = _blank(height + 2 * margin, width)
    framed[margin : margin + height, margin : margin + card] = canvas
    return framed


def _pill(canvas: Picture, x: int, middle: int, length: int, radius: int, colour: Colour) -> None:
    """A horizontal bar with round ends, ``length`` from tip to tip."""
    length = max(length, 2 * radius)
    cv2.rectangle(
        canvas, (x + radius, middle - radius), (x + length - radius, middle + radius), colour, -1
    )
    for end in (x + radius, x + length - radius):
        cv2.circle(canvas, (end, middle), radius, colour, -1, cv2.LINE_AA)


def _bar(
    canvas: Picture, x: int, middle: int, width: int, unit: float, colour: Colour, severity: float
) -> None:
    radius = round(6 * unit)
    _pill(canvas, x, middle, width, radius, _TRACK)
    for quarter in (1, 2, 3):
        tick = x + round(width * quarter / 4)
        cv2.line(canvas, (tick, middle - radius + 2), (tick, middle + radius - 2), _TICK, 1)
    if severity > 0:
        _pill(canvas, x, middle, round(width * severity / 100), radius, colour)


def _whisker(
    canvas: Picture, x: int, middle: int, width: int, unit: float, lower: float, upper: float
) -> None:
    cap = round(4 * unit)
    start, end = (x + round(width * value / 100) for value in (lower, upper))
    # A dark rim keeps the whisker visible on the bar and on the empty track alike.
    for colour, thickness in ((_BACKGROUND, 3), (_TEXT, 1)):
        cv2.line(canvas, (start, middle), (end, middle), colour, thickness)
        for place in (start, end):
            cv2.line(canvas, (place, middle - cap), (place, middle + cap), colour, thickness)
