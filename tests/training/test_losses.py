from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from rirf_training.config import LossConfig
from rirf_training.losses import (
    PIXEL_LOSSES,
    charbonnier,
    frequency,
    laplace_nll,
    log_error,
    masked_l1,
    ssim,
)


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


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_ssim_of_every_so_many_windows(stride: int) -> None:
    a, b = (torch.from_numpy(c.transpose(2, 0, 1)[None]).double() for c in crops()[:2])
    height, width = a.shape[-2:]
    windows = [
        ssim(a[..., top : top + 7, left : left + 7], b[..., top : top + 7, left : left + 7])
        for top in range(0, height - 6, stride)
        for left in range(0, width - 6, stride)
    ]
    assert float(ssim(a, b, stride=stride)) == pytest.approx(
        float(torch.stack(windows).mean()), abs=1e-5
    )


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


def frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_pixel_losses_by_name() -> None:
    """Every name that a configuration may give, against the formula written out."""
    a, b = frames(2, 3, 8, 10), frames(2, 3, 8, 10, seed=1)
    difference = (a - b).double().numpy()
    squares = [float((d**2).mean()) for d in difference]
    expected = {
        "l1": np.abs(difference).mean(),
        "mse": (difference**2).mean(),
        "charbonnier": np.sqrt(difference**2 + 1e-6).mean(),
        "log": np.mean([0.1 * math.log10(square + 1e-5) for square in squares]),
    }
    assert set(PIXEL_LOSSES) == set(expected)
    assert set(get_args(LossConfig.model_fields["pixel"].annotation)) == set(expected)
    for name, value in expected.items():
        assert float(PIXEL_LOSSES[name](a, b)) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_lead_to_the_target(name: str) -> None:
    target = frames(2, 3, 8, 8)
    guess = (target + 0.1 * frames(2, 3, 8, 8, seed=1)).requires_grad_()
    before = PIXEL_LOSSES[name](guess, target)
    (gradient,) = torch.autograd.grad(before, guess)
    # Every pixel is too bright by something.
    assert torch.isfinite(gradient).all()
    assert (gradient[guess > target] > 0).all()
    step = 1e-3 * gradient / gradient.abs().max()
    assert float(PIXEL_LOSSES[name](guess.detach() - step, target)) < float(before.detach())
    # At the target there is nowhere to go, and nothing that is not a number.
    there = target.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(PIXEL_LOSSES[name](there, target), there)
    assert not gradient.any()


def test_charbonnier_is_smooth_at_zero_and_absolute_far_from_it() -> None:
    zero = torch.zeros(4)
    assert float(charbonnier(zero, zero)) == pytest.approx(1e-3)
    assert float(charbonnier(zero + 0.5, zero)) == pytest.approx(0.5, abs=1e-5)
    for distance, slope in ((1e-5, 0.01), (1e-3, math.sqrt(0.5)), (0.1, 1.0)):
        x = torch.tensor(distance, requires_grad=True)
        (gradient,) = torch.autograd.grad(charbonnier(x, torch.tensor(0.0)), x)
        assert float(gradient) == pytest.approx(slope, rel=2e-3)


def test_the_log_error_is_psnr() -> None:
    clean = frames(3, 3, 16, 16)
    sigmas = torch.tensor([0.3, 0.1, 0.03])[:, None, None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy = clean + sigmas * noise
    errors = ((noisy - clean) ** 2).mean(dim=(1, 2, 3))
    decibels = (-10 * torch.log10(errors)).mean()
    # A decibel is a hundredth; the mean is over the frames' decibels, not over all pixels.
    assert float(log_error(noisy, clean)) == pytest.approx(-0.01 * float(decibels), abs=1e-3)
    assert float(log_error(clean, clean)) == pytest.approx(-0.5)


def test_frames_weigh_alike_in_the_log_error() -> None:
    clean = torch.zeros(2, 3, 8, 8)
    factors = torch.tensor([0.5, 0.05])[:, None, None, None]
    guess = (factors * torch.ones_like(clean)).requires_grad_()
    (gradient,) = torch.autograd.grad(log_error(guess, clean), guess)
    # The same relative change of either brings the same gain (to the floor of 50 dB).
    gains = (gradient * guess.detach()).sum(dim=(1, 2, 3))
    assert float(gains[0] / gains[1]) == pytest.approx(1.0, abs=0.01)


def test_the_frequency_loss_of_known_spectra() -> None:
    height, width = 8, 12
    bins = height * (width // 2 + 1)
    zero = torch.zeros(1, 1, height, width)
    # A constant is in one bin, all of it.
    expected = 0.3 * math.sqrt(height * width) / bins
    assert float(frequency(zero + 0.3, zero)) == pytest.approx(expected, rel=1e-5)
    # A wave along x is in one of the half spectrum's bins, half of it.
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(width) / width).expand(1, 1, height, width)
    expected = 0.5 * math.sqrt(height * width) / bins
    assert float(frequency(wave, zero)) == pytest.approx(expected, rel=1e-5)
    assert float(frequency(wave, wave)) == 0.0


def test_the_frequency_loss_has_a_gradient_that_leads_down() -> None:
    target = frames(1, 3, 8, 8)
    guess = frames(1, 3, 8, 8, seed=1).requires_grad_()
    before = frequency(guess, target)
    (gradient,) = torch.autograd.grad(before, guess)
    assert float(frequency(guess.detach() - 0.1 * gradient, target)) < float(before.detach())
    half = frequency(guess.detach().bfloat16(), target.bfloat16())
    assert half.dtype == torch.float32
