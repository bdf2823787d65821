"""Runs the restorer graph over a frame: tiles, physics maps, steps, blending.

Takes a frame and a reading, gives back a frame of the same size. Knows no reasoner and no policy.
What is done to pixels around the graph, ``rirf_kernels`` does where it is installed; the NumPy code
here is its twin, equal to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf import conditioning
from rirf.diagnosis import Diagnosis
from rirf.engine.base import Engine
from rirf.native import kernels
from rirf.reasoner import Reading, flat_transmission
from rirf.tiles import Span, spans

__all__ = ["OVERLAP", "TILE", "full_transmission", "restore"]

TILE = 1024
OVERLAP = 64


def full_transmission(reading: Reading, height: int, width: int) -> NDArray[np.float32]:
    """The reading's transmission at frame size, float32 (H, W); 1 without fog or diagnosis."""
    coarse = reading.transmission
    if coarse is None or reading.diagnosis is None:
        coarse = flat_transmission(reading.diagnosis)
    if coarse.shape == (1, 1):
        return np.full((height, width), coarse[0, 0], dtype=np.float32)
    resized = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def _padded(array: NDArray[Any], multiple: int) -> NDArray[Any]:
    """Mirror an image or map out at the bottom and right to multiples of ``multiple``."""
    bottom, right = (-size % multiple for size in array.shape[:2])
    if not (bottom or right):
        return array
    return np.asarray(cv2.copyMakeBorder(array, 0, bottom, 0, right, cv2.BORDER_REFLECT_101))


def _blob(window: NDArray[np.uint8], multiple: int) -> NDArray[np.float32]:
    """uint8 BGR (H, W, 3) to float32 RGB (1, 3, H', W') in [0, 1], mirrored out to multiples."""
    native = kernels()
    if native is None:
        return _blob_numpy(_padded(window, multiple))
    height, width = (size + -size % multiple for size in window.shape[:2])
    blob: NDArray[np.float32] = native.frame_to_planes(window, height=height, width=width)
    return blob


def _blob_numpy(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 BGR (H, W, 3) to float32 RGB (1, 3, H, W) in [0, 1]."""
    blob = np.empty((1, 3, *tile.shape[:2]), dtype=np.float32)
    for target, plane in zip(blob[0], reversed(cv2.split(tile)), strict=True):
        np.multiply(plane, np.float32(1.0 / 255.0), out=target)
    return blob


def _frame(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 RGB (3, H, W), any range, to uint8 BGR (H, W, 3); may overwrite its argument."""
    native = kernels()
    if native is None:
        return _frame_numpy(planes)
    frame: NDArray[np.uint8] = native.planes_to_frame(planes)
    return frame


def _frame_numpy(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 RGB (3, H, W), any range, to uint8 BGR (H, W, 3); overwrites its argument."""
    np.clip(planes, 0.0, 1.0, out=planes)
    planes *= np.float32(255.0)
    planes += np.float32(0.5)
    merged = cv2.merge([plane.astype(np.uint8) for plane in planes[::-1]])
    return np.asarray(merged, dtype=np.uint8)


def _blend(tile: NDArray[np.float32], row: Span, column: Span, sums: NDArray[np.float32]) -> None:
    """Add a tile (3, h, w), clipped and weighed, to ``sums`` (3, h, w); may overwrite the tile."""
    native = kernels()
    if native is None:
        _blend_numpy(tile, row.weights, column.weights, sums)
    else:
        native.blend_tile(tile, row.weights, column.weights, sums)


def _blend_numpy(
    tile: NDArray[np.float32],
    row_weights: NDArray[np.float32],
    column_weights: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None:
    """Add clip(tile, 0, 1), weighed by rows and columns, to ``sums``; overwrites the tile."""
    np.clip(tile, 0.0, 1.0, out=tile)
    tile *= row_weights[:, None]
    tile *= column_weights
    sums += tile


def restore(
    engine: Engine,
    frame: NDArray[np.uint8],
    diagnosis: Diagnosis | None,
    transmission: NDArray[np.float32],
    schedule: Sequence[tuple[float, float]],
    *,
    multiple: int,
    tile: int = TILE,
    overlap: int = OVERLAP,
) -> NDArray[np.uint8]:
    """Restore a frame.

    Args:
        engine: the restorer graph (see ``rirf_training.networks.restorer`` for its signature).
        frame: uint8 BGR (H, W, 3).
        diagnosis: what to restore with, None for nothing.
        transmission: float32 (H, W), see :func:`full_transmission`.
        schedule: (time, step) pairs to run.
        multiple: what the graph's H and W must be multiples of.
        tile: largest tile side, in pixels.
        overlap: pixels that neighbouring tiles share at least.
    """
    height, width = frame.shape[:2]
    condition = conditioning.encode(diagnosis)[None]
    rows = spans(height, tile, overlap, multiple)
    columns = spans(width, tile, overlap, multiple)
    whole = len(rows) == len(columns) == 1
    blended = None if whole else np.zeros((3, height, width), dtype=np.float32)
    for row in rows:
        for column in columns:
            window = np.s_[row.start : row.stop, column.start : column.stop]
            state = degraded = _blob(frame[window], multiple)
            local = np.ascontiguousarray(_padded(transmission[window], multiple))[None, None]
            for time, step in schedule:
                update = engine.run(
                    {
                        "degraded": degraded,
                        "state": state,
                        "transmission": local,
                        "condition": condition,
                        "time": np.array([time], dtype=np.float32),
                        "step": np.array([step], dtype=np.float32),
                    }
                )["update"]
                update *= np.float32(step)
                update += state
                state = update
            result = state[0, :, : row.stop - row.start, : column.stop - column.start]
            if blended is None:
                return _frame(result)
            _blend(result, row, column, blended[:, window[0], window[1]])
    if blended is None:
        raise AssertionError("a frame has at least one tile")
    return _frame(blended)
