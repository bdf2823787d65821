"""The residual is 0 for the truth, as large as said for noise and rain, and grows with an error."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rirf.consistency import (
    BLOCK,
    DISCREPANCY_MAX,
    Consistency,
    assess,
    measure,
    model_of,
    psf_of,
    streak_levels,
)
from rirf.degradation import (
    Degraded,
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    shake,
)
from rirf.degradation import rain as rains
from rirf.diagnosis import Diagnosis, RainDiagnosis, ShakeDiagnosis
from rirf.errors import ImageError
from rirf.images import to_float, to_uint8
from rirf.reasoner import Reading
from tests.sdk.pictures import photo
from tests.strategies import diagnoses

pytestmark = pytest.mark.lean

LIGHT = (0.8, 0.85, 0.92)
FOG = FogParameters(beta=1.4)
SHAKE = ShakeParameters(steps=20, step_px=1.2)
RAIN = RainParameters(density=0.003, slant_deg=12.0, length_px=24.0, width_px=1.6, opacity=0.6)
NOISE = NoiseParameters(gain=0.12, offset=4.0)
# What rounding the degraded frame to 8 bits alone leaves.
ROUNDING = 1.0 / (255.0 * math.sqrt(12.0))


def scene(height: int = 192, width: int = 256) -> NDArray[np.uint8]:
    """A picture with detail in it and all levels, uint8 BGR."""
    rng = np.random.default_rng(5)
    texture = cv2.GaussianBlur(rng.normal(0, 60, (height, width, 3)), (0, 0), 1.5)
    picture: NDArray[np.uint8] = np.clip(photo(height, width) + texture, 0, 255).astype(np.uint8)
    return picture


def drawn(
    clean: NDArray[np.uint8], seed: int = 3, **effects: Any
) -> tuple[NDArray[np.uint8], Reading, Degraded]:
    """A degraded frame and the truth about it."""
    recipe = Recipe(atmospheric_light=LIGHT, **effects)
    done = degrade(to_float(clean), seed, recipe=recipe)
    return to_uint8(done.image), Reading(done.diagnosis, done.transmission), done


def altered(reading: Reading, name: str, **fields: Any) -> Reading:
    assert reading.diagnosis is not None
    data = reading.diagnosis.model_dump()
    data[name].update(fields)
    return Reading(Diagnosis.model_validate(data), reading.transmission)


def test_the_truth_without_chance_leaves_nothing() -> None:
    clean = scene()
    both: tuple[dict[str, Any], ...] = ({}, {"fog": FOG})
    for effects in both:
        frame, reading, _ = drawn(clean, **effects)
        found = assess(frame, clean, reading)
        assert found.residual == pytest.approx(ROUNDING if effects else 0.0, rel=0.05, abs=1e-6)
        assert found.expected == pytest.approx(ROUNDING, rel=1e-4)
        assert found.unexplained < 3e-4
        assert found.consistent


def test_the_true_kernel_leaves_nothing() -> None:
    clean = scene()
    frame, reading, done = drawn(clean, fog=FOG, shake=SHAKE)
    exact = dataclasses.replace(model_of(reading.diagnosis), psf=done.psf)
    moments = measure(frame, clean, done.transmission, exact)
    assert math.sqrt(moments.square) == pytest.approx(ROUNDING, rel=0.05)
    # A Gaussian with its moments is no such match, but far nearer than no blur at all.
    stand_in = assess(frame, clean, reading).unexplained
    ignored = math.sqrt(
        measure(frame, clean, done.transmission, dataclasses.replace(exact, psf=None)).square
    )
    assert stand_in < 0.5 * ignored


@pytest.mark.parametrize(
    "noise",
    [
        NOISE,
        NoiseParameters(0.0, 20.0),
        NoiseParameters(0.3, -20.0),
        NoiseParameters(0.3, 20.0),  # so strong that a good part is clipped
    ],
)
def test_noise_is_as_large_as_expected(noise: NoiseParameters) -> None:
    clean = scene()
    both: tuple[dict[str, Any], ...] = ({}, {"fog": FOG})
    for effects in both:
        frame, reading, _ = drawn(clean, noise=noise, **effects)
        found = assess(frame, clean, reading)
        assert found.residual == pytest.approx(found.expected, rel=0.02)
        assert found.coarse_residual == pytest.approx(found.coarse_expected, rel=0.06)
        assert found.coarse_expected == pytest.approx(found.expected / BLOCK, rel=1e-3)
        assert found.discrepancy < 0.003


@pytest.mark.parametrize("opacity", [0.4, 0.9])
@pytest.mark.parametrize("density", [0.0005, 0.003, 0.01])
def test_rain_is_as_large_as_expected(density: float, opacity: float) -> None:
    clean = scene(384, 384)
    rain = dataclasses.replace(RAIN, density=density, opacity=opacity)
    frame, reading, _ = drawn(clean, rain=rain, noise=NOISE)
    found = assess(frame, clean, reading)
    assert found.residual == pytest.approx(found.expected, rel=0.06)
    assert found.coarse_residual == pytest.approx(found.coarse_expected, rel=0.12)


@pytest.mark.parametrize(
    "rain",
    [
        RAIN,
        dataclasses.replace(RAIN, density=0.01, length_px=60.0, width_px=3.0),
        dataclasses.replace(RAIN, density=0.0005, length_px=15.0, width_px=1.0, slant_deg=-30.0),
    ],
)
def test_streak_levels_are_those_of_masks(rain: RainParameters) -> None:
    masks = np.stack([rains.mask(seed, rain, 400, 400) for seed in range(4)])
    covered = float(np.mean(masks > rains.COVERAGE_THRESHOLD))
    severity = rains.severity(covered)
    diagnosed = RainDiagnosis(
        present=True,
        probability=1.0,
        severity=severity,
        interval=(severity, severity),
        coverage=covered,
        **dataclasses.asdict(rain),
    )
    values, shares, ratio = streak_levels(diagnosed)
    assert shares.sum() == pytest.approx(1.0)
    assert shares.min() >= 0.0
    mean = values @ shares
    variance = values**2 @ shares - mean**2
    assert mean == pytest.approx(masks.mean(), rel=0.03)
    assert variance == pytest.approx(masks.var(), rel=0.04)
    assert shares[-1] == pytest.approx(np.mean(masks > 1.0 - 0.5 / 64), abs=0.02)
    cells = masks.reshape(4, 50, BLOCK, 50, BLOCK).mean(axis=(2, 4))
    # Saturation, which the ratio leaves out, evens out what happens inside a block.
    assert ratio == pytest.approx(cells.var() / masks.var(), rel=0.2)


def reference(
    frame: NDArray[np.uint8], restored: NDArray[np.uint8], t: NDArray[np.float32], model: Any
) -> tuple[float, float, float, float]:
    """The docstring of ``measure``, in float64 and as literally as possible."""
    y, j = (image[..., ::-1] / 255.0 for image in (frame, restored))
    light = np.array(model.light)
    x = t[..., None] * (j - light) + light
    if model.psf is not None:
        half = model.psf.shape[0] // 2
        wide = np.pad(x, ((half, half), (half, half), (0, 0)), mode="reflect")
        height, width = t.shape
        x = sum(
            float(weight) * wide[2 * half - row :, 2 * half - column :][:height, :width]
            for (row, column), weight in np.ndenumerate(model.psf)
            if weight
        )
    level = np.clip(np.floor(255.0 * x + 0.5), 0, 255).astype(int)
    channel = np.arange(3)
    r = y - x - model.shift[level, channel]
    rows, columns = (size // BLOCK for size in t.shape)
    whole = r[: rows * BLOCK, : columns * BLOCK]
    b = whole.reshape(rows, BLOCK, columns, BLOCK, 3).mean(axis=(1, 3))
    return (
        float(np.mean(r**2)),
        float(np.mean(model.variance[level, channel], dtype=np.float64)),
        float(np.mean(b**2)),
        float(np.mean(model.block_variance[level, channel], dtype=np.float64)),
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(31, 70),
    width=st.integers(31, 70),
)
def test_measure_is_its_formula(seed: int, height: int, width: int) -> None:
    clean = scene()[:height, :width]
    done = degrade(to_float(clean), seed)
    frame = to_uint8(done.image)
    rng = np.random.default_rng(seed)
    restored = np.clip(clean + rng.integers(-30, 31, clean.shape), 0, 255).astype(np.uint8)
    model = model_of(done.diagnosis)
    found = measure(frame, restored, done.transmission, model)
    expected = reference(frame, restored, done.transmission, model)
    # Root mean squares are what is reported.
    np.testing.assert_allclose(
        np.sqrt(dataclasses.astuple(found)), np.sqrt(expected), rtol=0, atol=1e-5
    )


def test_views_and_contiguous_copies_agree() -> None:
    clean = scene()
    frame, reading, _ = drawn(clean, fog=FOG, shake=SHAKE, rain=RAIN, noise=NOISE)
    window = np.s_[3:97, 11:150]
    assert reading.transmission is not None
    t = reading.transmission[window]
    model = model_of(reading.diagnosis)
    views = measure(frame[window], clean[window], t, model)
    copies = measure(frame[window].copy(), clean[window].copy(), t.copy(), model)
    assert views == copies


def growing(errors: list[Reading], frame: NDArray[np.uint8], restored: NDArray[np.uint8]) -> None:
    found = [assess(frame, restored, reading) for reading in errors]
    unexplained = [each.unexplained for each in found]
    assert unexplained == sorted(unexplained), unexplained
    assert unexplained[-1] > 5 * unexplained[0]
    coarse = [each.coarse_unexplained for each in found]
    assert coarse == sorted(coarse), coarse


def test_a_wrong_light_shows() -> None:
    clean = scene()
    frame, reading, _ = drawn(clean, fog=FOG, noise=NOISE)
    for sign in (-1.0, 1.0):
        lights = [tuple(value + sign * error for value in LIGHT) for error in (0, 0.03, 0.05, 0.08)]
        growing([altered(reading, "fog", atmospheric_light=each) for each in lights], frame, clean)


def test_a_wrong_transmission_shows() -> None:
    clean = scene()
    frame, reading, _ = drawn(clean, fog=FOG, noise=NOISE)
    assert reading.transmission is not None
    for sign in (-1.0, 1.0):
        maps = [
            np.clip(reading.transmission + np.float32(sign * error), 0.01, 1.0, dtype=np.float32)
            for error in (0.0, 0.1, 0.2, 0.3)
        ]
        growing([Reading(reading.diagnosis, each) for each in maps], frame, clean)


def test_a_wrong_noise_shows_on_both_sides() -> None:
    clean = scene()
    frame, reading, _ = drawn(clean, noise=NOISE)
    less = [altered(reading, "noise", gain=gain) for gain in (0.12, 0.09, 0.05, 0.0)]
    found = [assess(frame, clean, each) for each in less]
    assert [each.unexplained for each in found] == sorted(each.unexplained for each in found)
    assert found[0].unexplained < 0.3 * found[-1].unexplained
    more = [altered(reading, "noise", gain=gain) for gain in (0.12, 0.18, 0.24, 0.3)]
    found = [assess(frame, clean, each) for each in more]
    discrepancies = [each.discrepancy for each in found]
    assert discrepancies == sorted(discrepancies)
    assert found[0].consistent and not found[-1].consistent


def test_a_wrong_shake_shows() -> None:
    clean = scene()
    frame, reading, done = drawn(clean, shake=SHAKE)
    assert done.psf is not None
    moments = shake.moments(done.psf)
    right = assess(frame, clean, reading)
    turned = altered(reading, "shake", direction_deg=(moments.direction_deg + 90.0) % 180.0)
    absent = altered(reading, "shake", present=False, severity=0.0, interval=(0.0, 0.0))
    assert right.unexplained < assess(frame, clean, turned).unexplained
    assert right.unexplained < assess(frame, clean, absent).unexplained


@settings(max_examples=60)
@given(
    direction=st.floats(0.0, 180.0, exclude_max=True),
    length=st.floats(1.5, 4.0),
    aspect=st.floats(0.3, 1.0),
)
def test_a_kernel_has_the_diagnosed_moments(direction: float, length: float, aspect: float) -> None:
    rms = length * math.sqrt(1.0 + aspect**2)
    severity = shake.severity(rms)
    diagnosed = ShakeDiagnosis(
        present=True,
        probability=1.0,
        severity=severity,
        interval=(severity, severity),
        direction_deg=direction,
        length_px=length,
        energy=0.2,
    )
    psf = psf_of(diagnosed)
    assert psf is not None
    assert psf.shape == (shake.KERNEL_SIZE, shake.KERNEL_SIZE)
    assert psf.dtype == np.float32
    assert psf.min() >= 0.0
    assert psf.sum() == pytest.approx(1.0, abs=1e-5)
    found = shake.moments(psf)
    assert found.length_px == pytest.approx(length, rel=0.04)
    assert found.rms_px == pytest.approx(rms, rel=0.04)
    if aspect < 0.8:
        off = (found.direction_deg - direction + 90.0) % 180.0 - 90.0
        assert abs(off) < 2.0


def test_no_blur_is_no_kernel() -> None:
    clean = scene(64, 64)
    _, reading, _ = drawn(clean, shake=SHAKE)
    still = altered(reading, "shake", severity=1.0, interval=(1.0, 1.0), length_px=0.0)
    absent = altered(reading, "shake", present=False, severity=0.0, interval=(0.0, 0.0))
    for each in (still, absent):
        assert each.diagnosis is not None
        assert psf_of(each.diagnosis.shake) is None


@pytest.mark.filterwarnings("error")
@given(diagnosis=diagnoses())
def test_any_diagnosis_gives_finite_numbers(diagnosis: Diagnosis) -> None:
    clean = scene(32, 40)
    found = assess(clean, clean, Reading(diagnosis))
    assert all(math.isfinite(value) for value in dataclasses.astuple(found))
    assert found.expected >= 0.99 * ROUNDING
    assert 0.0 <= found.residual <= 1.5
    model = model_of(diagnosis)
    # No value in [0, 1] deviates by more than a half.
    assert model.variance.max() <= 0.25 + 1e-4
    assert np.abs(model.shift).max() <= 1.0 + 1e-6


def test_without_a_diagnosis_nothing_is_expected() -> None:
    clean = scene(64, 64)
    frame, _, _ = drawn(clean, fog=FOG)
    assert assess(frame, frame, Reading()).residual == pytest.approx(0.0, abs=1e-6)
    found = assess(frame, clean, Reading())
    apart = np.sqrt(np.mean(np.square((frame.astype(float) - clean) / 255.0)))
    assert found.residual == pytest.approx(apart, rel=1e-5)
    assert found.expected == pytest.approx(ROUNDING, rel=1e-4)


def test_a_coarse_map_is_enlarged() -> None:
    clean = scene()
    frame, reading, done = drawn(clean, fog=FOG)
    small = cv2.resize(done.transmission, (32, 32), interpolation=cv2.INTER_AREA)
    exact = assess(frame, clean, reading)
    coarse = assess(frame, clean, Reading(reading.diagnosis, np.minimum(small, np.float32(1.0))))
    flat = assess(frame, clean, Reading(reading.diagnosis))
    assert exact.residual <= coarse.residual < 0.5 * flat.residual


def test_figures() -> None:
    found = Consistency(residual=0.05, expected=0.03, coarse_residual=0.01, coarse_expected=0.02)
    assert found.unexplained == pytest.approx(0.04)
    assert found.coarse_unexplained == 0.0
    assert found.discrepancy == pytest.approx(0.02)
    assert found.consistent
    assert found.to_text() == "consistent to 5.1 grey levels"
    worse = dataclasses.replace(found, coarse_residual=0.06)
    assert worse.discrepancy == pytest.approx(0.04) and worse.discrepancy > DISCREPANCY_MAX
    assert worse.to_text() == "INCONSISTENT by 10.2 grey levels"
    record = worse.to_dict()
    assert record["consistent"] is False
    assert record["coarse_unexplained"] == pytest.approx(math.sqrt(0.06**2 - 0.02**2), abs=1e-6)
    assert pickle.loads(pickle.dumps(worse)) == worse


CLEAN = scene(32, 40)


@pytest.mark.parametrize(
    ("frame", "restored", "message"),
    [
        (None, CLEAN, "frame is NoneType; expected uint8 BGR"),
        (CLEAN[..., 0], CLEAN, "frame is uint8"),
        (CLEAN.astype(np.float32), CLEAN, "frame is float32"),
        (CLEAN[:7], CLEAN[:7], "H and W >= 8"),
        (CLEAN, CLEAN[:-1], "restored is uint8 .*of the frame's size"),
        (CLEAN, CLEAN / 255.0, "restored is float64"),
        (CLEAN, None, "restored is NoneType"),
    ],
)
def test_bad_frames(frame: Any, restored: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        assess(frame, restored, Reading())


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(np.ones(4, np.float32), id="one axis"),
        pytest.param(np.ones((4, 4, 3), np.float32), id="channels"),
        pytest.param(np.ones((0, 4), np.float32), id="empty"),
        pytest.param(np.full((4, 4), -0.1, np.float32), id="negative"),
        pytest.param(np.full((4, 4), 1.01, np.float32), id="above one"),
        pytest.param(np.full((4, 4), np.nan, np.float32), id="not a number"),
    ],
)
def test_bad_maps(bad: Any) -> None:
    _, reading, _ = drawn(CLEAN, fog=FOG)
    with pytest.raises(ImageError, match=r"transmission is .*; expected"):
        assess(CLEAN, CLEAN, Reading(reading.diagnosis, bad))
    with pytest.raises(ImageError, match=r"transmission is .*of the frame's size \(32, 40\)"):
        measure(CLEAN, CLEAN, np.ones((4, 4), np.float32), model_of(None))
