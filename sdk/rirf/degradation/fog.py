"""Fog: atmospheric scattering I = J t + A (1 - t) with a spatial transmission map.

Source: R&R (arXiv 2604.09511), appendix A.2. Knows nothing of where the depth prior comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage

__all__ = [
    "BETA_RANGE",
    "TRANSMISSION_FLOOR",
    "FogParameters",
    "apply",
    "invert",
    "sample",
    "sample_atmospheric_light",
    "severity",
    "transmission",
]

TRANSMISSION_FLOOR = 0.05
BETA_RANGE = (0.8, 3.0)
LIGHT_RANGE = (0.7, 1.0)


@dataclass(frozen=True)
class FogParameters:
    """Density exponent ``beta`` (0.8 to 3 when sampled); the light A belongs to the whole frame."""

    beta: float


def sample_atmospheric_light(seed: int) -> tuple[float, float, float]:
    """A in [0.7, 1]^3 (R, G, B). Drawn for every frame, since rain takes its colour from it."""
    draws = ParameterDraws(seed, Stage.FOG)
    red, green, blue = (draws.uniform(slot, *LIGHT_RANGE) for slot in range(3))
    return red, green, blue


def sample(seed: int) -> FogParameters:
    """Draw beta ~ U(0.8, 3)."""
    return FogParameters(beta=ParameterDraws(seed, Stage.FOG).uniform(3, *BETA_RANGE))


def transmission(prior: NDArray[np.float32], parameters: FogParameters) -> NDArray[np.float32]:
    """Transmission clamp(t0 ** beta, 0.05, 1), float32 (H, W), from a prior t0 in (0, 1]."""
    t = np.power(prior, np.float32(parameters.beta), dtype=np.float32)
    return np.clip(t, np.float32(TRANSMISSION_FLOOR), np.float32(1.0))


def apply(
    image: NDArray[np.float32],
    t: NDArray[np.float32],
    light: tuple[float, float, float],
) -> NDArray[np.float32]:
    """I = J t + A (1 - t) for float32 RGB (H, W, 3) and t (H, W)."""
    t3 = t[..., None]
    return image * t3 + np.asarray(light, dtype=np.float32) * (np.float32(1.0) - t3)


def invert(
    image: NDArray[np.float32],
    t: NDArray[np.float32],
    light: tuple[float, float, float],
    floor: float = 0.1,
) -> NDArray[np.float32]:
    """The clean estimate clip((I - A (1 - t)) / max(t, floor), 0, 1); inverse of :func:`apply`."""
    t3 = t[..., None]
    veil = np.asarray(light, dtype=np.float32) * (np.float32(1.0) - t3)
    estimate: NDArray[np.float32] = np.clip(
        (image - veil) / np.maximum(t3, np.float32(floor)), 0.0, 1.0
    )
    return estimate


def severity(transmission_mean: float) -> float:
    """(1 - t_mean) / 0.95 * 99 + 1, in [1, 100]."""
    span = 1.0 - TRANSMISSION_FLOOR
    return min(100.0, max(1.0, (1.0 - transmission_mean) / span * 99.0 + 1.0))
