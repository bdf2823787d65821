from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import shake
from rirf.degradation.philox import Stage, Stream, normals
from rirf.degradation.shake import KERNEL_SIZE, STEP_RANGE_PX, STEPS_RANGE, ShakeParameters
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

MIDDLE = KERNEL_SIZE // 2
PARAMETERS = st.builds(ShakeParameters, st.integers(*STEPS_RANGE), st.floats(*STEP_RANGE_PX))


def drawn(points: list[tuple[int, int]]) -> np.ndarray:
    """A kernel of equal weights at (row, column) offsets from the middle."""
    psf = np.zeros((KERNEL_SIZE, KERNEL_SIZE), dtype=np.float32)
    for row, column in points:
        psf[MIDDLE + row, MIDDLE + column] += 1.0
    psf /= psf.sum()
    return psf


def naive_convolution(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """The definition: out[p] = sum over d of k[d] image[p - d], borders mirrored."""
    half = psf.shape[0] // 2
    padded = np.pad(image.astype(np.float64), ((half, half), (half, half), (0, 0)), mode="reflect")
    out = np.zeros(image.shape)
    height, width = image.shape[:2]
    for row, column in np.argwhere(psf):
        dy, dx = row - half, column - half
        window = padded[half - dy : half - dy + height, half - dx : half - dx + width]
        out += float(psf[row, column]) * window
    return out


@given(SEEDS)
def test_samples_lie_in_their_ranges(seed: int) -> None:
    parameters = shake.sample(seed)
    assert 8 <= parameters.steps <= 64
    assert 0.8 <= parameters.step_px < 3.2
    assert shake.sample(seed) == parameters


def test_samples_fill_their_ranges() -> None:
    samples = [shake.sample(seed) for seed in range(1000)]
    assert {min(s.steps for s in samples), max(s.steps for s in samples)} == {8, 64}
    assert min(s.step_px for s in samples) < 0.82 and max(s.step_px for s in samples) > 3.18


@given(SEEDS, PARAMETERS)
def test_kernels_are_centred_distributions(seed: int, parameters: ShakeParameters) -> None:
    psf = shake.kernel(seed, parameters)
    assert psf.shape == (KERNEL_SIZE, KERNEL_SIZE) == (31, 31)
    assert psf.dtype == np.float32
    assert psf.min() >= 0.0
    assert psf.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-6)
    rows, columns = np.mgrid[:KERNEL_SIZE, :KERNEL_SIZE]
    assert (psf * rows).sum(dtype=np.float64) == pytest.approx(MIDDLE, abs=1e-5)
    assert (psf * columns).sum(dtype=np.float64) == pytest.approx(MIDDLE, abs=1e-5)
    np.testing.assert_array_equal(psf, shake.kernel(seed, parameters))


@given(SEEDS, st.integers(1, 64), st.floats(0.0, 1e4))
def test_walks_of_any_size_fit(seed: int, steps: int, step_px: float) -> None:
    psf = shake.kernel(seed, ShakeParameters(steps, step_px))
    assert psf.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-6)
    if step_px > 1e3:  # shrunk until it just fits: it reaches one pixel before the border
        reach = np.abs(np.argwhere(psf) - MIDDLE).max()
        assert reach in (MIDDLE - 1, MIDDLE)


def test_larger_steps_blur_more() -> None:
    for seed in range(20):
        spread = [
            shake.moments(shake.kernel(seed, ShakeParameters(16, step))).rms_px
            for step in (0.4, 0.8, 1.2)
        ]
        assert spread == sorted(spread)


def test_no_step_is_no_blur() -> None:
    psf = shake.kernel(3, ShakeParameters(8, 0.0))
    assert psf[MIDDLE, MIDDLE] == pytest.approx(1.0)
    image = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    np.testing.assert_allclose(shake.apply(image, psf), image, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_kernels_are_walks_weighted_towards_the_middle_of_the_exposure(seed: int) -> None:
    steps, step_px = 20, 0.8
    numbers = normals(seed, Stage.SHAKE, Stream.FIELD, 2 * steps).astype(np.float64)
    walk = np.vstack([np.zeros((1, 2)), np.cumsum(numbers.reshape(steps, 2) * step_px, axis=0)])
    between = np.arange(0.0, 1.0, 0.25)[:, None]
    points = np.vstack([a + between * (b - a) for a, b in pairwise(walk)] + [walk[-1:]])
    time = np.linspace(0.0, 1.0, len(points))
    weights = np.exp(-(((time - 0.5) / 0.25) ** 2) / 2)
    weights /= weights.sum()
    points -= weights @ points
    covariance = (points * weights[:, None]).T @ points
    # Sharing a point between its four pixels adds f (1 - f) to the variance of each axis.
    fraction = points % 1.0
    added = weights @ (fraction * (1.0 - fraction))
    cross = covariance[0, 1]
    psf = shake.kernel(seed, ShakeParameters(steps, step_px)).astype(np.float64)
    y, x = np.mgrid[-MIDDLE : MIDDLE + 1, -MIDDLE : MIDDLE + 1]
    found = [(psf * m).sum() for m in (x * x, y * y, x * y)]
    expected = [covariance[0, 0] + added[0], covariance[1, 1] + added[1], cross]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("reach", [1, 4, 9])
@pytest.mark.parametrize(
    ("step", "direction"),
    [((0, 1), 0.0), ((1, 0), 90.0), ((-1, 1), 45.0), ((1, 1), 135.0), ((-2, 1), 63.4349)],
)
def test_moments_of_lines(step: tuple[int, int], direction: float, reach: int) -> None:
    if step == (-2, 1) and reach == 9:
        reach = 7
    psf = drawn([(step[0] * i, step[1] * i) for i in range(-reach, reach + 1)])
    found = shake.moments(psf)
    apart = abs(found.direction_deg - direction)
    assert min(apart, 180.0 - apart) < 1e-3
    assert 0.0 <= found.direction_deg < 180.0
    count = 2 * reach + 1
    length = math.hypot(*step) * math.sqrt((count**2 - 1) / 12)
    assert found.length_px == pytest.approx(length, rel=1e-5)
    assert found.rms_px == pytest.approx(length, rel=1e-5)  # no width: lambda_2 = 0
    assert found.energy == pytest.approx(1 / math.sqrt(count), rel=1e-5)


def test_moments_of_a_cross_and_of_a_point() -> None:
    cross = shake.moments(drawn([(0, -3), (0, 3), (-3, 0), (3, 0)]))
    assert cross.length_px == pytest.approx(3 / math.sqrt(2))
    assert cross.rms_px == pytest.approx(3.0)
    assert cross.energy == pytest.approx(0.5)
    assert shake.moments(drawn([(0, 0)])) == shake.KernelMoments(0.0, 0.0, 1.0, 0.0)


def test_moments_do_not_depend_on_the_place() -> None:
    line = [(-i, i) for i in range(4)]
    here, there = (shake.moments(drawn([(r + s, c - s) for r, c in line])) for s in (0, 5))
    assert here.direction_deg == pytest.approx(there.direction_deg)
    assert here.length_px == pytest.approx(there.length_px)


@pytest.mark.parametrize("slope", [1e-18, 1e-16, 1e-14, 1e-9])
def test_a_nearly_horizontal_line_stays_below_180_degrees(slope: float) -> None:
    psf = np.zeros((KERNEL_SIZE, KERNEL_SIZE), dtype=np.float32)
    psf[MIDDLE, MIDDLE - 5 : MIDDLE + 6] = 1.0
    psf[MIDDLE + 1, MIDDLE + 5] = slope  # a trace of weight down right: an angle just below zero
    found = shake.moments(psf / psf.sum())
    assert 0.0 <= found.direction_deg < 180.0
    assert min(found.direction_deg, 180.0 - found.direction_deg) < 1e-3


@settings(max_examples=30)
@given(SEEDS, PARAMETERS)
def test_severity_is_the_scaled_spread(seed: int, parameters: ShakeParameters) -> None:
    found = shake.moments(shake.kernel(seed, parameters))
    assert found.length_px <= found.rms_px <= math.sqrt(2) * found.length_px + 1e-9
    assert 0.0 < found.energy <= 1.0 + 1e-6
    assert shake.severity(found.rms_px) == pytest.approx(found.rms_px / 15 * 99 + 1)


def test_severity_end_points() -> None:
    assert shake.severity(0.0) == 1.0
    assert shake.severity(7.5) == pytest.approx(50.5)
    assert shake.severity(15.0) == 100.0
    assert shake.severity(40.0) == 100.0


@settings(max_examples=25)
@given(SEEDS, PARAMETERS, st.integers(16, 40), st.integers(16, 40))
def test_apply_is_the_convolution(
    seed: int, parameters: ShakeParameters, height: int, width: int
) -> None:
    image = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    psf = shake.kernel(seed, parameters)
    blurred = shake.apply(image, psf)
    assert blurred.dtype == np.float32
    assert blurred.shape == image.shape
    np.testing.assert_allclose(blurred, naive_convolution(image, psf), atol=2e-6)


def test_a_point_becomes_the_kernel_and_not_its_mirror_image() -> None:
    psf = drawn([(0, 0), (0, 1), (0, 2), (3, 2)])
    image = np.zeros((61, 61, 3), dtype=np.float32)
    image[30, 30] = 1.0
    found = shake.apply(image, psf)
    for channel in range(3):
        np.testing.assert_allclose(found[15:46, 15:46, channel], psf, atol=1e-7)
    assert found.sum() == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("offset", [(0, 15), (15, 0), (-15, -15), (0, 1)])
def test_weights_at_the_border_of_the_kernel_count(offset: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((40, 40, 3), dtype=np.float32)
    psf = drawn([(0, 0), offset])
    np.testing.assert_allclose(shake.apply(image, psf), naive_convolution(image, psf), atol=2e-6)


def test_a_flat_image_stays_flat() -> None:
    image = np.full((17, 33, 3), 0.3, dtype=np.float32)
    psf = shake.kernel(11, ShakeParameters(64, 3.0))
    np.testing.assert_allclose(shake.apply(image, psf), image, atol=1e-6)
