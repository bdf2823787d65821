from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation import noise
from rirf.degradation.noise import NoiseParameters
from rirf.degradation.philox import Stage, Stream, normals
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

PARAMETERS = st.builds(
    NoiseParameters, gain=st.floats(*noise.GAIN_RANGE), offset=st.floats(*noise.OFFSET_RANGE)
)


@given(SEEDS)
def test_samples_lie_in_their_ranges(seed: int) -> None:
    found = noise.sample(seed)
    assert 0.0 <= found.gain < 0.3
    assert -20.0 <= found.offset < 20.0
    assert noise.sample(seed) == found


def test_samples_fill_their_ranges() -> None:
    samples = [noise.sample(seed) for seed in range(500)]
    gains = np.array([s.gain for s in samples])
    offsets = np.array([s.offset for s in samples])
    assert gains.min() < 0.005 and gains.max() > 0.295
    assert offsets.min() < -19 and offsets.max() > 19
    assert abs(np.corrcoef(gains, offsets)[0, 1]) < 0.2


@given(PARAMETERS, st.integers(0, 255))
def test_sigma_in_grey_levels(parameters: NoiseParameters, level: int) -> None:
    image = np.full((2, 2, 3), level / 255, dtype=np.float32)
    found = noise.sigma(image, parameters)
    assert found.dtype == np.float32
    assert found.shape == image.shape
    assert found.min() >= 0.0
    expected = abs(parameters.gain * level + parameters.offset)
    np.testing.assert_allclose(found * 255.0, expected, atol=2e-4)


def test_sigma_of_values_outside_the_range_is_that_of_the_border() -> None:
    parameters = NoiseParameters(0.2, 5.0)
    wild = np.array([[[-0.5, 1.8, 0.4]]], dtype=np.float32)
    np.testing.assert_array_equal(
        noise.sigma(wild, parameters), noise.sigma(np.clip(wild, 0, 1), parameters)
    )


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.0, 12.0), (0.3, 0.0), (0.1, -20.0), (0.25, 15.0), (0.15, -15.0)]
)
@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_statistics_of_the_output(gain: float, offset: float, level: int) -> None:
    image = np.full((160, 160, 3), level / 255, dtype=np.float32)
    deviation = noise.sigma(image, NoiseParameters(gain, offset))
    field = (noise.apply(image, 31 + level, deviation) - image).astype(np.float64) * 255
    expected = abs(gain * level + offset)
    samples = image.size
    assert field.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * samples), abs=1e-4)
    assert field.mean() == pytest.approx(0.0, abs=5 * expected / np.sqrt(samples) + 1e-4)
    if expected > 1:
        channels = np.corrcoef(field.reshape(-1, 3).T) - np.eye(3)
        assert np.abs(channels).max() < 5 / np.sqrt(samples / 3)
        shifted = np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]
        assert abs(shifted) < 5 / np.sqrt(samples)


def test_noise_is_numbered_by_row_column_channel() -> None:
    image = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    deviation = np.full_like(image, 0.1)
    found = (noise.apply(image, 12, deviation) - image) / np.float32(0.1)
    numbers = normals(12, Stage.NOISE, Stream.FIELD, 5 * 7 * 3)
    for row, column, channel in [(0, 0, 0), (0, 0, 2), (0, 6, 1), (4, 3, 0)]:
        expected = numbers[(row * 7 + column) * 3 + channel]
        assert found[row, column, channel] == pytest.approx(expected, abs=1e-5)


def test_noise_is_not_clipped_here() -> None:
    image = np.zeros((40, 40, 3), dtype=np.float32)
    found = noise.apply(image, 1, np.full_like(image, 0.2))
    assert found.dtype == np.float32
    assert found.min() < -0.3 and found.max() > 0.3


def test_no_deviation_no_noise() -> None:
    image = np.random.default_rng(0).random((9, 9, 3), dtype=np.float32)
    np.testing.assert_array_equal(noise.apply(image, 1, np.zeros_like(image)), image)


@given(PARAMETERS, st.floats(0.0, 1.0, width=32))
def test_severity_comes_from_the_variance(parameters: NoiseParameters, level: float) -> None:
    image = np.full((3, 3, 3), level, dtype=np.float32)
    deviation = noise.sigma(image, parameters)
    mean_variance = noise.variance(deviation)
    assert mean_variance == pytest.approx(
        ((parameters.gain * 255 * level + parameters.offset) / 255) ** 2, rel=1e-3, abs=1e-8
    )
    assert noise.severity(mean_variance) == pytest.approx(min(100.0, mean_variance / 0.05 * 99 + 1))


def test_variance_is_a_mean_over_pixels() -> None:
    deviation = np.array([[[0.1, 0.2, 0.3]], [[0.0, 0.0, 0.0]]], dtype=np.float32)
    assert noise.variance(deviation) == pytest.approx((0.01 + 0.04 + 0.09) / 6)


def test_severity_end_points() -> None:
    assert noise.severity(0.0) == 1.0
    assert noise.severity(0.025) == pytest.approx(50.5)
    assert noise.severity(0.05) == 100.0
    assert noise.severity(1.0) == 100.0


def test_few_draws_reach_the_end_of_the_scale() -> None:
    # The reason for scoring the variance: by the deviation most draws would sit at 100.
    image = np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 10, 3)
    scores = [
        noise.severity(noise.variance(noise.sigma(image, noise.sample(seed))))
        for seed in range(400)
    ]
    assert np.mean(np.array(scores) >= 100.0) < 0.1
