"""Depth priors: relative maps t0 in (0, 1], near = 1 and far small, for the fog model.

Three sources: a sampled street-like geometry, semantic labels (CamVid's classes), and files (an
estimated or measured depth or transmission map). Every prior is a callable
``prior(seed, height, width) -> float32 (H, W)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage, Stream, uniforms
from rirf.errors import ImageError

__all__ = [
    "DepthPrior",
    "FilePrior",
    "LabelPrior",
    "StandingPrior",
    "geometric",
    "prior_from_depth",
]

DepthPrior: TypeAlias = Callable[[int, int, int], NDArray[np.float32]]

# Relative transmission at the farthest point for beta = 1.
_FAR = 0.2
_NOISE_GRID = (6, 8)
# Standard deviation of the blur that softens the horizon, as a share of the height.
_HORIZON_BLUR = 0.06
_SKY, _ROAD, _PAVEMENT = 0, 3, 4
_CLASSES = 12


def prior_from_depth(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Relative depth in [0, 1] (1 = farthest) to t0 = 1 - 0.8 depth."""
    return np.float32(1.0) - np.float32(1.0 - _FAR) * np.clip(depth, 0.0, 1.0).astype(np.float32)


def _ground(height: int, horizon: float, steepness: float) -> NDArray[np.float32]:
    """Relative depth of a ground plane by row: 1 at and above the horizon, falling towards us."""
    row = (np.arange(height, dtype=np.float32) + 0.5) / height
    below = np.clip((row - horizon) / max(1e-3, 1.0 - horizon), 0.0, 1.0)
    return (1.0 / (1.0 + steepness * below)).astype(np.float32)


def _smooth_field(seed: int, height: int, width: int) -> NDArray[np.float32]:
    grid = uniforms(seed, Stage.DEPTH, Stream.FIELD, _NOISE_GRID[0] * _NOISE_GRID[1])
    field = cv2.resize(grid.reshape(_NOISE_GRID), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(field, 0.0, 1.0).astype(np.float32)


def geometric(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """Sampled geometry: horizon, ground plane, and smooth shapes standing in front of the sky."""
    draws = ParameterDraws(seed, Stage.DEPTH)
    horizon = draws.uniform(0, 0.2, 0.55)
    steepness = draws.uniform(1, 4.0, 12.0)
    relief = draws.uniform(2, 0.2, 0.8)
    field = _smooth_field(seed, height, width)
    plane = _ground(height, horizon, steepness)[:, None]
    above = (np.arange(height)[:, None] + 0.5) / height < horizon
    shapes = np.float32(relief) * np.where(above, field, field * np.float32(0.35))
    depth = (plane * (1.0 - shapes)).astype(np.float32)
    # Depth falls steeply below the horizon. A photograph need not have its horizon there, and a
    # step would draw a line across the fog.
    soft = cv2.GaussianBlur(depth, (0, 0), max(0.5, height * _HORIZON_BLUR))
    return prior_from_depth(np.asarray(soft, dtype=np.float32))


@dataclass(frozen=True)
class StandingPrior:
    """A label prior whose labels have been worked through; only the plane is left to be drawn.

    Args:
        rows: whole numbers (H, W), the row of the ground plane that each pixel is as deep as; H for
            the sky.
        horizon: where ground is first seen, as a share of the height; None where there is none.
    """

    rows: NDArray[np.integer[Any]]
    horizon: float | None

    def __call__(self, seed: int, height: int, width: int) -> NDArray[np.float32]:
        """The prior; it has the labels' own size, which is the frame's."""
        draws = ParameterDraws(seed, Stage.DEPTH)
        horizon = draws.uniform(0, 0.3, 0.5) if self.horizon is None else self.horizon
        plane = _ground(self.rows.shape[0], min(horizon, 0.9), draws.uniform(1, 4.0, 12.0))
        depth = np.append(plane, np.float32(1.0))[self.rows]
        # Label borders are jagged and depth is not constant inside an object.
        depth = np.asarray(cv2.GaussianBlur(depth, (0, 0), max(depth.shape) / 160.0))
        texture = 0.9 + 0.1 * _smooth_field(seed, *depth.shape)
        return prior_from_depth((depth * texture).astype(np.float32))


@dataclass(frozen=True)
class LabelPrior:
    """Depth from a label map: sky far, ground a plane, objects as deep as where they stand.

    Args:
        labels: uint8 (H, W), CamVid's class indices 0 to 11 (see ``rirf.scene.CLASSES``).
    """

    labels: NDArray[np.uint8]

    @classmethod
    def from_file(cls, path: Path) -> LabelPrior:
        """Read an 8-bit single-channel PNG of class indices."""
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
            raise ImageError(
                f"{path}: expected an 8-bit single-channel PNG of class indices 0..11, "
                f"got {'nothing readable' if labels is None else (labels.dtype, labels.shape)}"
            )
        if labels.size and labels.max() >= _CLASSES:
            raise ImageError(
                f"{path}: holds the class {labels.max()}; expected 0 to {_CLASSES - 2}, or "
                f"{_CLASSES - 1} for unlabelled"
            )
        return cls(labels.astype(np.uint8))

    def standing(self) -> StandingPrior:
        """The part that needs no seed and takes most of the time, for labels used many times."""
        labels = self.labels
        height, width = labels.shape
        ground = (labels == _ROAD) | (labels == _PAVEMENT)
        seen = np.flatnonzero(ground.any(axis=1))
        rows = np.repeat(np.arange(height)[:, None], width, axis=1)
        for index in range(_CLASSES):
            if index in (_SKY, _ROAD, _PAVEMENT):
                continue
            region = (labels == index).astype(np.uint8)
            count, parts, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
            if count <= 1:
                continue
            # The lowest row of a part is where it touches the ground.
            foot = stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT] - 1
            inside = region.astype(bool)
            rows[inside] = np.clip(foot, 0, height - 1)[parts[inside]]
        rows[labels == _SKY] = height
        return StandingPrior(rows, float(seen[0] / height) if seen.size else None)

    def __call__(self, seed: int, height: int, width: int) -> NDArray[np.float32]:
        """The prior of a frame of this size; labels of another size are resized to it."""
        labels = cv2.resize(self.labels, (width, height), interpolation=cv2.INTER_NEAREST)
        standing = LabelPrior(np.asarray(labels, dtype=np.uint8)).standing()
        return standing(seed, height, width)


@dataclass(frozen=True)
class FilePrior:
    """A precomputed map, resized to the frame.

    Args:
        values: float32 (h, w), finite and non-negative.
        kind: ``"depth"`` (larger is farther, any scale: the 99th percentile becomes the farthest
            point) or ``"transmission"`` (t0 itself, in (0, 1]).
    """

    values: NDArray[np.float32]
    kind: Literal["depth", "transmission"] = "depth"

    @classmethod
    def from_file(cls, path: Path, kind: Literal["depth", "transmission"] = "depth") -> FilePrior:
        """Read ``.npy`` (any float) or a single-channel 8- or 16-bit PNG (scaled to [0, 1])."""
        try:
            if path.suffix == ".npy":
                loaded = np.load(path, allow_pickle=False)
                if not isinstance(loaded, np.ndarray):
                    raise ValueError("an archive of arrays, expected one array")
                values = loaded.astype(np.float32)
            else:
                raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                if raw is None:
                    raise ImageError(f"{path}: cannot be read as an image or .npy file")
                top = 2.0 ** (8 * raw.dtype.itemsize) - 1.0 if raw.dtype.kind == "u" else 1.0
                values = raw.astype(np.float32) / np.float32(top)
        except (EOFError, OSError, ValueError, TypeError) as error:
            raise ImageError(f"{path}: cannot be read as a depth map: {error}") from error
        if values.ndim != 2 or values.size == 0:
            raise ImageError(f"{path}: expected one channel (H, W), got shape {values.shape}")
        if not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
            raise ImageError(f"{path}: expected finite values >= 0 with some > 0")
        return cls(values, kind)

    def __call__(self, seed: int, height: int, width: int) -> NDArray[np.float32]:
        """The prior of a frame of this size; the seed is not used."""
        resized = cv2.resize(self.values, (width, height), interpolation=cv2.INTER_LINEAR)
        values = np.asarray(resized, dtype=np.float32)
        if self.kind == "transmission":
            return np.clip(values, np.float32(1e-3), np.float32(1.0))
        far = max(float(np.percentile(values, 99)), 1e-6)
        return prior_from_depth(values / np.float32(far))
