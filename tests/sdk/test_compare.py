"""The side-by-side picture: its size, that frames are in it, and that nothing overflows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rirf.compare import comparison
from rirf.degradation import degrade
from rirf.diagnosis import Diagnosis
from rirf.errors import ImageError
from rirf.images import to_float
from tests.sdk.pictures import photo

pytestmark = pytest.mark.lean

BACKGROUND = (28, 23, 20)


def diagnosis(**scene: Any) -> Diagnosis:
    """A diagnosis with every effect, wide intervals and the longest texts."""
    for seed in range(200):
        found = degrade(to_float(photo()), seed).diagnosis
        if all(found.effect(name).present for name in ("fog", "shake", "rain", "noise")):
            data = found.model_dump() | scene
            for name in ("fog", "shake", "rain", "noise"):
                data[name]["interval"] = (1.0, 100.0)
            return Diagnosis.model_validate(data)
    raise LookupError("no draw with all four effects")


def plain(height: int, width: int, level: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width"),
    [(16, 16), (240, 240), (321, 481), (481, 321), (2160, 3840), (64, 2000), (2000, 64)],
)
@pytest.mark.parametrize("three", [False, True])
def test_every_size_gives_a_picture_of_useful_size(height: int, width: int, three: bool) -> None:
    frame = np.ascontiguousarray(cv2.resize(photo(), (width, height)))
    clean = frame if three else None
    picture = comparison(frame, frame, diagnosis(), clean=clean, caption="1 step, 84 ms")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert 960 <= picture.shape[1] <= 2100
    assert 500 <= picture.shape[0] <= 4000


def test_the_frames_are_shown_side_by_side_at_their_size() -> None:
    picture = comparison(plain(500, 600, 200), plain(500, 600, 100), diagnosis())
    for level in (200, 100):
        rows, columns = np.nonzero((picture == level).all(axis=2))
        # A panel is far larger than the few antialiased pixels of that grey elsewhere.
        top, left = int(np.median(rows)), int(np.median(columns))
        assert (picture[top - 200 : top + 200, left - 250 : left + 250] == level).all()
    left_half = (picture[:, : picture.shape[1] // 2] == 200).all(axis=2).sum()
    assert left_half >= 500 * 600


def test_the_original_is_shown_third() -> None:
    two = comparison(plain(300, 400, 9), plain(300, 400, 9), diagnosis())
    three = comparison(
        plain(300, 400, 9), plain(300, 400, 9), diagnosis(), clean=plain(300, 400, 77)
    )
    third = (three[:, 2 * three.shape[1] // 3 :] == 77).all(axis=2).sum()
    assert third > 300 * 300
    assert (two == 77).all(axis=2).sum() < 1000


def test_a_wide_frame_is_stacked() -> None:
    picture = comparison(plain(100, 1000, 200), plain(100, 1000, 100), diagnosis())
    above = np.nonzero((picture == 200).all(axis=2))[0]
    below = np.nonzero((picture == 100).all(axis=2))[0]
    assert np.median(above) < np.median(below)


def test_a_longer_bar_is_a_higher_severity() -> None:
    def coloured(severity: float) -> int:
        data = diagnosis().model_dump()
        data["fog"]["severity"] = severity
        data["fog"]["interval"] = (severity, severity)
        drawn = comparison(photo(), photo(), Diagnosis.model_validate(data))
        return int((drawn == (214, 186, 140)).all(axis=2).sum())

    assert coloured(20) < coloured(50) < coloured(90)


@pytest.mark.parametrize("words", ["word " * 400, "W" * 2000, ""])
def test_no_text_reaches_the_margin(words: str) -> None:
    scene = " ".join(["Mountainlandscapes"] * 29)
    picture = comparison(photo(), photo(), diagnosis(scene=scene), caption=words)
    margin = 20
    frame = np.ones(picture.shape[:2], dtype=bool)
    frame[margin:-margin, margin:-margin] = False
    assert (picture[frame] == BACKGROUND).all()
    # The card's own last columns hold no text either.
    card = np.flatnonzero((picture[-60] != BACKGROUND).any(axis=1))
    strip = picture[-90:-40, card[-1] - 8 : card[-1]]
    assert (strip == strip[0, 0]).all()


def test_more_text_makes_the_picture_taller_not_wider() -> None:
    short = comparison(photo(), photo(), diagnosis(), caption="short")
    tall = comparison(photo(), photo(), diagnosis(), caption="long caption " * 90)
    assert tall.shape[1] == short.shape[1]
    assert tall.shape[0] > short.shape[0] + 40


def test_an_unknown_scene_is_said() -> None:
    named = comparison(photo(), photo(), diagnosis(scene="Sky above."))
    unnamed = comparison(photo(), photo(), diagnosis(scene=""))
    assert named.shape == unnamed.shape
    assert (named != unnamed).any()


def test_frames_that_break_the_contract_are_refused() -> None:
    grey: Any = photo()[..., 0]
    with pytest.raises(ImageError, match="COLOR_GRAY2BGR"):
        comparison(grey, photo(), diagnosis())
    with pytest.raises(ImageError):
        comparison(photo(), photo(), diagnosis(), clean=photo(8, 8))
