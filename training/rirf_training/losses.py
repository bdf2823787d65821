"""Losses of the edge pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["laplace_nll", "masked_l1", "ssim"]

_WINDOW = 7
_C1 = 0.01**2
_C2 = 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of (B, C, H, W) in [0, 1]: 7x7 uniform windows that lie inside.

    Same constants and window as the evaluation's metric. Source: Wang et al., "Image Quality
    Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    a, b = a.float(), b.float()
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, stride=1)

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
