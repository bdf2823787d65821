"""Noise: signal-dependent Gaussian, sigma(x) = |k x + b| with x in [0, 255].

Source: R&R (arXiv 2604.09511), appendix A.2. Where k x + b is negative its magnitude is used, which
has the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage, Stream, normals

__all__ = ["NoiseParameters", "apply", "sample", "severity", "sigma", "variance"]

GAIN_RANGE = (0.0, 0.3)
OFFSET_RANGE = (-20.0, 20.0)
VARIANCE_MAX = 0.05


@dataclass(frozen=True)
class NoiseParameters:
    """sigma(x) = |gain * x + offset|, x and sigma in grey levels of 0..255."""

    gain: float
    offset: float


def sample(seed: int) -> NoiseParameters:
    """Draw k ~ U(0, 0.3) and b ~ U(-20, 20)."""
    draws = ParameterDraws(seed, Stage.NOISE)
    return NoiseParameters(
        gain=draws.uniform(0, *GAIN_RANGE), offset=draws.uniform(1, *OFFSET_RANGE)
    )


def sigma(image: NDArray[np.float32], parameters: NoiseParameters) -> NDArray[np.float32]:
    """Standard deviation a pixel and channel in units of [0, 1], shape of ``image``."""
    level = np.clip(image, np.float32(0.0), np.float32(1.0))
    offset = np.float32(parameters.offset / 255.0)
    deviation: NDArray[np.float32] = np.abs(np.float32(parameters.gain) * level + offset)
    return deviation


def apply(
    image: NDArray[np.float32], seed: int, deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """I + n sigma, n standard normal numbered in row, column, channel order; not clipped."""
    field = normals(seed, Stage.NOISE, Stream.FIELD, image.size).reshape(image.shape)
    return image + field * deviation


def variance(deviation: NDArray[np.float32]) -> float:
    """Mean normalised variance, mean(sigma ** 2) in units of [0, 1] squared."""
    return float(np.mean(np.square(deviation, dtype=np.float64)))


def severity(mean_variance: float) -> float:
    """clip(v / 0.05 * 99 + 1, 1, 100)."""
    return min(100.0, max(1.0, mean_variance / VARIANCE_MAX * 99.0 + 1.0))
