"""Shake: kernels, their moments and the convolution; native and NumPy agree."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rirf.degradation import Recipe, ShakeParameters, shake
from tests.kernels.layouts import laid_out, layouts, pixels, room, sizes
from tests.kernels.recipes import as_rows, shakes
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)
LIGHT = (1.0, 1.0, 1.0)


@given(st.lists(st.tuples(SEEDS, shakes()), min_size=1, max_size=4))
@example([(0, ShakeParameters(steps=4096, step_px=1000.0))])
@example([(0, ShakeParameters(steps=1, step_px=0.0))])
def test_kernels_and_moments_agree(seeded: list[tuple[int, ShakeParameters]]) -> None:
    rows = as_rows(native, [(seed, Recipe(LIGHT, shake=effect)) for seed, effect in seeded])
    psf, truth = native.shake_kernels(rows)
    for index, (seed, effect) in enumerate(seeded):
        expected = shake.kernel(seed, effect)
        # Measured worst over 3000 draws: 2.0e-7.
        np.testing.assert_allclose(psf[index], expected, rtol=0, atol=1e-6)
        assert psf[index].sum() == pytest.approx(1.0, abs=1e-5)
        moments = shake.moments(expected)
        row = truth[index]
        assert row["rms_px"] == pytest.approx(moments.rms_px, abs=1e-5)
        assert row["blur_length_px"] == pytest.approx(moments.length_px, abs=1e-5)
        assert row["energy"] == pytest.approx(moments.energy, abs=1e-6)
        assert row["severity"][1] == pytest.approx(shake.severity(moments.rms_px), abs=1e-4)
        # A round kernel has no direction: the angle counts as much as the axes differ.
        elongation = 2 * moments.length_px**2 - moments.rms_px**2
        turned = math.sin(math.radians(row["direction_deg"] - moments.direction_deg))
        assert abs(turned) * elongation < 1e-4
        assert 0.0 <= row["direction_deg"] < 180.0


@given(
    DATA,
    sizes(),
    st.lists(st.tuples(SEEDS, shakes()), min_size=1, max_size=3),
    layouts(),
    layouts(),
)
def test_convolution_agrees(
    data: int,
    size: tuple[int, int],
    seeded: list[tuple[int, ShakeParameters]],
    layout: str,
    out_layout: str,
) -> None:
    image = pixels(data, len(seeded), *size, 3)
    psf = np.stack([shake.kernel(seed, effect) for seed, effect in seeded])
    out = room(image.shape, out_layout)
    assert native.shake(laid_out(image, layout), psf, out=out.view) is out.view
    assert out.left_alone()
    for index in range(len(seeded)):
        expected = shake.apply(image[index], psf[index])
        # Measured worst over 1000 draws: 7.7e-7, mostly OpenCV's discrete Fourier path.
        np.testing.assert_allclose(out.view[index], expected, rtol=0, atol=1e-5)


@given(DATA, sizes(high=40))
def test_any_kernel_will_do(data: int, size: tuple[int, int]) -> None:
    """Kernels that no walk makes: dense, one-sided, with negative taps."""
    generator = np.random.default_rng(data)
    psf = generator.normal(0.0, 0.05, (31, 31)).astype(np.float32)
    psf[generator.random((31, 31)) < generator.random()] = 0.0
    image = pixels(data, *size, 3)
    flipped = np.ascontiguousarray(psf[::-1, ::-1])
    expected = cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(native.shake(image, psf), expected, rtol=0, atol=2e-5)


def test_a_kernel_of_one_tap_moves_the_image_to_the_bit() -> None:
    image = pixels(5, 40, 50, 3)
    psf = np.zeros((31, 31), dtype=np.float32)
    psf[15 + 2, 15 - 3] = 1.0
    moved = native.shake(image, psf)
    np.testing.assert_array_equal(moved[2:, :-3], image[:-2, 3:])


def test_the_centre_alone_leaves_the_image() -> None:
    image = pixels(6, 3, 17, 19, 3)
    psf = np.zeros((3, 31, 31), dtype=np.float32)
    psf[:, 15, 15] = 1.0
    np.testing.assert_array_equal(native.shake(image, psf), image)
