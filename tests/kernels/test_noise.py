"""Noise: native and NumPy agree over sizes, layouts and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation import NoiseParameters, Recipe, noise
from tests.kernels.layouts import laid_out, layouts, pixels, room, sizes
from tests.kernels.recipes import as_rows, noises
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)
LIGHT = (1.0, 1.0, 1.0)


@given(
    DATA,
    sizes(),
    st.lists(st.tuples(SEEDS, noises()), min_size=1, max_size=3),
    layouts(),
    layouts(),
)
def test_noise_agrees(
    data: int,
    size: tuple[int, int],
    seeded: list[tuple[int, NoiseParameters]],
    layout: str,
    out_layout: str,
) -> None:
    # Between the stages of a chain values leave [0, 1].
    image = pixels(data, len(seeded), *size, 3) * np.float32(1.4) - np.float32(0.2)
    rows = as_rows(native, [(seed, Recipe(LIGHT, noise=effect)) for seed, effect in seeded])
    out = room(image.shape, out_layout)
    source = laid_out(image, layout)
    _, variances = native.noise(source, rows, out=out.view)
    assert out.left_alone()
    np.testing.assert_array_equal(native.noise_variances(source, rows), variances)
    for index, (seed, effect) in enumerate(seeded):
        deviation = noise.sigma(image[index], effect)
        expected = noise.apply(image[index], seed, deviation)
        # Measured worst over 1000 drawn recipes: 4.8e-7. Beyond what is drawn, the error of the
        # normals (1.8e-6) grows with sigma, which reaches 11.
        bound = 1e-5 * max(1.0, float(deviation.max()))
        np.testing.assert_allclose(out.view[index], expected, rtol=0, atol=bound)
        variance = noise.variance(deviation)
        assert variances[index] == pytest.approx(variance, rel=1e-6)
        assert noise.severity(variances[index]) == pytest.approx(noise.severity(variance), abs=1e-4)


@given(DATA, SEEDS, sizes(), layouts())
def test_noise_may_be_made_in_place(
    data: int, seed: int, size: tuple[int, int], layout: str
) -> None:
    image = laid_out(pixels(data, 2, *size, 3), layout)
    rows = native.recipes(2, seed=[seed, data], gain=0.1, offset=4.0)
    apart, variances = native.noise(image, rows)
    _, again = native.noise(image, rows, out=image)
    np.testing.assert_array_equal(image, apart)
    np.testing.assert_array_equal(variances, again)
