"""Overlapping tiles with weights that add up to one everywhere: no seams, bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Span", "spans"]


@dataclass(frozen=True)
class Span:
    """One tile along one axis: pixels ``start .. stop`` and their blending weights."""

    start: int
    stop: int
    weights: NDArray[np.float32]


def spans(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Cover an axis with tiles.

    Args:
        length: size of the axis, in pixels.
        tile: largest tile, a multiple of ``multiple``.
        overlap: pixels two neighbours share at least.
        multiple: tiles start at multiples of this, so that strided convolutions see the same grid
            as on the whole frame.

    Returns:
        Spans in order. Weights ramp linearly over the middle half of each overlap and sum to 1 at
        every pixel.

    Raises:
        ValueError: the sizes cannot tile an axis.
    """
    if length < 1 or tile % multiple or not 0 <= overlap <= tile - multiple:
        raise ValueError(
            f"cannot cover {length} pixels by tiles of {tile} overlapping by {overlap} "
            f"at multiples of {multiple}"
        )
    if length <= tile:
        return [Span(0, length, np.ones(length, dtype=np.float32))]
    # In units of the grid: where the last tile starts, rounded up so that it is no larger than the
    # others, and how far apart two starts may be.
    last = -(-(length - tile) // multiple)
    count = 1 - (-last // ((tile - overlap) // multiple))
    # Evenly spread, rounded down to the grid; the last tile ends at the frame's edge.
    starts = [last * k // (count - 1) * multiple for k in range(count)]
    stops = [start + tile for start in starts[:-1]] + [length]
    found = []
    for k in range(count):
        weights = np.ones(stops[k] - starts[k], dtype=np.float32)
        if k > 0:
            shared = stops[k - 1] - starts[k]
            weights[:shared] = _ramp(shared)
        if k + 1 < count:
            shared = stops[k] - starts[k + 1]
            weights[len(weights) - shared :] -= _ramp(shared)
        found.append(Span(starts[k], stops[k], weights))
    return found


def _ramp(size: int) -> NDArray[np.float32]:
    """Weights from 0 to 1 over an overlap, symmetric about its middle.

    Only the middle half ramps: the pixels next to a tile's edge, which the network computed without
    their surroundings, count nothing.
    """
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    ramp: NDArray[np.float32] = np.clip(np.float32(2.0) * place - np.float32(0.5), 0.0, 1.0)
    return ramp
