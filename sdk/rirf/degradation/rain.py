"""Rain: sparse seeds elongated into slanted streaks, added in the atmospheric colour.

Source: R&R (arXiv 2604.09511), appendix A.2. A seed is a pixel whose uniform number falls below the
density; each seed stamps one streak, stamps add up and saturate at 1. A stamp's values are whole
multiples of 2**-16, so that a sum of stamps is exact in any order and a mask is the same to the bit
wherever it is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage, Stream, uniforms

__all__ = [
    "COVERAGE_THRESHOLD",
    "RainParameters",
    "apply",
    "coverage",
    "mask",
    "sample",
    "severity",
    "stamp",
]

DENSITY_RANGE = (5e-4, 1e-2)
SLANT_RANGE_DEG = (-30.0, 30.0)
LENGTH_RANGE_PX = (15.0, 60.0)
WIDTH_RANGE_PX = (1.0, 3.0)
OPACITY_RANGE = (0.4, 0.9)
COVERAGE_THRESHOLD = 0.1
# Share of a streak's length over which each of its ends fades out.
_FADE = 0.25
# Stamp values are multiples of 1 / _LEVELS.
_LEVELS = 65536.0
# Stamped values held at a time: what a band of seeds needs stays near 16 MB for any frame.
_BAND = 1 << 20
# Stamped values a pixel from which one convolution is faster than stamping seed by seed.
_DENSE = 8


@dataclass(frozen=True)
class RainParameters:
    """Seeds a pixel, slant from the vertical (positive leans right going down), size, opacity."""

    density: float
    slant_deg: float
    length_px: float
    width_px: float
    opacity: float


def sample(seed: int) -> RainParameters:
    """Draw all five parameters uniformly from their ranges."""
    draws = ParameterDraws(seed, Stage.RAIN)
    return RainParameters(
        density=draws.uniform(0, *DENSITY_RANGE),
        slant_deg=draws.uniform(1, *SLANT_RANGE_DEG),
        length_px=draws.uniform(2, *LENGTH_RANGE_PX),
        width_px=draws.uniform(3, *WIDTH_RANGE_PX),
        opacity=draws.uniform(4, *OPACITY_RANGE),
    )


def stamp(parameters: RainParameters) -> NDArray[np.float32]:
    """One streak centred in an odd-sized float32 window, peak at most 1, antialiased across.

    Values are rounded (half to even) to multiples of 2**-16.
    """
    angle = math.radians(parameters.slant_deg)
    along_x, along_y = math.sin(angle), math.cos(angle)
    half_length, half_width = parameters.length_px / 2, parameters.width_px / 2
    reach_y = math.ceil(half_length * along_y + half_width * abs(along_x) + 1)
    reach_x = math.ceil(half_length * abs(along_x) + half_width * along_y + 1)
    y, x = np.mgrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1].astype(np.float64)
    along = np.abs(x * along_x + y * along_y)
    across = np.abs(x * along_y - y * along_x)
    profile = np.clip((half_length - along) / (_FADE * parameters.length_px), 0.0, 1.0)
    streak = (profile * np.clip(half_width + 0.5 - across, 0.0, 1.0)).astype(np.float32)
    levels: NDArray[np.float32] = np.rint(streak * np.float32(_LEVELS)) / np.float32(_LEVELS)
    return levels


def _splat(
    seeds: NDArray[np.int64], levels: NDArray[np.float64], rows: int, columns: int
) -> NDArray[np.float64]:
    """Sum of a stamp at each seed, in whole levels.

    Args:
        seeds: sorted flat places on the grid (rows, columns), each of a stamp's top left corner.
        levels: the stamp.

    Returns:
        (rows + stamp rows - 1, columns + stamp columns - 1).
    """
    height, width = rows + levels.shape[0] - 1, columns + levels.shape[1] - 1
    canvas = np.zeros(height * width)
    taps = np.argwhere(levels > 0.0) @ np.array([width, 1])
    weights = levels[levels > 0.0]
    corners = seeds // columns * width + seeds % columns
    band = max(1, _BAND // max(1, taps.size))
    for start in range(0, corners.size, band):
        some = corners[start : start + band]
        first, last = int(some[0] + taps[0]), int(some[-1] + taps[-1])
        places = (some - first)[:, None] + taps
        values = np.broadcast_to(weights, places.shape)
        canvas[first : last + 1] += np.bincount(places.ravel(), values.ravel())
    return canvas.reshape(height, width)


def _convolve(
    seeds: NDArray[np.int64], levels: NDArray[np.float64], rows: int, columns: int
) -> NDArray[np.float64]:
    """What :func:`_splat` gives, by a convolution: its cost does not grow with the seeds."""
    pad_y, pad_x = levels.shape[0] - 1, levels.shape[1] - 1
    grid = np.zeros((rows + pad_y, columns + pad_x))
    grid[seeds // columns + pad_y // 2, seeds % columns + pad_x // 2] = 1.0
    flipped = np.ascontiguousarray(levels[::-1, ::-1])
    sums = cv2.filter2D(grid, -1, flipped, borderType=cv2.BORDER_CONSTANT)
    # In float64 the discrete Fourier path is wrong by far less than half a level.
    return np.rint(sums)


def mask(seed: int, parameters: RainParameters, height: int, width: int) -> NDArray[np.float32]:
    """Streak mask M in [0, 1], float32 (H, W), in multiples of 2**-16.

    Seeds are drawn on a grid that reaches half a streak beyond the frame, so that streaks enter
    from outside; the number of a seed is its place on that grid, row by row.
    """
    levels = stamp(parameters).astype(np.float64) * _LEVELS
    pad_y, pad_x = levels.shape[0] // 2, levels.shape[1] // 2
    rows, columns = height + 2 * pad_y, width + 2 * pad_x
    numbers = uniforms(seed, Stage.RAIN, Stream.FIELD, rows * columns)
    seeds = np.flatnonzero(numbers < np.float32(parameters.density))
    dense = seeds.size * np.count_nonzero(levels) > _DENSE * rows * columns
    sums = (_convolve if dense else _splat)(seeds, levels, rows, columns)
    # A stamp's middle lies half a stamp from its corner, the frame half a stamp inside the grid.
    inside = sums[2 * pad_y : 2 * pad_y + height, 2 * pad_x : 2 * pad_x + width]
    return (np.minimum(inside, _LEVELS) / _LEVELS).astype(np.float32)


def apply(
    image: NDArray[np.float32],
    streaks: NDArray[np.float32],
    parameters: RainParameters,
    colour: tuple[float, float, float],
) -> NDArray[np.float32]:
    """I + opacity * M * colour for float32 RGB (H, W, 3); not clipped, as in Eq. 1."""
    layer = (np.float32(parameters.opacity) * streaks)[..., None]
    return image + layer * np.asarray(colour, dtype=np.float32)


def coverage(streaks: NDArray[np.float32]) -> float:
    """Share of pixels with M > 0.1."""
    return float(np.mean(streaks > COVERAGE_THRESHOLD))


def severity(covered: float) -> float:
    """Score covered * 99 + 1, in [1, 100]."""
    return min(100.0, max(1.0, covered * 99.0 + 1.0))
