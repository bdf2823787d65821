from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rirf.degradation import fog
from rirf.degradation.fog import BETA_RANGE, TRANSMISSION_FLOOR, FogParameters
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

BETAS = st.floats(*BETA_RANGE)
PRIORS = arrays(np.float32, (5, 7), elements=st.floats(0.0, 1.0, width=32))
IMAGES = arrays(np.float32, (5, 7, 3), elements=st.floats(0.0, 1.0, width=32))
LIGHTS = st.tuples(*[st.floats(0.7, 1.0)] * 3)


@given(SEEDS)
def test_samples_lie_in_their_ranges(seed: int) -> None:
    assert 0.8 <= fog.sample(seed).beta < 3.0
    light = fog.sample_atmospheric_light(seed)
    assert len(light) == 3
    assert all(0.7 <= channel < 1.0 for channel in light)
    assert fog.sample(seed) == fog.sample(seed)


def test_samples_fill_their_ranges() -> None:
    betas = [fog.sample(seed).beta for seed in range(500)]
    lights = np.array([fog.sample_atmospheric_light(seed) for seed in range(500)])
    assert min(betas) < 0.85 and max(betas) > 2.95
    assert np.mean(betas) == pytest.approx(1.9, abs=0.15)
    assert lights.min() < 0.71 and lights.max() > 0.99
    assert np.abs(np.corrcoef(lights.T) - np.eye(3)).max() < 0.2


@given(PRIORS, BETAS)
def test_transmission_range(prior: np.ndarray, beta: float) -> None:
    t = fog.transmission(prior, FogParameters(beta))
    assert t.dtype == np.float32
    assert t.shape == prior.shape
    assert t.min() >= np.float32(TRANSMISSION_FLOOR)
    assert t.max() <= 1.0
    expected = np.clip(prior.astype(np.float64) ** beta, 0.05, 1.0)
    np.testing.assert_allclose(t, expected, rtol=1e-5)


@given(PRIORS, BETAS, BETAS)
def test_denser_fog_transmits_less(prior: np.ndarray, one: float, other: float) -> None:
    thin, dense = sorted((one, other))
    assert np.all(
        fog.transmission(prior, FogParameters(dense))
        <= fog.transmission(prior, FogParameters(thin)) + np.float32(1e-6)
    )


def test_nearer_points_transmit_more() -> None:
    prior = np.linspace(0.2, 1.0, 50, dtype=np.float32)[None]
    assert np.all(np.diff(fog.transmission(prior, FogParameters(1.7))[0]) > 0)


@given(IMAGES, PRIORS, BETAS, LIGHTS)
def test_apply_mixes_and_invert_undoes_it(
    image: np.ndarray, prior: np.ndarray, beta: float, light: tuple[float, float, float]
) -> None:
    t = fog.transmission(prior, FogParameters(beta))
    foggy = fog.apply(image, t, light)
    assert foggy.dtype == np.float32
    expected = image * t[..., None].astype(np.float64) + np.array(light) * (1.0 - t[..., None])
    np.testing.assert_allclose(foggy, expected, atol=1e-6)
    restored = fog.invert(foggy, t, light, floor=TRANSMISSION_FLOOR)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, image, atol=1e-5)  # rounding, at most 1/0.05-fold
    # Below the floor the estimate keeps some fog instead of blowing up what little is left.
    clear = t > 0.1
    careful = fog.invert(foggy, t, light)
    np.testing.assert_allclose(careful[clear], image[clear], atol=1e-5)
    assert careful.min() >= 0.0 and careful.max() <= 1.0


def test_floor_bounds_the_amplification() -> None:
    light = (0.9, 0.9, 0.9)
    t = np.full((1, 1), 0.05, dtype=np.float32)
    foggy = fog.apply(np.full((1, 1, 3), 0.5, dtype=np.float32), t, light)
    bump = fog.invert(foggy + np.float32(0.01), t, light) - fog.invert(foggy, t, light)
    np.testing.assert_allclose(bump, 0.01 / 0.1, rtol=1e-3)


@given(IMAGES, LIGHTS)
def test_end_points_of_the_model(image: np.ndarray, light: tuple[float, float, float]) -> None:
    np.testing.assert_array_equal(fog.apply(image, np.ones((5, 7), np.float32), light), image)
    hidden = fog.apply(image, np.zeros((5, 7), np.float32), light)
    np.testing.assert_array_equal(hidden, np.broadcast_to(np.array(light, np.float32), image.shape))


def test_severity_end_points() -> None:
    assert fog.severity(1.0) == 1.0
    assert fog.severity(TRANSMISSION_FLOOR) == pytest.approx(100.0)
    assert fog.severity(0.525) == pytest.approx(50.5)
    assert fog.severity(0.0) == 100.0  # outside what transmission() gives, still a valid score


@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_severity_falls_with_transmission(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 1.0 <= fog.severity(high) <= fog.severity(low) <= 100.0
