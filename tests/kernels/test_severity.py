"""Reductions and scores: native and NumPy agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation import fog, noise, rain, shake
from tests.kernels.layouts import laid_out, layouts, pixels, sizes

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)


@given(DATA, st.integers(1, 4), sizes(), layouts())
def test_means_agree(data: int, count: int, size: tuple[int, int], layout: str) -> None:
    maps = pixels(data, count, *size)
    expected = maps.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(native.means(laid_out(maps, layout)), expected, rtol=0, atol=1e-6)


@given(DATA, st.integers(1, 4), sizes(), layouts(), st.floats(0.0, 1.0))
def test_coverage_is_exact(
    data: int, count: int, size: tuple[int, int], layout: str, threshold: float
) -> None:
    maps = pixels(data, count, *size)
    expected = (maps > np.float32(threshold)).mean(axis=(1, 2))
    found = native.coverage(laid_out(maps, layout), threshold=threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)


def test_the_default_threshold_is_that_of_rain() -> None:
    levels = (np.arange(65536) / 65536).astype(np.float32).reshape(256, 256)
    assert native.coverage(levels)[0] == rain.coverage(levels)


def test_a_large_map_keeps_its_digits() -> None:
    # A float32 sum of these would be off in its third digit.
    level = np.float32(0.1)
    assert native.means(np.full((3000, 3000), level))[0] == pytest.approx(float(level), rel=1e-6)


@given(
    st.integers(0, 15),
    st.floats(0.0, 1.0),
    st.floats(0.0, 25.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_scores_agree(
    present: int, transmission: float, rms: float, covered: float, variance: float
) -> None:
    truth = np.zeros(1, dtype=native.TRUTH)
    truth["transmission_mean"] = transmission
    truth["rms_px"] = rms
    truth["coverage"] = covered
    truth["variance"] = variance
    assert native.severities(native.recipes(1, present=present), truth) is truth
    scores = (
        fog.severity(transmission),
        shake.severity(rms),
        rain.severity(covered),
        noise.severity(variance),
    )
    for index, score in enumerate(scores):
        expected = score if present & (1 << index) else 0.0
        assert truth["severity"][0, index] == pytest.approx(expected, abs=1e-9)
