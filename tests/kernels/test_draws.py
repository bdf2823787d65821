"""Random numbers and sampled recipes: native and NumPy agree, words and uniforms to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rirf.degradation import philox as reference
from rirf.degradation import sample_recipe
from tests.kernels.recipes import BITS
from tests.strategies import SEEDS

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

WORDS32 = st.integers(0, 2**32 - 1)
# Counts and starts around a block of four words and around a chunk of 256 blocks.
COUNTS = st.one_of(st.integers(0, 70), st.sampled_from((1023, 1024, 1025, 4097)))


@given(SEEDS, WORDS32, WORDS32, COUNTS)
def test_words_and_uniforms_are_equal_to_the_bit(
    seed: int, stage: int, stream: int, count: int
) -> None:
    words = native.words(seed, stage, stream, count)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, reference.words(seed, stage, stream, count))
    uniforms = native.uniforms(seed, stage, stream, count)
    assert uniforms.dtype == np.float32
    np.testing.assert_array_equal(uniforms, reference.uniforms(seed, stage, stream, count))


@given(SEEDS, COUNTS)
def test_normals_agree(seed: int, count: int) -> None:
    # Measured over 2e7 numbers: 1.8e-6 at most, where NumPy's float32 angle rounds.
    found = native.normals(seed, 4, 1, count)
    np.testing.assert_allclose(found, reference.normals(seed, 4, 1, count), rtol=0, atol=5e-6)


@given(SEEDS, st.integers(0, 2**40), st.integers(1, 300))
def test_any_part_of_a_stream_can_be_asked_for(seed: int, first: int, count: int) -> None:
    skip = first % 4
    blocks = reference.philox4x32(seed, 3, 1, first // 4, -(-(skip + count) // 4))
    expected = blocks.reshape(-1)[skip : skip + count]
    np.testing.assert_array_equal(native.words(seed, 3, 1, count, first=first), expected)
    whole = native.normals(seed, 3, 1, count + skip, first=first - skip)
    np.testing.assert_array_equal(native.normals(seed, 3, 1, count, first=first), whole[skip:])


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    np.testing.assert_array_equal(native.words(-1, 0, 0, 8), native.words(2**64 - 1, 0, 0, 8))
    assert native.sample([-1])["seed"][0] == 2**64 - 1


@given(st.lists(SEEDS, min_size=1, max_size=5))
def test_sampled_recipes_are_equal_to_the_bit(seeds: list[int]) -> None:
    for row, seed in zip(native.sample(seeds), seeds, strict=True):
        recipe = sample_recipe(seed)
        assert int(row["seed"]) == seed
        assert tuple(row["light"]) == recipe.atmospheric_light
        for name, bit in BITS.items():
            parameters = getattr(recipe, name)
            assert bool(row["present"] & bit) == (parameters is not None)
            for field, value in vars(parameters).items() if parameters else ():
                assert row[field] == value, (name, field)


def test_one_seed_needs_no_list() -> None:
    assert native.sample(7).shape == (1,)
    np.testing.assert_array_equal(native.sample(7), native.sample([7]))


def test_recipes_start_neutral_and_take_one_value_for_all_or_one_each() -> None:
    made = native.recipes(2, seed=[1, 2], present=native.FOG, beta=1.5)
    assert made["seed"].tolist() == [1, 2]
    assert made["beta"].tolist() == [1.5, 1.5]
    assert made["opacity"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="betta: no such field"):
        native.recipes(1, betta=1.0)
