"""PSNR and SSIM as scikit-image defines them, on frames as they leave the pipeline.

RGB, float in [0, 1], data range 1, SSIM with scikit-image's default 7 x 7 window over all three
channels. Knows nothing of degradations or pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf.errors import ImageError, require
from rirf.images import to_float

__all__ = ["PSNR_CEILING", "Figures", "average", "measure", "scikit_image"]

# Identical frames have no finite PSNR. At the protocol's frame sizes another one only reaches this
# by differing in one or two values by a single grey level: no figure that means anything changes.
PSNR_CEILING = 100.0


@dataclass(frozen=True)
class Figures:
    """PSNR in dB (at most 100, the value of identical frames) and SSIM."""

    psnr: float
    ssim: float

    def to_dict(self) -> dict[str, float]:
        """``{"psnr": ..., "ssim": ...}``, rounded to 0.0001."""
        return {"psnr": round(self.psnr, 4), "ssim": round(self.ssim, 4)}


def scikit_image() -> Any:
    """``skimage.metrics``, or an error that names the extra.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    return require("skimage.metrics", "eval", "compute PSNR and SSIM")


def measure(frame: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Figures:
    """Figures of a uint8 BGR frame (H, W, 3) against the clean one of the same size.

    Raises:
        ImageError: the two differ in size or type.
        MissingExtraError: scikit-image is not installed.
    """
    metrics = scikit_image()
    if frame.shape != truth.shape or frame.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ImageError(
            f"got {frame.dtype} {frame.shape} to compare with {truth.dtype} {truth.shape}; "
            "expected two uint8 BGR frames of one size"
        )
    ours, theirs = to_float(frame), to_float(truth)
    if np.array_equal(frame, truth):
        return Figures(psnr=PSNR_CEILING, ssim=1.0)
    psnr = float(metrics.peak_signal_noise_ratio(theirs, ours, data_range=1.0))
    ssim = float(metrics.structural_similarity(theirs, ours, data_range=1.0, channel_axis=2))
    return Figures(psnr=min(PSNR_CEILING, psnr), ssim=ssim)


def average(figures: Iterable[Figures]) -> Figures:
    """Mean of PSNR (in dB, as published tables do) and of SSIM, over at least one pair."""
    pairs = np.array([(each.psnr, each.ssim) for each in figures], dtype=np.float64)
    psnr, ssim = pairs.mean(axis=0)
    return Figures(psnr=float(psnr), ssim=float(ssim))
