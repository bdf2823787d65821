"""Fog and its inverse: native and NumPy agree over sizes, layouts and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation import FogParameters, Recipe, fog
from tests.kernels.layouts import laid_out, layouts, pixels, room, sizes
from tests.kernels.recipes import as_rows, fogs, lights

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)
Light = tuple[float, float, float]


@given(
    DATA,
    sizes(),
    st.lists(st.tuples(lights(), fogs()), min_size=1, max_size=3),
    layouts(),
    layouts(),
)
def test_fog_agrees(
    data: int,
    size: tuple[int, int],
    parameters: list[tuple[Light, FogParameters]],
    layout: str,
    out_layout: str,
) -> None:
    count = len(parameters)
    image = pixels(data, count, *size, 3)
    prior = pixels(data + 1, count, *size)
    rows = as_rows(native, [(0, Recipe(light, fog=effect)) for light, effect in parameters])
    out = room(image.shape, out_layout)
    transmission = room(prior.shape, layout)
    made, means = native.fog(
        laid_out(image, layout),
        laid_out(prior, out_layout),
        rows,
        out=out.view,
        transmission=transmission.view,
    )
    assert made is out.view
    assert out.left_alone()
    assert transmission.left_alone()
    for index, (light, effect) in enumerate(parameters):
        t = fog.transmission(prior[index], effect)
        # Measured worst over 2000 draws: transmission and image 1.2e-7, mean 1.4e-8.
        np.testing.assert_allclose(transmission.view[index], t, rtol=0, atol=1e-5)
        expected = fog.apply(image[index], t, light)
        np.testing.assert_allclose(out.view[index], expected, rtol=0, atol=1e-5)
        assert means[index] == pytest.approx(t.mean(dtype=np.float64), abs=1e-6)
        assert fog.severity(means[index]) == pytest.approx(
            fog.severity(float(t.mean(dtype=np.float64))), abs=1e-4
        )


@given(DATA, sizes(), lights(), st.floats(0.01, 1.0), layouts(), layouts())
def test_inverse_agrees(
    data: int, size: tuple[int, int], light: Light, floor: float, layout: str, out_layout: str
) -> None:
    image = pixels(data, 2, *size, 3)
    t = np.maximum(pixels(data + 1, 2, *size), np.float32(0.05))
    out = room(image.shape, out_layout)
    native.fog_invert(
        laid_out(image, layout), laid_out(t, layout), [light, light], floor=floor, out=out.view
    )
    assert out.left_alone()
    for index in range(2):
        expected = fog.invert(image[index], t[index], light, floor)
        # Measured worst over 2000 draws: 6.0e-7.
        np.testing.assert_allclose(out.view[index], expected, rtol=0, atol=1e-5)


@given(DATA, sizes(), fogs(), layouts())
def test_fog_may_be_made_in_place(
    data: int, size: tuple[int, int], effect: FogParameters, layout: str
) -> None:
    image = laid_out(pixels(data, 1, *size, 3), layout)
    prior = pixels(data + 1, 1, *size)
    rows = as_rows(native, [(0, Recipe((0.7, 0.8, 0.9), fog=effect))])
    apart, _ = native.fog(image, prior, rows)
    native.fog(image, prior, rows, out=image)
    np.testing.assert_array_equal(image, apart)


def test_inverse_undoes_fog_above_its_floor() -> None:
    image = pixels(3, 40, 50, 3)
    prior = np.linspace(0.5, 1.0, 2000, dtype=np.float32).reshape(40, 50)
    light = (0.9, 0.8, 0.7)
    rows = as_rows(native, [(0, Recipe(light, fog=FogParameters(2.0)))])
    t = np.empty_like(prior)
    foggy, _ = native.fog(image, prior, rows, transmission=t)
    assert np.abs(foggy - image).max() > 0.1
    np.testing.assert_allclose(native.fog_invert(foggy, t, light), image, atol=1e-5)


def test_one_image_needs_no_batch_axis() -> None:
    image, prior = pixels(1, 20, 30, 3), pixels(2, 20, 30)
    rows = as_rows(native, [(0, Recipe((0.7, 0.8, 0.9), fog=FogParameters(1.2)))])
    single, _ = native.fog(image, prior, rows)
    batch, _ = native.fog(image[None], prior[None], rows)
    assert single.shape == image.shape
    np.testing.assert_array_equal(single, batch[0])
