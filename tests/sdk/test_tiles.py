from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.tiles import spans

pytestmark = pytest.mark.lean


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(length, tile, overlap, multiple) that can cover an axis."""
    multiple = draw(st.sampled_from((1, 4, 16)))
    tile = multiple * draw(st.integers(2, 40))
    overlap = draw(st.integers(0, tile - multiple))
    return draw(st.integers(1, 3 * tile)), tile, overlap, multiple


@given(layouts())
def test_weights_sum_to_one_at_every_pixel(layout: tuple[int, int, int, int]) -> None:
    length = layout[0]
    total = np.zeros(length)
    for span in spans(*layout):
        assert span.weights.shape == (span.stop - span.start,)
        assert span.weights.dtype == np.float32
        assert span.weights.min() > -1e-6
        total[span.start : span.stop] += span.weights
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@given(layouts())
def test_tiles_cover_the_axis_on_the_grid_and_within_their_size(
    layout: tuple[int, int, int, int],
) -> None:
    length, tile, overlap, multiple = layout
    found = spans(*layout)
    assert found[0].start == 0
    assert found[-1].stop == length
    assert all(span.start % multiple == 0 for span in found)
    assert all(0 < span.stop - span.start <= tile for span in found)
    for left, right in itertools.pairwise(found):
        assert left.start < right.start
        assert left.stop - right.start >= overlap


@given(layouts())
def test_no_more_tiles_than_needed(layout: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = layout
    # The widest stride that keeps the overlap and the grid.
    stride = (tile - overlap) // multiple * multiple
    assert len(spans(*layout)) == 1 + max(0, -(-(length - tile) // stride))


def test_a_frame_barely_larger_than_a_tile() -> None:
    found = spans(1030, 1024, 64, 16)
    assert [(span.start, span.stop) for span in found] == [(0, 1024), (16, 1030)]


def test_weights_fall_over_the_middle_half_of_the_overlap_alone() -> None:
    first, second = spans(150, 100, 48, 4)
    assert (second.start, first.stop) == (52, 100)
    np.testing.assert_array_equal(first.weights[:64], 1.0)
    np.testing.assert_array_equal(second.weights[36:], 1.0)
    assert np.all(np.diff(first.weights[63:88]) < 0)
    # The pixels next to a tile's edge lack their surroundings: they count nothing.
    np.testing.assert_array_equal(first.weights[88:], 0.0)
    np.testing.assert_array_equal(second.weights[:12], 0.0)
    np.testing.assert_allclose(first.weights[52:], second.weights[:48][::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "multiple"),
    [
        pytest.param(0, 64, 16, 16, id="no pixels"),
        pytest.param(100, 60, 16, 16, id="tile off the grid"),
        pytest.param(100, 64, -1, 16, id="negative overlap"),
        pytest.param(100, 64, 49, 16, id="no stride left"),
    ],
)
def test_impossible_sizes(length: int, tile: int, overlap: int, multiple: int) -> None:
    with pytest.raises(ValueError, match=f"cannot cover {length} pixels by tiles of {tile}"):
        spans(length, tile, overlap, multiple)
