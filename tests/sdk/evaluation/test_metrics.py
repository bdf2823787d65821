"""Figures agree with their definitions and with scikit-image called directly."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rirf.errors import ImageError, MissingExtraError
from rirf.evaluation.metrics import PSNR_CEILING, Figures, average, measure


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    clean = np.ascontiguousarray(data.astronaut()[100:228, 60:220, ::-1])
    noise = np.random.default_rng(3).normal(0, 12, clean.shape)
    return clean, np.clip(clean + noise, 0, 255).astype(np.uint8)


def test_figures_are_those_of_scikit_image_in_float64(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    clean, noisy = pair
    got = measure(noisy, clean)
    truth, ours = (each[..., ::-1].astype(np.float64) / 255.0 for each in (clean, noisy))
    psnr = peak_signal_noise_ratio(truth, ours, data_range=1.0)
    ssim = structural_similarity(truth, ours, data_range=1.0, channel_axis=2)
    assert got.psnr == pytest.approx(psnr, abs=1e-4)
    assert got.ssim == pytest.approx(ssim, abs=1e-4)


def test_psnr_is_its_definition() -> None:
    clean = np.full((20, 24, 3), 100, dtype=np.uint8)
    off = clean.copy()
    off[..., 1] += 10  # mean squared error (10 / 255)^2 / 3
    assert measure(off, clean).psnr == pytest.approx(10 * np.log10(3 * (255 / 10) ** 2), abs=1e-4)


def test_identical_frames_take_the_ceiling_and_the_smallest_difference_stays_below(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    clean, _ = pair
    assert measure(clean.copy(), clean) == Figures(PSNR_CEILING, 1.0)
    touched = clean.copy()
    touched[60, 80, 0] ^= 1
    assert 90.0 < measure(touched, clean).psnr < PSNR_CEILING


def test_average_is_the_mean_of_decibels() -> None:
    got = average([Figures(10.0, 0.2), Figures(20.0, 0.4), Figures(30.0, 0.9)])
    assert (got.psnr, got.ssim) == pytest.approx((20.0, 0.5))


@pytest.mark.parametrize("shape", [(20, 25, 3), (20, 24)])
def test_frames_that_do_not_match_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="one size"):
        measure(np.zeros(shape, np.uint8), np.zeros((20, 24, 3), np.uint8))
    with pytest.raises(ImageError, match="float32"):
        measure(np.zeros((20, 24, 3), np.float32), np.zeros((20, 24, 3), np.uint8))


def test_a_missing_scikit_image_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(MissingExtraError, match=r"rirf\[eval\]"):
        measure(np.zeros((20, 24, 3), np.uint8), np.zeros((20, 24, 3), np.uint8))
