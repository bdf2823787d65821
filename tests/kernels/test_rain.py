"""Rain: masks are equal to the bit, streaked images agree, over sizes, layouts and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import RainParameters, Recipe, rain
from tests.kernels.layouts import laid_out, layouts, pixels, room, sizes
from tests.kernels.recipes import as_rows, lights, rains
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)
LIGHT = (0.9, 0.8, 0.7)


@given(sizes(), st.lists(st.tuples(SEEDS, rains()), min_size=1, max_size=3), layouts())
def test_masks_and_coverage_are_equal_to_the_bit(
    size: tuple[int, int], seeded: list[tuple[int, RainParameters]], layout: str
) -> None:
    rows = as_rows(native, [(seed, Recipe(LIGHT, rain=effect)) for seed, effect in seeded])
    out = room((len(seeded), *size), layout)
    made, covered = native.rain_mask(rows, *size, out=out.view)
    assert made is out.view
    assert out.left_alone()
    for index, (seed, effect) in enumerate(seeded):
        expected = rain.mask(seed, effect, *size)
        np.testing.assert_array_equal(made[index], expected)
        assert covered[index] == rain.coverage(expected)


@pytest.mark.parametrize(
    "effect",
    [
        RainParameters(1.0, 90.0, 1000.0, 100.0, 1.0),
        RainParameters(1e-4, -90.0, 1000.0, 0.5, 1.0),
        RainParameters(1e-3, 0.0, 1000.0, 1.0, 1.0),
        RainParameters(0.0, 10.0, 30.0, 2.0, 1.0),
        RainParameters(1.0, 45.0, 1e-9, 1e-9, 1.0),
        RainParameters(2.0**-24, 30.0, 60.0, 3.0, 1.0),  # the smallest density with a seed
    ],
    ids=["all", "flat", "upright", "none", "dust", "rare"],
)
def test_masks_at_the_ends_of_the_ranges(effect: RainParameters) -> None:
    rows = as_rows(native, [(11, Recipe(LIGHT, rain=effect))])
    made, _ = native.rain_mask(rows, 9, 14)
    np.testing.assert_array_equal(made[0], rain.mask(11, effect, 9, 14))


@given(
    DATA,
    sizes(high=70),
    st.lists(st.tuples(SEEDS, rains(30.0), lights()), min_size=1, max_size=3),
    layouts(),
    layouts(),
)
def test_rain_agrees(
    data: int,
    size: tuple[int, int],
    seeded: list[tuple[int, RainParameters, tuple[float, float, float]]],
    layout: str,
    out_layout: str,
) -> None:
    count = len(seeded)
    image = pixels(data, count, *size, 3)
    rows = as_rows(native, [(seed, Recipe(light, rain=effect)) for seed, effect, light in seeded])
    out, mask = room(image.shape, out_layout), room(image.shape[:3], layout)
    _, covered = native.rain(laid_out(image, layout), rows, out=out.view, mask=mask.view)
    assert out.left_alone()
    assert mask.left_alone()
    for index, (seed, effect, light) in enumerate(seeded):
        streaks = rain.mask(seed, effect, *size)
        np.testing.assert_array_equal(mask.view[index], streaks)
        expected = rain.apply(image[index], streaks, effect, light)
        # Measured worst over 1000 draws: 1.2e-7, one rounding (fused or not).
        np.testing.assert_allclose(out.view[index], expected, rtol=0, atol=1e-6)
        assert rain.severity(covered[index]) == rain.severity(rain.coverage(streaks))


@settings(max_examples=25)
@given(DATA, SEEDS, layouts())
def test_rain_may_be_made_in_place(data: int, seed: int, layout: str) -> None:
    image = laid_out(pixels(data, 2, 33, 21, 3), layout)
    rows = native.recipes(2, seed=[seed, data], density=0.02, length_px=12.0, opacity=0.7)
    apart, _ = native.rain(image, rows)
    native.rain(image, rows, out=image)
    np.testing.assert_array_equal(image, apart)
