from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from rirf_training.losses import laplace_nll, masked_l1, ssim


def crops() -> list[np.ndarray]:
    photos = (data.astronaut(), data.coffee(), data.chelsea())
    return [photo[60:125, 100:181].astype(np.float32) / 255 for photo in photos]


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.2])
def test_ssim_is_the_metric(sigma: float) -> None:
    rng = np.random.default_rng(0)
    clean = crops()
    noisy = [np.clip(c + rng.normal(0, sigma, c.shape), 0, 1).astype(np.float32) for c in clean]
    expected = [
        structural_similarity(a, b, win_size=7, channel_axis=-1, data_range=1.0)
        for a, b in zip(clean, noisy, strict=True)
    ]
    a, b = (torch.from_numpy(np.stack(x).transpose(0, 3, 1, 2)) for x in (clean, noisy))
    assert float(ssim(a, b)) == pytest.approx(np.mean(expected), abs=1e-5)


def test_ssim_in_half_precision_is_computed_in_full() -> None:
    a, b = (torch.from_numpy(c.transpose(2, 0, 1)[None]) for c in crops()[:2])
    half = ssim(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(ssim(a.bfloat16().float(), b.bfloat16().float())))


def test_ssim_has_a_gradient_that_leads_up() -> None:
    clean = torch.from_numpy(crops()[0].transpose(2, 0, 1)[None])
    guess = torch.full_like(clean, 0.5).requires_grad_()
    before = ssim(guess, clean)
    (gradient,) = torch.autograd.grad(before, guess)
    assert torch.isfinite(gradient).all()
    better = ssim(guess.detach() + 0.01 * gradient.sign(), clean)
    assert float(better) > float(before.detach()) + 0.01


def test_masked_l1_counts_the_masked_samples_alone() -> None:
    prediction = torch.tensor([[1.0, 3.0], [0.0, 0.0], [5.0, 5.0]])
    target = torch.zeros(3, 2)
    mask = torch.tensor([1.0, 1.0, 0.0])
    assert float(masked_l1(prediction, target, mask)) == pytest.approx((2.0 + 0.0) / 2)
    assert float(masked_l1(prediction, target, torch.zeros(3))) == 0.0


def test_laplace_nll_is_the_likelihood() -> None:
    mean = torch.tensor([[0.2, 0.5], [0.9, 0.1]])
    target = torch.tensor([[0.3, 0.1], [0.9, 0.6]])
    scale = torch.tensor([[0.1, 0.5], [2.0, 0.05]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    density = torch.distributions.Laplace(mean, scale).log_prob(target)  # type: ignore[no-untyped-call]  # torch ships no type for it
    # Up to the constant log 2 of the density.
    expected = float((-(density + math.log(2)) * mask).sum() / 3)
    assert float(laplace_nll(mean, scale.log(), target, mask)) == pytest.approx(expected, abs=1e-5)


def test_laplace_nll_is_least_at_the_mean_error() -> None:
    error = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    logs = torch.linspace(-4, 0, 401)
    values = [
        float(laplace_nll(torch.zeros(1, 4), log.expand(1, 4), error, torch.ones(1, 4)))
        for log in logs
    ]
    assert float(logs[int(np.argmin(values))].exp()) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("log_scale", [-1e4, 1e4])
def test_laplace_nll_stays_finite(log_scale: float) -> None:
    scale = torch.full((2, 4), log_scale, requires_grad=True)
    loss = laplace_nll(torch.zeros(2, 4), scale, torch.ones(2, 4), torch.ones(2, 4))
    assert math.isfinite(float(loss.detach()))
    nobody = laplace_nll(torch.zeros(2, 4), scale, torch.ones(2, 4), torch.zeros(2, 4))
    assert float(nobody.detach()) == 0.0
