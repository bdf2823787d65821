"""What the reasoner looks at: an area-averaged thumbnail and crops at native resolution.

Fog, light and scene show in a thumbnail; noise and blur vanish there, so crops keep single pixels:
the flattest places (noise), the most structured ones (blur), and a regular grid (rain). Training
and runtime share this code, so that the reasoner never sees a view it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["CROPS", "CROP_SIZE", "THUMBNAIL_SIZE", "Views", "extract"]

THUMBNAIL_SIZE = 256
CROP_SIZE = 96
_FLATTEST = 2
_MOST_TEXTURED = 2
_GRID = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
CROPS = _FLATTEST + _MOST_TEXTURED + len(_GRID)
# Candidate crop positions per axis when looking for the flattest and the most textured.
_CANDIDATES = 8


@dataclass(frozen=True)
class Views:
    """RGB in [0, 1]: thumbnail float32 (3, 256, 256), crops float32 (8, 3, 96, 96)."""

    thumbnail: NDArray[np.float32]
    crops: NDArray[np.float32]


def _texture(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    """Local structure (256, 256): spread of grey about its surroundings, robust to pixel noise."""
    grey = cv2.blur(thumbnail.mean(axis=2), (5, 5))
    structure: NDArray[np.float32] = np.abs(grey - cv2.blur(grey, (15, 15))).astype(np.float32)
    return structure


def _distinct(order: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """The first ``count`` candidates in order that are no neighbours of one taken before."""
    taken: list[tuple[int, int]] = []
    for flat in order:
        row, column = divmod(int(flat), _CANDIDATES)
        if all(max(abs(row - r), abs(column - c)) > 1 for r, c in taken):
            taken.append((row, column))
            if len(taken) == count:
                break
    return taken


def _corners(texture: NDArray[np.float32], height: int, width: int) -> list[tuple[int, int]]:
    """Top-left corners of all crops, in pixels of the (padded) frame, in a fixed order."""
    rows = np.linspace(0, height - CROP_SIZE, _CANDIDATES).round().astype(int)
    columns = np.linspace(0, width - CROP_SIZE, _CANDIDATES).round().astype(int)
    # Mean structure inside each candidate crop, read from the thumbnail by an integral image.
    integral = cv2.integral(texture)
    scale_y, scale_x = THUMBNAIL_SIZE / height, THUMBNAIL_SIZE / width
    top = np.clip((rows * scale_y).astype(int), 0, THUMBNAIL_SIZE - 1)
    left = np.clip((columns * scale_x).astype(int), 0, THUMBNAIL_SIZE - 1)
    bottom = np.clip(((rows + CROP_SIZE) * scale_y).astype(int), top + 1, THUMBNAIL_SIZE)
    right = np.clip(((columns + CROP_SIZE) * scale_x).astype(int), left + 1, THUMBNAIL_SIZE)
    sums = (
        integral[np.ix_(bottom, right)]
        - integral[np.ix_(top, right)]
        - integral[np.ix_(bottom, left)]
        + integral[np.ix_(top, left)]
    )
    area = (bottom - top)[:, None] * (right - left)[None, :]
    order = np.argsort((sums / area).ravel(), kind="stable")
    picks = _distinct(order, _FLATTEST) + _distinct(order[::-1], _MOST_TEXTURED)
    corners = [(int(rows[r]), int(columns[c])) for r, c in picks]
    corners += [(round(y * (height - CROP_SIZE)), round(x * (width - CROP_SIZE))) for y, x in _GRID]
    return corners


def extract(frame: NDArray[np.uint8]) -> Views:
    """Views of a uint8 BGR frame (H, W, 3) of any size; frames under 96 pixels are mirrored out."""
    height, width = frame.shape[:2]
    pad_y, pad_x = max(0, CROP_SIZE - height), max(0, CROP_SIZE - width)
    padded = frame
    if pad_y or pad_x:
        padded = np.asarray(
            cv2.copyMakeBorder(frame, 0, pad_y, 0, pad_x, cv2.BORDER_REFLECT_101), dtype=np.uint8
        )
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    shrinks = height >= THUMBNAIL_SIZE and width >= THUMBNAIL_SIZE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(padded, size, interpolation=method))
    small = small[..., ::-1].astype(np.float32) * np.float32(1.0 / 255.0)
    corners = _corners(_texture(small), padded.shape[0], padded.shape[1])
    crops = np.stack([padded[y : y + CROP_SIZE, x : x + CROP_SIZE] for y, x in corners])
    return Views(
        thumbnail=np.ascontiguousarray(small.transpose(2, 0, 1)),
        crops=crops[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32, order="C")
        * np.float32(1.0 / 255.0),
    )
