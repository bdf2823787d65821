from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rirf.views import CROP_SIZE, CROPS, THUMBNAIL_SIZE, extract
from tests.sdk.pictures import photo

pytestmark = pytest.mark.lean


def as_rgb(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 BGR (H, W, 3) to float32 RGB (3, H, W) in [0, 1]."""
    return (frame[..., ::-1].transpose(2, 0, 1) / 255).astype(np.float32)


def place(crop: NDArray[np.float32], frame: NDArray[np.uint8]) -> tuple[int, int]:
    """Where in the frame a crop was cut: the position at which it fits exactly."""
    picture = np.ascontiguousarray(as_rgb(frame).transpose(1, 2, 0))
    template = np.ascontiguousarray(crop.transpose(1, 2, 0))
    error = cv2.matchTemplate(picture, template, cv2.TM_SQDIFF)
    row, column = np.unravel_index(int(error.argmin()), error.shape)
    window = picture[row : row + CROP_SIZE, column : column + CROP_SIZE]
    np.testing.assert_allclose(window, template, atol=1e-6)
    return int(row), int(column)


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (17, 33), (95, 300), (96, 96), (256, 256), (300, 1000)]
)
def test_shapes_and_range(height: int, width: int) -> None:
    views = extract(photo(height, width))
    assert views.thumbnail.shape == (3, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    assert views.crops.shape == (CROPS, 3, CROP_SIZE, CROP_SIZE)
    for array in (views.thumbnail, views.crops):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert 0.0 <= array.min() <= array.max() <= 1.0
        assert array.max() > 0.5  # a photo, not 0..1 divided by 255 again


def test_the_thumbnail_is_the_mean_over_areas() -> None:
    frame = photo(512, 768)
    expected = as_rgb(frame).reshape(3, 256, 2, 256, 3).mean(axis=(2, 4))
    # The resized frame is uint8: half a grey level of rounding.
    np.testing.assert_allclose(extract(frame).thumbnail, expected, atol=0.51 / 255)


def test_channels_are_rgb() -> None:
    frame = np.zeros((128, 128, 3), dtype=np.uint8)
    frame[..., 2] = 255  # red, in BGR
    views = extract(frame)
    np.testing.assert_array_equal(views.thumbnail[0], 1.0)
    np.testing.assert_array_equal(views.thumbnail[1:], 0.0)
    np.testing.assert_array_equal(views.crops[:, 0], 1.0)
    np.testing.assert_array_equal(views.crops[:, 1:], 0.0)


def test_crops_keep_single_pixels() -> None:
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (200, 320, 3), dtype=np.uint8)
    corners = [place(crop, frame) for crop in extract(frame).crops]
    grid = [(26, 56), (26, 168), (78, 56), (78, 168)]
    assert corners[-4:] == grid


def test_the_first_crops_are_flat_and_the_next_ones_structured() -> None:
    rows, columns = np.mgrid[0:480, 0:640]
    frame = np.full((480, 640, 3), 120, dtype=np.uint8)
    checks = (rows // 20 + columns // 20) % 2 == 0
    frame[checks & (columns >= 320)] = 250
    crops = extract(frame).crops
    assert crops[:2].std(axis=(1, 2, 3)).max() < 1e-3
    assert crops[2:4].std(axis=(1, 2, 3)).min() > 0.15


def test_a_flat_place_with_noise_counts_as_flat() -> None:
    rng = np.random.default_rng(5)
    frame = np.full((480, 640, 3), 120, dtype=np.uint8)
    rows, columns = np.mgrid[0:480, 0:640]
    frame[(rows // 24 + columns // 24) % 2 == 0] = 200
    frame[:200, :300] = 120  # the one place without structure
    noisy = np.clip(frame + rng.normal(0, 15, frame.shape), 0, 255).astype(np.uint8)
    crop = extract(noisy).crops[0]
    # Noise of 15 grey levels alone; a checkerboard of 120 and 200 would add 40.
    assert abs(float(crop.std()) * 255 - 15) < 3


def test_small_frames_are_mirrored_out() -> None:
    frame = photo(20, 40)
    mirrored = cv2.copyMakeBorder(frame, 0, 76, 0, 56, cv2.BORDER_REFLECT_101)
    for crop in extract(frame).crops:
        np.testing.assert_allclose(crop, as_rgb(np.asarray(mirrored, dtype=np.uint8)), atol=1e-6)


def test_a_frame_without_any_structure() -> None:
    views = extract(np.full((1080, 1920, 3), 77, dtype=np.uint8))
    np.testing.assert_allclose(views.crops, 77 / 255, atol=1e-6)


def test_same_frame_same_views_and_the_frame_is_left_alone() -> None:
    frame = photo(150, 220)
    before = frame.copy()
    first, second = extract(frame), extract(frame)
    np.testing.assert_array_equal(first.thumbnail, second.thumbnail)
    np.testing.assert_array_equal(first.crops, second.crops)
    np.testing.assert_array_equal(frame, before)
