"""Shake: motion blur by a random-walk point-spread function.

Source: R&R (arXiv 2604.09511), appendix A.2: random number of steps, Gaussian temporal weights that
favour the middle, rasterised, normalised, convolved; direction, length and energy from the second
moments about the kernel's centroid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage, Stream, normals

__all__ = [
    "KERNEL_SIZE",
    "NEUTRAL",
    "KernelMoments",
    "ShakeParameters",
    "apply",
    "kernel",
    "moments",
    "sample",
    "severity",
]

KERNEL_SIZE = 31
RADIUS_MAX = (KERNEL_SIZE - 1) / 2
STEPS_RANGE = (8, 64)
STEP_RANGE_PX = (0.8, 3.2)
# Standard deviation of the temporal weights as a share of the exposure.
EXPOSURE_SIGMA = 0.25
# Points splatted between two trajectory points, so that long steps leave no gaps.
_SUBSTEPS = 4


@dataclass(frozen=True)
class ShakeParameters:
    """Steps of the walk (8 to 64 when sampled) and the size of one.

    ``step_px`` is the standard deviation of a step along each axis, in pixels (0.8 to 3.2 when
    sampled).
    """

    steps: int
    step_px: float


@dataclass(frozen=True)
class KernelMoments:
    """Second moments of a kernel: direction in [0, 180) counter-clockwise from the x axis."""

    direction_deg: float
    length_px: float
    energy: float
    rms_px: float


NEUTRAL = KernelMoments(direction_deg=0.0, length_px=0.0, energy=1.0, rms_px=0.0)
"""The moments of no blur at all."""


def sample(seed: int) -> ShakeParameters:
    """Draw steps ~ U{8..64} and step_px ~ U(0.8, 3.2)."""
    draws = ParameterDraws(seed, Stage.SHAKE)
    return ShakeParameters(
        steps=draws.integer(0, *STEPS_RANGE), step_px=draws.uniform(1, *STEP_RANGE_PX)
    )


def kernel(seed: int, parameters: ShakeParameters) -> NDArray[np.float32]:
    """The point-spread function, float32 (31, 31), sum 1, centroid at its middle.

    A walk that would leave the kernel is shrunk about its centroid until it fits.
    """
    steps = parameters.steps
    walk = normals(seed, Stage.SHAKE, Stream.FIELD, 2 * steps).reshape(steps, 2).astype(np.float64)
    path = np.cumsum(walk * parameters.step_px, axis=0)
    path = np.concatenate([np.zeros((1, 2)), path])
    time = np.linspace(0.0, steps, steps * _SUBSTEPS + 1)
    knots = np.arange(steps + 1)
    points = np.stack([np.interp(time, knots, path[:, axis]) for axis in range(2)], axis=1)
    weights = np.exp(-0.5 * ((time / steps - 0.5) / EXPOSURE_SIGMA) ** 2)
    weights /= weights.sum()
    points -= weights @ points
    # One pixel is left free, because bilinear splatting touches the next pixel too.
    reach = np.abs(points).max()
    if reach > RADIUS_MAX - 1:
        points *= (RADIUS_MAX - 1) / reach
    grid = np.zeros((KERNEL_SIZE, KERNEL_SIZE), dtype=np.float64)
    position = points + RADIUS_MAX
    corner = np.floor(position).astype(np.int64)
    fraction = position - corner
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
            np.add.at(grid, (corner[:, 1] + dy, corner[:, 0] + dx), weights * share)
    psf: NDArray[np.float32] = (grid / grid.sum()).astype(np.float32)
    return psf


def moments(psf: NDArray[np.float32]) -> KernelMoments:
    """Direction, length sqrt(lambda_1), energy ||k||_2 and r_rms about the kernel's centroid."""
    k = psf.astype(np.float64)
    rows, columns = np.mgrid[0 : k.shape[0], 0 : k.shape[1]]
    mass = k.sum()
    dx = columns - (k * columns).sum() / mass
    dy = rows - (k * rows).sum() / mass
    mxx, myy, mxy = (float((k * m).sum() / mass) for m in (dx * dx, dy * dy, dx * dy))
    centre, spread = (mxx + myy) / 2, math.hypot((mxx - myy) / 2, mxy)
    # Image rows grow downwards: the minus sign makes the angle counter-clockwise on the screen.
    direction = math.degrees(0.5 * math.atan2(-2 * mxy, mxx - myy)) % 180.0
    return KernelMoments(
        # A tiny negative angle modulo 180 rounds to 180 itself, which is outside the range.
        direction_deg=direction if direction < 180.0 else 0.0,
        length_px=math.sqrt(max(0.0, centre + spread)),
        energy=float(np.sqrt((k * k).sum())),
        rms_px=math.sqrt(max(0.0, mxx + myy)),
    )


def apply(image: NDArray[np.float32], psf: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve float32 (H, W, 3) with the kernel, mirrored borders (edge pixel not repeated)."""
    used = np.flatnonzero(psf.any(axis=0) | psf.any(axis=1))
    middle = psf.shape[0] // 2
    half = max(1, int(max(middle - used[0], used[-1] - middle)))
    crop = psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
    # filter2D correlates; convolution is correlation with the kernel turned by 180 degrees.
    flipped = np.ascontiguousarray(crop[::-1, ::-1])
    border = cv2.BORDER_REFLECT_101
    return np.asarray(cv2.filter2D(image, -1, flipped, borderType=border), dtype=np.float32)


def severity(rms_px: float) -> float:
    """clip(r_rms / 15 * 99 + 1, 1, 100)."""
    return min(100.0, max(1.0, rms_px / RADIUS_MAX * 99.0 + 1.0))
