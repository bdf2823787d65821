"""Clean-scene descriptions: at most 30 words, never a word about degradations.

Turns what is known of a clean scene (class layout, colours, detail) into the description part of a
diagnosis, and holds the rule every description must pass, whoever wrote it. Rule: R&R
(arXiv 2604.09511) section 3.1, part 4; the wording is our own.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLASSES",
    "GRID",
    "WORD_LIMIT",
    "SceneLayout",
    "banned_words",
    "check_scene",
    "composition",
    "describe",
    "observe",
]

WORD_LIMIT = 30
GRID = 4
CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
# A class that covers less of the frame than this is left out of composition and description.
AREA_FLOOR = 0.02
_PLURALS = {
    "sky": "sky",
    "building": "buildings",
    "pole": "poles",
    "road": "road",
    "pavement": "pavement",
    "tree": "trees",
    "sign": "signs",
    "fence": "fence",
    "car": "cars",
    "pedestrian": "pedestrians",
    "bicyclist": "cyclists",
}
_SHARP = ("building", "sign", "car", "pole", "fence", "pedestrian", "bicyclist")
_TEXTURED = ("tree",)
_SMOOTH = ("sky", "road", "pavement")

# A stem counts at the start of a word: train, terrain and brain are no rain. A stem that begins
# innocent words too (hazard, mistake, Shakespeare) lists its inflections instead.
_BANNED = re.compile(
    r"(?<![^\W\d_])(?:"  # not after a letter; \b would miss the rain in wet_rain
    r"(?:anti-?|de|un)?(?:"
    r"fog\w*|haz(?:e[sd]?|eless|y|ily|iness|ier|iest|ing)\b|smog\w*|murk\w*"
    r"|mist(?:s|y|ed|ing|ily|iness|ier|iest)?\b"
    r"|blur\w*|shak(?:e[ns]?|ing|y|ily|iness|ier|iest)\b|smear\w*|smudg\w*"
    r"|rain(?!bow)\w*|drizzl\w*|streak\w*|droplet\w*|downpour\w*"
    r"|nois(?:e[sd]?|eless|y|ily|iness|ier|iest|ing)\b|grain\w*|speckl\w*"
    r")"
    r"|ghosting|defocus\w*|art[ei]fact\w*|degrad\w*|distort\w*|corrupt\w*"
    r"|out[\s-]*of[\s-]*focus|low[\s-]*contrast|washed[\s-]*out|low[\s-]*quality"
    r")",
    re.IGNORECASE,
)


def banned_words(text: str) -> list[str]:
    """Every word or phrase in the text that speaks of a degradation, in order."""
    return [match.group(0) for match in _BANNED.finditer(text)]


def check_scene(text: str) -> str:
    """Return the description unchanged if it keeps the rule.

    Raises:
        ValueError: more than 30 words, a degradation word, a control character, or white space at
            an end (the text form could not carry it).
    """
    count = len(text.split())
    if count > WORD_LIMIT:
        raise ValueError(f"scene has {count} words, at most {WORD_LIMIT} are allowed: shorten it")
    found = banned_words(text)
    if found:
        raise ValueError(
            f"scene speaks of degradations ({', '.join(found)}): describe the clean scene only"
        )
    if text != text.strip() or not text.isprintable():
        raise ValueError("scene must be one line of printable text without white space at its ends")
    return text


@dataclass(frozen=True)
class SceneLayout:
    """What is known of the clean scene on a 4 x 4 grid.

    Attributes:
        classes: float32 (11, 4, 4), share of each cell covered by each class, or None when the
            scene is outside the known classes.
        colours: float32 (3, 4, 4), mean RGB in [0, 1] of each cell.
        detail: float32 (4, 4), mean gradient magnitude of each cell in units of [0, 1] a pixel.
    """

    classes: NDArray[np.float32] | None
    colours: NDArray[np.float32]
    detail: NDArray[np.float32]


def _cells(values: NDArray[Any]) -> list[NDArray[Any]]:
    """The cells of a 4 x 4 grid over (H, W, ...), as views, row by row."""
    bands = np.array_split(values, GRID, axis=0)
    return [cell for band in bands for cell in np.array_split(band, GRID, axis=1)]


def _per_cell(figures: list[Any]) -> NDArray[np.float32]:
    """One tuple of figures a cell to (C, 4, 4)."""
    grid = np.asarray(figures, dtype=np.float32).reshape(GRID, GRID, -1)
    return np.ascontiguousarray(grid.transpose(2, 0, 1))


def observe(clean: NDArray[np.float32], labels: NDArray[np.uint8] | None = None) -> SceneLayout:
    """The layout of a clean float32 RGB image (H, W, 3) and, where known, its class labels."""
    grey = cv2.transform(clean, np.full((1, 3), 1.0 / 3.0, dtype=np.float32))
    gradient = np.zeros(clean.shape[:2], dtype=np.float32)
    gradient[:-1] = cv2.absdiff(grey[1:], grey[:-1])
    gradient[:, :-1] += cv2.absdiff(grey[:, 1:], grey[:, :-1])
    # cv2.mean sums in float64: in float32, a cell of a 4K frame is off by half a percent.
    colours = _per_cell([cv2.mean(cell)[:3] for cell in _cells(clean)])
    detail = _per_cell([cv2.mean(cell)[:1] for cell in _cells(gradient)])
    shares = None
    if labels is not None:
        counts = [
            np.bincount(cell.ravel(), minlength=256)[: len(CLASSES)] / cell.size
            for cell in _cells(labels)
        ]
        shares = _per_cell(counts)
    return SceneLayout(classes=shares, colours=colours, detail=detail[0])


def composition(layout: SceneLayout) -> dict[str, float]:
    """Share of the frame of each class that covers at least 2 %, rounded to 0.001."""
    if layout.classes is None:
        return {}
    shares = layout.classes.mean(axis=(1, 2))
    return {
        name: round(float(share), 3)
        for name, share in zip(CLASSES, shares, strict=True)
        if share >= AREA_FLOOR
    }


def _colour_name(rgb: NDArray[np.float32]) -> str:
    # Rounding may leave a mean above 1, where rgb_to_hls can divide by zero.
    hue, lightness, saturation = colorsys.rgb_to_hls(*(min(1.0, float(v)) for v in rgb))
    chroma = float(rgb.max() - rgb.min())
    tone = "dark " if lightness < 0.3 else "bright " if lightness > 0.62 else ""
    if chroma < 0.08 or saturation < 0.1:
        return f"{tone}grey" if lightness < 0.85 else "white"
    names = ((15, "red"), (45, "orange"), (70, "yellow"), (170, "green"), (200, "cyan"))
    degrees = hue * 360
    name = next((n for limit, n in names if degrees < limit), None)
    if name is None:
        name = "blue" if degrees < 260 else "purple" if degrees < 330 else "red"
    if name in ("orange", "red") and lightness < 0.45 and chroma < 0.4:
        name = "brown"
    return f"{tone}{name}"


def _where(cells: NDArray[np.float32]) -> str:
    """Place of a class from its (4, 4) shares, in image terms."""
    if cells.min() > 0.25 * cells.max():
        return "everywhere"
    rows, columns = cells.sum(axis=1), cells.sum(axis=0)
    total = max(float(cells.sum()), 1e-6)
    left, right = float(columns[:1].sum()) / total, float(columns[3:].sum()) / total
    middle = float(columns[1:3].sum()) / total
    upper, lower = float(rows[:2].sum()) / total, float(rows[2:].sum()) / total
    if left > 0.3 and right > 0.3 and middle < 0.35:
        return "left and right"
    if left > 0.5:
        return "left"
    if right > 0.5:
        return "right"
    if upper > 0.75:
        return "above"
    if lower > 0.75:
        return "below"
    return "centre" if middle > 0.6 else "across"


def _clauses(layout: SceneLayout) -> list[str]:
    shares: Mapping[str, float] = composition(layout)
    ranked = sorted(shares, key=lambda name: -shares[name])
    clauses = []
    if layout.classes is not None and ranked:
        places = (
            f"{_PLURALS[name]} {_where(layout.classes[CLASSES.index(name)])}" for name in ranked[:4]
        )
        clauses.append(", ".join(places))
        sharp = [_PLURALS[name] for name in ranked if name in _SHARP][:2]
        if sharp:
            clauses.append(f"sharp edges on {' and '.join(sharp)}")
        smooth = [_PLURALS[name] for name in ranked if name in _SMOOTH][:1]
        if smooth:
            clauses.append(f"smooth {smooth[0]}")
        if any(name in ranked for name in _TEXTURED):
            clauses.append("fine leaf texture")
    top = _colour_name(layout.colours[:, :2].mean(axis=(1, 2)))
    bottom = _colour_name(layout.colours[:, 2:].mean(axis=(1, 2)))
    tones = f"{top} throughout" if top == bottom else f"{top} above, {bottom} below"
    if layout.classes is None:
        clauses.append(f"subject tones {tones}")
        clauses.append(f"most fine detail {_where(layout.detail)}")
        smoothest = np.zeros_like(layout.detail)
        smoothest[np.unravel_index(int(layout.detail.argmin()), layout.detail.shape)] = 1.0
        clauses.append(f"smoothest part {_where(smoothest)}")
    else:
        clauses.append(tones)
    return clauses


def describe(layout: SceneLayout) -> str:
    """A description that keeps the rule: whole clauses in order of weight, at most 30 words."""
    text = ""
    for clause in _clauses(layout):
        longer = f"{text}; {clause}" if text else clause
        if len(longer.split()) > WORD_LIMIT:
            continue
        text = longer
    return check_scene(f"{text[:1].upper()}{text[1:]}.")
