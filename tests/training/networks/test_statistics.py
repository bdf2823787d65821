"""Crop statistics against a discrete Fourier transform, plain sums, and kernels that are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from rirf.degradation import shake
from rirf_training.networks.statistics import REACH, CropStatistics

Array = NDArray[np.float64]
LAGS = [
    *((0, lag) for lag in range(1, 17)),
    *((lag, 0) for lag in range(1, 17)),
    *((lag, lag) for lag in range(1, 12)),
    *((lag, -lag) for lag in range(1, 12)),
]
LENGTH = 7
PLACE = {lag: place for place, lag in enumerate(LAGS)}
# (down, right) of one pixel along a blur.
DIRECTIONS = {"horizontal": (0, 1), "vertical": (1, 0), "falling": (1, 1), "rising": (1, -1)}


def gradients(grey: Array) -> tuple[Array, Array]:
    """Horizontal and vertical, both where both are defined."""
    return grey[:, 1:, 1:] - grey[:, 1:, :-1], grey[:, 1:, 1:] - grey[:, :-1, 1:]


def reference(crops: NDArray[np.float32]) -> Array:
    """The statistics of (N, 3, S, S) by NumPy's transform, in double precision."""
    grey = crops.astype(np.float64).mean(axis=1)
    count, side = len(grey), 2 * grey.shape[1]
    parts: list[Any] = []
    for gradient in gradients(grey):
        centred = gradient - gradient.mean(axis=(1, 2), keepdims=True)
        power = np.abs(np.fft.fft2(centred, s=(side, side))) ** 2
        products = np.fft.ifft2(power).real / centred[0].size
        energy = products[:, 0, 0]
        lagged = np.array([products[:, down, right] for down, right in LAGS])
        pooled = lagged.sum(axis=1) / (energy.sum() + 1e-6)
        parts += [np.log(energy + 1e-6), (lagged / (energy + 1e-6)).mean(axis=1), pooled]
        assert lagged.shape == (len(LAGS), count)
    for step in (2, 4, 8, 16):
        parts.append(np.log(np.abs(grey[:, :, step:] - grey[:, :, :-step]).mean((1, 2)) + 1e-3))
        parts.append(np.log(np.abs(grey[:, step:] - grey[:, :-step]).mean((1, 2)) + 1e-3))
    return np.concatenate(parts)


def measured(crops: NDArray[np.float32]) -> NDArray[np.float32]:
    """The statistics of one frame's crops."""
    with torch.no_grad():
        found = CropStatistics(len(crops), crops.shape[-1])(torch.from_numpy(crops)[None])
    values: NDArray[np.float32] = found[0].numpy()
    return values


def pooled(found: NDArray[np.float32], crops: int) -> tuple[Array, Array]:
    """Of the horizontal and of the vertical gradient: autocorrelations pooled over the crops."""
    block = crops + 2 * len(LAGS)
    both = [found[at + crops + len(LAGS) : at + block] for at in (0, block)]
    return both[0].astype(np.float64), both[1].astype(np.float64)


def noise(seed: int = 0, count: int = 8, side: int = 96) -> NDArray[np.float32]:
    """Grey white noise (N, 3, S, S)."""
    planes = np.random.default_rng(seed).random((count, 1, side, side), dtype=np.float32)
    return np.repeat(planes, 3, axis=1)


def windows(count: int, side: int) -> NDArray[np.float32]:
    """Windows of photographs, as the reasoner gets them: RGB in steps of 1 / 255."""
    photos = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    cut = []
    for number in range(count):
        top, left = 13 * number, 37 * number % 300
        cut.append(photos[number % 4][top : top + side, left : left + side].transpose(2, 0, 1))
    return np.stack(cut).astype(np.float32) / np.float32(255)


def blurred(planes: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every plane convolved (not correlated) with the kernel, without its borders."""
    flat = planes.reshape(-1, *planes.shape[-2:])
    turned = np.ascontiguousarray(kernel[::-1, ::-1])
    full = np.stack([np.asarray(cv2.filter2D(each, -1, turned)) for each in flat])
    margin = max(kernel.shape) // 2
    inner = full[:, margin:-margin, margin:-margin]
    return np.ascontiguousarray(inner.reshape(*planes.shape[:2], *inner.shape[1:]))


def box(name: str) -> NDArray[np.float32]:
    """A straight blur of seven pixels."""
    kernel = np.zeros((LENGTH, LENGTH), dtype=np.float32)
    for place in range(LENGTH):
        down, right = DIRECTIONS[name]
        middle = LENGTH // 2
        kernel[middle + (place - middle) * down, middle + (place - middle) * right] = 1 / LENGTH
    return kernel


def kernel_autocorrelations(kernel: NDArray[np.float32]) -> tuple[Array, Array]:
    """What a gradient of blurred white noise has at the lags, by plain sums over the kernel."""
    room = np.zeros([side + 2 * REACH + 4 for side in kernel.shape])
    room[REACH + 2 : -REACH - 2, REACH + 2 : -REACH - 2] = kernel
    found = []
    for axis in (1, 0):
        edge = room - np.roll(room, 1, axis=axis)
        sums = [float((edge * np.roll(edge, lag, axis=(0, 1))).sum()) for lag in LAGS]
        found.append(np.array(sums) / float((edge**2).sum()))
    return found[0], found[1]


@pytest.mark.parametrize(
    "crops",
    [
        pytest.param(noise(1), id="noise"),
        pytest.param(windows(8, 96), id="photographs"),
        # Padded to an odd side: the spectrum has no highest frequency of its own.
        pytest.param(windows(3, 41), id="another size"),
        pytest.param(blurred(windows(2, 80), box("rising")), id="blurred"),
        pytest.param(np.full((2, 3, 40, 40), 0.3, dtype=np.float32), id="flat"),
    ],
)
def test_statistics_are_those_of_a_fourier_transform(crops: NDArray[np.float32]) -> None:
    found = measured(crops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(crops), atol=1e-5, rtol=1e-5)


def test_autocorrelations_are_the_sums_they_are_called() -> None:
    side = 24
    image = np.random.default_rng(3).normal(0.4, 1.0, (side, side))
    module = CropStatistics(1, side + 1)
    found = module.correlate(torch.from_numpy(image).float()[None])[0].numpy()
    assert found.shape == (REACH + 1, 2 * REACH + 1)
    centred = image - image.mean()
    for down in range(REACH + 1):
        for right in range(-REACH, REACH + 1):
            left, width = max(0, -right), side - abs(right)
            here = centred[: side - down, left : left + width]
            there = centred[down:, left + right : left + right + width]
            expected = float((here * there).sum()) / side**2
            assert found[down, REACH + right] == pytest.approx(expected, abs=1e-6), (down, right)


@pytest.mark.parametrize("name", list(DIRECTIONS))
def test_the_lags_tell_a_blurs_direction_and_length(name: str) -> None:
    crops = blurred(noise(2, side=102), box(name))
    found = pooled(measured(crops), 8)
    # Across its edges a straight blur repeats itself along its way, less and less, to its end.
    strongest = np.maximum(*found)
    near = {other: strongest[PLACE[3 * d, 3 * r]] for other, (d, r) in DIRECTIONS.items()}
    down, right = DIRECTIONS[name]
    along = np.maximum(
        *(part[[PLACE[n * down, n * right] for n in range(1, 10)]] for part in found)
    )
    assert max(near, key=lambda other: near[other]) == name
    assert near[name] > 0.5 > 0.15 > max(near[other] for other in near if other != name)
    np.testing.assert_allclose(along[:6], 1 - np.arange(1, 7) / LENGTH, atol=0.06)
    assert abs(along[6:]).max() < 0.06


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blurred_noise_shows_the_kernel(seed: int) -> None:
    kernel = shake.kernel(seed, shake.ShakeParameters(20, 1.2))
    crops = blurred(noise(seed, side=96 + 30), kernel)
    sharp = pooled(measured(noise(seed)), 8)
    for found, plain, expected in zip(
        pooled(measured(crops), 8), sharp, kernel_autocorrelations(kernel), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=0.08)
        assert np.abs(plain - expected).max() > 0.3


def test_noise_moves_the_first_lags_alone() -> None:
    crops = blurred(noise(4, side=102), box("horizontal"))
    grain = 0.05 * np.random.default_rng(5).normal(size=(8, 96, 96))
    module = CropStatistics(8, 96)
    before, after = (
        module.correlate(torch.from_numpy(gradients(grey)[0]).float()).mean(dim=0).numpy()
        for grey in (crops[:, 0].astype(np.float64), crops[:, 0] + grain)
    )
    change = after - before
    # A difference of neighbours: twice the variance at lag zero, minus one of it beside that.
    assert change[0, REACH] == pytest.approx(2 * 0.05**2, rel=0.05)
    assert change[0, REACH + 1] == pytest.approx(-(0.05**2), rel=0.1)
    change[0, REACH - 1 : REACH + 2] = 0.0
    assert np.abs(change).max() < 0.1 * 0.05**2


def test_contrast_moves_the_energies_alone() -> None:
    crops = windows(8, 96)
    found, dimmed = measured(crops), measured(0.5 * crops + np.float32(0.2))
    block = 8 + 2 * len(LAGS)
    for at in (0, block):
        energy = np.exp(found[at : at + 8].astype(np.float64)) - 1e-6
        np.testing.assert_allclose(dimmed[at : at + 8], np.log(energy / 4 + 1e-6), atol=1e-3)
    for one, other in zip(pooled(found, 8), pooled(dimmed, 8), strict=True):
        np.testing.assert_allclose(one, other, atol=0.01)


@pytest.mark.parametrize(("crops", "side"), [(8, 96), (1, 33), (3, 48)])
def test_size(crops: int, side: int) -> None:
    module = CropStatistics(crops, side)
    found = module(torch.from_numpy(np.stack([noise(9, crops, side)] * 2)))
    assert found.shape == (2, module.size)
    assert module.size == len(reference(noise(9, crops, side)))
    assert (crops, side) != (8, 96) or module.size == 296


def test_frames_of_a_batch_do_not_mix() -> None:
    frames = np.stack([windows(4, 48), noise(6, 4, 48)])
    found = CropStatistics(4, 48)(torch.from_numpy(frames))
    for row, frame in enumerate(frames):
        np.testing.assert_allclose(found[row].numpy(), measured(frame), atol=1e-6)


def test_nothing_is_stored() -> None:
    module = CropStatistics(2, 40)
    assert not module.state_dict()
    assert not list(module.parameters())
    assert len(list(module.buffers())) == 5
