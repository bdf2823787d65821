from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.scene import (
    CLASSES,
    GRID,
    WORD_LIMIT,
    SceneLayout,
    banned_words,
    check_scene,
    composition,
    describe,
    observe,
)
from tests.strategies import layouts

pytestmark = pytest.mark.lean

BANNED = """
fog foggy fogged fogs defogged unfogged antifog anti-fog haze hazy hazier haziest hazily haziness
dehazed mist mists misty misted misting mistier mistily smog smoggy murky blur blurs blurry blurred
blurring motion-blurred deblurred unblurred shake shakes shaken shaking shaky shakily unshaken
smeared smudge defocus defocused ghosting rain rains rainy raining rained rain-soaked raincoat
raindrops wet_rain derained drizzle drizzling streak streaks streaked streaky droplets downpour
noise noises noisy noisier noisily noiseless denoise denoised grain grains grainy grained
film-grain speckle speckled artifact artifacts artefact degraded degradation distorted distortion
corrupted low-contrast lowcontrast washed-out low-quality
"""
INNOCENT = """
train trains brain terrain terrains drain drainage restrain strain Ukraine rainbow rainbows hazel
hazard hazards mistake mistaken mistress mistletoe optimist chemist unmistakable handshake
milkshake Shakespeare migraine integrated fragrance noisette nosegay tournois focus focused contrast
biodegradable harness sunlit mountain range facade cobblestones quality
"""


@pytest.mark.parametrize("word", [*BANNED.split(), "out of focus", "out-of-focus", "low  contrast"])
@pytest.mark.parametrize("style", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("frame", ["{}", "A street, {}, and a house.", "({})", "'{}'", "so-{}"])
def test_degradation_words_are_refused(word: str, style: type[str], frame: str) -> None:
    text = frame.format(style(word))
    assert banned_words(text)
    with pytest.raises(ValueError, match="describe the clean scene only"):
        check_scene(text)


@pytest.mark.parametrize("word", [*INNOCENT.split(), "mountain range", "high contrast"])
@pytest.mark.parametrize("style", [str.lower, str.upper, str.title])
def test_innocent_words_are_accepted(word: str, style: type[str]) -> None:
    text = f"A {style(word)} above."
    assert banned_words(text) == []
    assert check_scene(text) == text


def test_banned_words_come_in_order() -> None:
    assert banned_words("Rain on a train in the Fog, low-contrast") == [
        "Rain",
        "Fog",
        "low-contrast",
    ]


def test_word_limit() -> None:
    assert check_scene(" ".join(["word"] * WORD_LIMIT)).count("word") == WORD_LIMIT == 30
    with pytest.raises(ValueError, match="31 words, at most 30"):
        check_scene(" ".join(["word"] * (WORD_LIMIT + 1)))


@pytest.mark.parametrize("text", [" sky", "sky ", "sky\n", "a\tb", "a\nb", "a\x00b", "a\u2028b"])
def test_one_printable_line(text: str) -> None:
    with pytest.raises(ValueError, match="one line of printable text"):
        check_scene(text)


def test_no_description_is_allowed() -> None:
    assert check_scene("") == ""


@given(layouts())
def test_descriptions_keep_the_rule(layout: SceneLayout) -> None:
    text = describe(layout)
    assert check_scene(text) == text
    assert len(text.split()) <= WORD_LIMIT
    assert text[0].isupper()
    assert text.endswith(".")
    assert describe(layout) == text


@given(layouts())
def test_composition_names_what_covers_the_frame(layout: SceneLayout) -> None:
    shares = composition(layout)
    if layout.classes is None:
        assert shares == {}
        return
    means = dict(zip(CLASSES, layout.classes.mean(axis=(1, 2)), strict=True))
    assert set(shares) == {name for name, share in means.items() if share >= 0.02}
    for name, share in shares.items():
        assert share == pytest.approx(means[name], abs=6e-4)
    assert list(shares) == [name for name in CLASSES if name in shares]
    assert sum(shares.values()) <= 1.0 + 1e-3 * len(CLASSES)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Blue sky over grey road, a textured tree on the left, class labels to match."""
    image = np.zeros((64, 80, 3), dtype=np.float32)
    labels = np.zeros((64, 80), dtype=np.uint8)
    image[:32] = (0.45, 0.6, 0.9)
    image[32:] = (0.4, 0.4, 0.4)
    labels[32:] = CLASSES.index("road")
    labels[16:48, :20] = CLASSES.index("tree")
    image[16:48, :20] = (0.1, 0.4, 0.1)
    image[16:48:2, :20] = (0.2, 0.6, 0.2)
    return image, labels


def test_observe_and_describe_a_known_scene() -> None:
    image, labels = street()
    layout = observe(image, labels)
    assert layout.classes is not None
    assert layout.classes.shape == (len(CLASSES), GRID, GRID)
    assert layout.classes.dtype == layout.colours.dtype == layout.detail.dtype == np.float32
    np.testing.assert_allclose(layout.classes.sum(axis=0), 1.0, atol=1e-6)
    np.testing.assert_allclose(layout.colours[:, 0, 3], (0.45, 0.6, 0.9), atol=1e-6)
    assert composition(layout) == {"sky": 0.438, "road": 0.438, "tree": 0.125}
    text = describe(layout)
    assert text.startswith("Sky above, road below, trees left; ")
    assert "fine leaf texture" in text
    assert "blue above" in text
    assert np.unravel_index(layout.detail.argmax(), layout.detail.shape)[1] == 0


def test_without_labels_colours_and_detail_are_described() -> None:
    image, _ = street()
    layout = observe(image)
    assert layout.classes is None
    assert composition(layout) == {}
    text = describe(layout)
    assert "most fine detail left" in text
    assert "blue above" in text


def test_unlabelled_pixels_belong_to_no_class() -> None:
    image, labels = street()
    layout = observe(image, np.full_like(labels, len(CLASSES)))
    assert layout.classes is not None
    assert not layout.classes.any()
    assert check_scene(describe(layout))


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 2**32 - 1))
def test_cell_means_cover_every_pixel_once(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    layout = observe(image)
    rows = [len(part) for part in np.array_split(np.arange(height), GRID)]
    columns = [len(part) for part in np.array_split(np.arange(width), GRID)]
    weights = np.outer(rows, columns) / (height * width)
    np.testing.assert_allclose(
        (layout.colours * weights).sum(axis=(1, 2)), image.mean(axis=(0, 1)), rtol=1e-4
    )


@pytest.mark.parametrize("above_one", [1.0, 1.0 + 1e-6])
def test_white_is_named_even_when_rounding_exceeds_one(above_one: float) -> None:
    colours = np.full((3, GRID, GRID), above_one, dtype=np.float32)
    colours[2] = 2.0 - above_one
    text = describe(SceneLayout(None, colours, np.zeros((GRID, GRID), dtype=np.float32)))
    assert "white throughout" in text
