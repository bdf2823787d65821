from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.errors import EngineError
from rirf.restorer import TILE
from rirf.shapes import DEFAULT_SHAPES, Shapes, parse_shapes

pytestmark = pytest.mark.lean

SIDE = st.integers(1, TILE)


@given(st.lists(SIDE, min_size=3, max_size=3), st.lists(SIDE, min_size=3, max_size=3))
def test_shapes_are_read_as_they_are_written(widths: list[int], heights: list[int]) -> None:
    shapes = Shapes(*zip(sorted(widths), sorted(heights), strict=True))
    assert parse_shapes(str(shapes)) == shapes
    assert shapes.axes == {"height": tuple(sorted(heights)), "width": tuple(sorted(widths))}


@given(st.text(max_size=20))
def test_any_text_is_shapes_or_a_clear_error(text: str) -> None:
    try:
        shapes = parse_shapes(text)
    except EngineError as error:
        assert "shapes" in str(error)
    else:
        assert parse_shapes(str(shapes)) == shapes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("512x512", "expected MIN:OPT:MAX"),
        ("1x1:2x2", "expected MIN:OPT:MAX"),
        ("64x64:512x512:1024", "each WIDTHxHEIGHT"),
        ("64x64:512x512:-1x9", "each WIDTHxHEIGHT"),
        ("0x64:512x512:1024x1024", "the widths are 0, 512, 1024"),
        ("64x600:512x512:1024x1024", "the heights are 600, 512, 1024; expected 0 < MIN"),
        ("64x64:512x512:1920x1024", f"the largest width is 1920; expected {TILE} at most"),
    ],
)
def test_shapes_that_contradict(text: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        parse_shapes(text)


def test_the_default_reaches_from_the_smallest_frame_to_a_whole_tile() -> None:
    assert str(DEFAULT_SHAPES) == "16x16:512x512:1024x1024"
    assert parse_shapes(str(DEFAULT_SHAPES)) == DEFAULT_SHAPES
