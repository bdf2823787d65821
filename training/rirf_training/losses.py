"""Losses of the edge pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "PIXEL_LOSSES",
    "charbonnier",
    "frequency",
    "laplace_nll",
    "log_error",
    "masked_l1",
    "ssim",
]

_WINDOW = 7
_C1 = 0.01**2
_C2 = 0.03**2
_CHARBONNIER = 1e-3
_LOG_FLOOR = 1e-5  # of a squared error: beyond 50 dB nothing is to be gained
_LOG_WEIGHT = 0.1  # a decibel weighs a hundredth, about what it weighs in the other losses


def ssim(a: Tensor, b: Tensor, stride: int = 1) -> Tensor:
    """Mean structural similarity of (B, C, H, W) in [0, 1]: 7x7 uniform windows that lie inside.

    Every window counts with a stride of 1, every ninth with one of 3: windows overlap by far, so
    the mean is nearly the same, and with its gradient it takes a tenth of the time.

    Same constants and window as the evaluation's metric. Source: Wang et al., "Image Quality
    Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    a, b = a.float(), b.float()
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, stride=stride)

    mean_a, mean_b = mean(a), mean(b)
    var_a = unbiased * (mean(a * a) - mean_a * mean_a)
    var_b = unbiased * (mean(b * b) - mean_b * mean_b)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return (luminance * structure).mean()


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the samples where mask (B,) is 1; 0 if there are none."""
    error = (prediction - target).abs().flatten(1).mean(dim=1)
    return (error * mask).sum() / mask.sum().clamp(min=1.0)


def laplace_nll(mean: Tensor, log_scale: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Laplace negative log-likelihood |s - mean| / b + log b, masked mean over (B, N)."""
    log_scale = log_scale.float().clamp(-7.0, 2.0)
    loss = (target - mean.float()).abs() * torch.exp(-log_scale) + log_scale
    return (loss * mask).sum() / mask.sum().clamp(min=1.0)


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + e^2): an absolute error that is smooth at zero.

    Source: Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for
    computed imaging", ICIP 1994.
    """
    return ((a - b) ** 2 + _CHARBONNIER**2).sqrt().mean()


def log_error(a: Tensor, b: Tensor) -> Tensor:
    """0.1 log10 of the mean squared error of each sample (B, ...); their mean."""
    error = ((a.float() - b.float()) ** 2).flatten(1).mean(dim=1)
    return _LOG_WEIGHT * torch.log10(error + _LOG_FLOOR).mean()


def frequency(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the two-dimensional spectra of (B, C, H, W), orthonormal."""
    difference = torch.fft.rfft2(a.float() - b.float(), norm="ortho")
    distance: Tensor = difference.abs().mean()
    return distance


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).mean()


# By the names a configuration has for them.
PIXEL_LOSSES = {"l1": _l1, "charbonnier": charbonnier, "mse": _mse, "log": log_error}
