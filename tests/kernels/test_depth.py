"""The sampled depth prior: native and NumPy agree over seeds and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation.depth import geometric
from tests.kernels.layouts import layouts, room, sizes
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")


@given(SEEDS, sizes())
def test_prior_agrees(seed: int, size: tuple[int, int]) -> None:
    found = native.prior(native.recipes(1, seed=seed), *size)[0]
    # Measured worst over 2000 draws: 5.4e-7.
    np.testing.assert_allclose(found, geometric(seed, *size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(720, 31), (16, 900), (401, 403)])
def test_prior_agrees_on_larger_frames(size: tuple[int, int]) -> None:
    for seed in range(3):
        found = native.prior(native.recipes(1, seed=seed), *size)[0]
        np.testing.assert_allclose(found, geometric(seed, *size), rtol=0, atol=1e-5)


@given(st.lists(SEEDS, min_size=1, max_size=4), sizes(high=60), layouts())
def test_a_batch_in_any_layout_is_its_priors_one_by_one(
    seeds: list[int], size: tuple[int, int], layout: str
) -> None:
    rows = native.recipes(len(seeds), seed=seeds)
    out = room((len(seeds), *size), layout)
    assert native.prior(rows, *size, out=out.view) is out.view
    assert out.left_alone()
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(out.view[index], native.prior(row.reshape(1), *size)[0])
