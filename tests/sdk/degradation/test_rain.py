from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import rain
from rirf.degradation.philox import Stage, Stream, uniforms
from rirf.degradation.rain import RainParameters
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

# Far beyond what is drawn: dense, level, long, thick.
WIDE = st.builds(
    RainParameters,
    density=st.floats(0.0, 0.3),
    slant_deg=st.floats(-90.0, 90.0),
    length_px=st.floats(0.5, 90.0),
    width_px=st.floats(0.1, 12.0),
    opacity=st.just(0.5),
)
PARAMETERS = st.builds(
    RainParameters,
    density=st.floats(*rain.DENSITY_RANGE),
    slant_deg=st.floats(*rain.SLANT_RANGE_DEG),
    length_px=st.floats(*rain.LENGTH_RANGE_PX),
    width_px=st.floats(*rain.WIDTH_RANGE_PX),
    opacity=st.floats(*rain.OPACITY_RANGE),
)
LIGHT = RainParameters(density=2e-3, slant_deg=20.0, length_px=21.0, width_px=1.5, opacity=0.6)


def splatted(seed: int, parameters: RainParameters, height: int, width: int) -> np.ndarray:
    """The definition of the mask in whole numbers: one stamp added a seed, saturating at 1."""
    streak = np.rint(rain.stamp(parameters).astype(np.float64) * 65536).astype(np.int64)
    rows, columns = streak.shape
    grid = (height + rows - 1, width + columns - 1)
    numbers = uniforms(seed, Stage.RAIN, Stream.FIELD, grid[0] * grid[1])
    canvas = np.zeros((grid[0] + rows - 1, grid[1] + columns - 1), dtype=np.int64)
    for y, x in np.argwhere(numbers.reshape(grid) < np.float32(parameters.density)):
        canvas[y : y + rows, x : x + columns] += streak
    inside = canvas[rows - 1 : rows - 1 + height, columns - 1 : columns - 1 + width]
    return (np.minimum(inside, 65536) / 65536).astype(np.float32)


@given(SEEDS)
def test_samples_lie_in_their_ranges(seed: int) -> None:
    found = rain.sample(seed)
    assert 5e-4 <= found.density < 1e-2
    assert -30.0 <= found.slant_deg < 30.0
    assert 15.0 <= found.length_px < 60.0
    assert 1.0 <= found.width_px < 3.0
    assert 0.4 <= found.opacity < 0.9
    assert rain.sample(seed) == found


def test_samples_fill_their_ranges() -> None:
    ranges = {
        "density": rain.DENSITY_RANGE,
        "slant_deg": rain.SLANT_RANGE_DEG,
        "length_px": rain.LENGTH_RANGE_PX,
        "width_px": rain.WIDTH_RANGE_PX,
        "opacity": rain.OPACITY_RANGE,
    }
    samples = [rain.sample(seed) for seed in range(500)]
    for name, (low, high) in ranges.items():
        values = np.array([getattr(sample, name) for sample in samples])
        share = (values - low) / (high - low)
        assert share.min() < 0.02 and share.max() > 0.98, name
        assert share.mean() == pytest.approx(0.5, abs=0.07), name


@given(PARAMETERS)
def test_stamps_hold_one_whole_streak(parameters: RainParameters) -> None:
    streak = rain.stamp(parameters)
    assert streak.dtype == np.float32
    assert streak.shape[0] % 2 == streak.shape[1] % 2 == 1
    assert streak.min() >= 0.0
    middle = streak[streak.shape[0] // 2, streak.shape[1] // 2]
    assert middle == streak.max() == 1.0
    np.testing.assert_allclose(streak, streak[::-1, ::-1], atol=2**-16)
    np.testing.assert_array_equal(streak * 65536, np.rint(streak * 65536))
    for border in (streak[0], streak[-1], streak[:, 0], streak[:, -1]):
        assert not border.any()  # nothing is cut off
    # Area: a trapezoid along (3/4 of the length) times the width with its two half-pixel flanks.
    area = 0.75 * parameters.length_px * parameters.width_px
    assert streak.sum() == pytest.approx(area, rel=0.2)


@pytest.mark.parametrize("slant", [-30.0, -10.0, 0.0, 10.0, 30.0])
def test_stamps_lean_as_far_as_they_say(slant: float) -> None:
    streak = rain.stamp(replace(LIGHT, slant_deg=slant, length_px=41.0)).astype(np.float64)
    y, x = np.mgrid[: streak.shape[0], : streak.shape[1]]
    y, x = y - streak.shape[0] // 2, x - streak.shape[1] // 2
    mxy, mxx, myy = ((streak * m).sum() for m in (x * y, x * x, y * y))
    # The main axis, measured from the vertical; positive: further right the further down.
    found = math.degrees(0.5 * math.atan2(2 * mxy, myy - mxx))
    assert found == pytest.approx(slant, abs=0.5)
    if slant:
        assert np.sign(mxy) == np.sign(slant)


@pytest.mark.parametrize("length", [15.0, 30.0, 60.0])
def test_length_of_a_vertical_stamp(length: float) -> None:
    streak = rain.stamp(replace(LIGHT, slant_deg=0.0, length_px=length, width_px=1.0))
    along = streak[:, streak.shape[1] // 2]
    offsets = np.arange(len(along)) - len(along) // 2
    expected = np.clip((length / 2 - np.abs(offsets)) / (0.25 * length), 0.0, 1.0)
    np.testing.assert_allclose(along, expected, atol=2**-17 + 1e-7)
    assert not streak[:, : streak.shape[1] // 2].any()  # one pixel wide: no flanks


@pytest.mark.parametrize(("width", "across"), [(1.0, [0, 1, 0]), (2.0, [0.5, 1, 0.5])])
def test_width_of_a_vertical_stamp(width: float, across: list[float]) -> None:
    streak = rain.stamp(replace(LIGHT, slant_deg=0.0, width_px=width))
    middle = streak.shape[1] // 2
    np.testing.assert_allclose(streak[streak.shape[0] // 2, middle - 1 : middle + 2], across)


@settings(max_examples=60)
@given(SEEDS, st.one_of(PARAMETERS, WIDE), st.integers(16, 60), st.integers(16, 60))
def test_masks_equal_splatting_in_whole_numbers(
    seed: int, parameters: RainParameters, height: int, width: int
) -> None:
    found = rain.mask(seed, parameters, height, width)
    assert found.shape == (height, width)
    assert found.dtype == np.float32
    assert found.min() >= 0.0 and found.max() <= 1.0
    np.testing.assert_array_equal(found, splatted(seed, parameters, height, width))


@pytest.mark.parametrize("density", [0.0, 5e-4, 1e-2, 0.2])
@pytest.mark.parametrize("length", [3.0, 60.0, 200.0])
def test_bands_and_the_convolution_change_no_bit(
    density: float, length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = RainParameters(density, 25.0, length, 2.5, 0.7)
    masks = []
    # One band, one seed a band, bands of a few seeds; then convolved whatever the density.
    for band, dense in ((1 << 40, 1e9), (1, 1e9), (5000, 1e9), (1, 0.0)):
        monkeypatch.setattr(rain, "_BAND", band)
        monkeypatch.setattr(rain, "_DENSE", dense)
        masks.append(rain.mask(11, parameters, 40, 61))
    for other in masks[1:]:
        np.testing.assert_array_equal(other, masks[0])
    np.testing.assert_array_equal(masks[0], splatted(11, parameters, 40, 61))


def test_a_mask_is_the_same_with_one_and_with_many_threads() -> None:
    threads = cv2.getNumThreads()
    dense = replace(LIGHT, density=0.3)  # convolved
    try:
        cv2.setNumThreads(1)
        one = rain.mask(9, dense, 200, 300)
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(rain.mask(9, dense, 200, 300), one)
    finally:
        cv2.setNumThreads(threads)


def test_memory_does_not_grow_with_the_stamped_values() -> None:
    # 38 million stamped values on a frame of a quarter of a megapixel.
    parameters = RainParameters(1.5e-2, 20.0, 240.0, 20.0, 0.7)
    stamped = np.count_nonzero(rain.stamp(parameters)) * 1.5e-2 * 700 * 600
    assert stamped > 30e6
    seeds = np.flatnonzero(uniforms(3, Stage.RAIN, Stream.FIELD, 700 * 600) < np.float32(1.5e-2))
    levels = rain.stamp(parameters).astype(np.float64) * 65536
    tracemalloc.start()
    rain._splat(seeds, levels, 700, 600)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80e6


def test_a_single_seed_stamps_its_streak_around_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    streak = rain.stamp(LIGHT)
    rows, columns = streak.shape
    height, width = 60, 50

    def mask_of(y: int, x: int) -> np.ndarray:
        """The mask when the only seed lies at this pixel of the frame."""
        grid = np.ones((height + rows - 1, width + columns - 1), dtype=np.float32)
        grid[y + rows // 2, x + columns // 2] = 0.0
        monkeypatch.setattr(rain, "uniforms", lambda *_: grid.ravel())
        return rain.mask(0, LIGHT, height, width)

    here = mask_of(30, 20)
    expected = np.zeros((height, width), dtype=np.float32)
    top, left = 30 - rows // 2, 20 - columns // 2
    expected[top : top + rows, left : left + columns] = streak
    np.testing.assert_allclose(here, expected, atol=1e-6)
    moved = mask_of(33, 25)
    np.testing.assert_allclose(moved[3:, 5:], here[:-3, :-5], atol=1e-6)
    # A streak whose seed lies outside still reaches into the frame.
    entering = mask_of(-3, 25)
    assert entering[0].max() > 0.1
    np.testing.assert_allclose(entering[: height - 36], moved[36:], atol=1e-6)


def test_seed_numbers_do_not_depend_on_the_height() -> None:
    # The grid is numbered row by row: a taller frame of the same width only adds rows below.
    low, high = (rain.mask(4, LIGHT, height, 40) for height in (40, 90))
    pad = rain.stamp(LIGHT).shape[0] // 2
    np.testing.assert_allclose(low[: 40 - pad], high[: 40 - pad], atol=1e-6)


def test_density_is_the_share_of_seeds() -> None:
    parameters = replace(LIGHT, density=8e-3)
    mask = rain.mask(21, parameters, 256, 256)
    expected = 8e-3 * rain.stamp(parameters).sum()  # overlaps saturate, so a little less
    assert expected * 0.85 < mask.mean() < expected * 1.02


@given(SEEDS, st.floats(0.4, 0.9), st.tuples(*[st.floats(0.7, 1.0)] * 3))
@settings(max_examples=20)
def test_apply_adds_opaque_streaks_in_the_colour(
    seed: int, opacity: float, colour: tuple[float, float, float]
) -> None:
    image = np.random.default_rng(seed).random((20, 24, 3), dtype=np.float32)
    streaks = rain.mask(seed, LIGHT, 20, 24)
    found = rain.apply(image, streaks, replace(LIGHT, opacity=opacity), colour)
    assert found.dtype == np.float32
    expected = image + opacity * streaks[..., None].astype(np.float64) * np.array(colour)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[streaks == 0.0], image[streaks == 0.0])


def test_no_rain_without_seeds() -> None:
    assert not rain.mask(1, replace(LIGHT, density=0.0), 30, 30).any()


def test_coverage_counts_visible_pixels() -> None:
    streaks = np.array([[0.0, 0.05, 0.1, 0.1001], [0.2, 0.5, 1.0, 0.0]], dtype=np.float32)
    # 0.1 itself, and what float32 makes of it, does not count.
    assert rain.coverage(np.where(streaks == np.float32(0.1), 0.0999, streaks)) == 4 / 8
    assert rain.coverage(np.zeros((4, 4), np.float32)) == 0.0
    assert rain.coverage(np.ones((4, 4), np.float32)) == 1.0


def test_severity_end_points() -> None:
    assert rain.severity(0.0) == 1.0
    assert rain.severity(0.5) == pytest.approx(50.5)
    assert rain.severity(1.0) == 100.0
