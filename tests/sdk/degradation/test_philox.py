from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rirf.degradation import philox
from rirf.degradation.philox import Stage, Stream, normals, philox4x32, uniforms, words
from tests.strategies import SEEDS

pytestmark = pytest.mark.lean

MASK = 0xFFFFFFFF
# Indices at which the implementation starts a new chunk, and their neighbours.
CHUNK_WORDS = 4 * philox._CHUNK
COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, CHUNK_WORDS - 1, CHUNK_WORDS, CHUNK_WORDS + 1, CHUNK_WORDS + 6]


def reference(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox 4x32-10 as its paper writes it, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_known_answers_of_random123(counter: str, key: str, expected: str) -> None:
    c = [int(word, 16) for word in counter.split()]
    k = [int(word, 16) for word in key.split()]
    block = philox4x32(
        k[0] | k[1] << 32, stage=c[2], stream=c[3], first_block=c[0] | c[1] << 32, blocks=1
    )
    assert [f"{word:08x}" for word in block[0]] == expected.split()
    assert [f"{word:08x}" for word in reference((c[0], c[1], c[2], c[3]), (k[0], k[1]))] == (
        expected.split()
    )


@given(SEEDS, st.integers(0, MASK), st.integers(0, MASK), st.integers(0, 2**64 - 8))
def test_blocks_equal_the_reference(seed: int, stage: int, stream: int, first: int) -> None:
    found = philox4x32(seed, stage, stream, first, 3)
    assert found.dtype == np.uint32
    assert found.shape == (3, 4)
    for offset, block in enumerate(found.tolist()):
        index = first + offset
        counter = (index & MASK, index >> 32, stage, stream)
        assert block == reference(counter, (seed & MASK, seed >> 32))


@given(SEEDS, st.integers(0, 400))
def test_word_n_lies_in_block_n_over_4(seed: int, index: int) -> None:
    block, place = divmod(index, 4)
    expected = reference((block, 0, Stage.RAIN, Stream.FIELD), (seed & MASK, seed >> 32))
    assert int(words(seed, Stage.RAIN, Stream.FIELD, index + 1)[index]) == expected[place]


@pytest.mark.parametrize("draw", [words, uniforms, normals])
@pytest.mark.parametrize("count", COUNTS)
def test_the_first_values_do_not_depend_on_the_count(draw: object, count: int) -> None:
    assert callable(draw)
    longest = draw(77, Stage.NOISE, Stream.FIELD, 2 * CHUNK_WORDS + 9)
    found = draw(77, Stage.NOISE, Stream.FIELD, count)
    assert found.shape == (count,)
    np.testing.assert_array_equal(found, longest[:count])


@pytest.mark.parametrize("chunk", [2, 3, 16])
def test_values_do_not_depend_on_the_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [draw(5, 4, 1, 333) for draw in (words, uniforms, normals)]
    monkeypatch.setattr(philox, "_CHUNK", chunk)
    for draw, values in zip((words, uniforms, normals), expected, strict=True):
        found = draw(5, 4, 1, 333)
        if draw is normals:  # float32 cosines may differ in the last bit with the vector's length
            np.testing.assert_allclose(found, values, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, values)


@given(SEEDS, st.integers(0, 100), st.integers(1, 50))
def test_blocks_can_be_computed_in_any_order(seed: int, start: int, count: int) -> None:
    whole = words(seed, 1, 1, 4 * (start + count)).reshape(-1, 4)
    np.testing.assert_array_equal(philox4x32(seed, 1, 1, start, count), whole[start:])


@given(SEEDS, st.integers(1, 64))
def test_uniforms_are_the_upper_24_bits(seed: int, count: int) -> None:
    found = uniforms(seed, Stage.FOG, Stream.PARAMETERS, count)
    bits = words(seed, Stage.FOG, Stream.PARAMETERS, count)
    assert found.dtype == np.float32
    # 24 bits fit a float32 exactly: this is an equality on every machine.
    np.testing.assert_array_equal(found.astype(np.float64), (bits >> 8) / 2.0**24)


def test_the_largest_word_stays_below_one() -> None:
    top = np.uint32(MASK) >> np.uint32(8)
    assert np.float32(top) * np.float32(2.0**-24) < 1.0
    assert uniforms(3, 2, 1, 1_000_000).max() < 1.0


@given(SEEDS, st.integers(1, 64))
def test_normals_are_box_muller_on_word_pairs(seed: int, count: int) -> None:
    bits = words(seed, Stage.NOISE, Stream.FIELD, 2 * count).reshape(-1, 2) >> 8
    radius = np.sqrt(-2 * np.log((bits[:, 0] + 1.0) / 2**24))
    angle = 2 * np.pi * bits[:, 1] / 2**24
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    found = normals(seed, Stage.NOISE, Stream.FIELD, 2 * count)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=4e-6)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_distributions(seed: int) -> None:
    count = 200_000
    u = uniforms(seed, Stage.RAIN, Stream.FIELD, count).astype(np.float64)
    n = normals(seed, Stage.NOISE, Stream.FIELD, count).astype(np.float64)
    assert u.min() >= 0.0
    assert u.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * count))
    histogram = np.histogram(u, bins=50, range=(0, 1))[0]
    assert ((histogram - count / 50) ** 2 / (count / 50)).sum() < 100  # 49 degrees of freedom
    assert n.mean() == pytest.approx(0.0, abs=5 / np.sqrt(count))
    assert n.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * count))
    assert (n**3).mean() == pytest.approx(0.0, abs=5 * np.sqrt(15 / count))
    assert (n**4).mean() == pytest.approx(3.0, abs=5 * np.sqrt(96 / count))
    assert np.mean(np.abs(n) > 1.959964) == pytest.approx(0.05, abs=0.003)


def test_seeds_stages_and_streams_are_independent() -> None:
    count = 40_000
    addresses = [
        (seed, stage, stream)
        for seed in (0, 1, 2**32)
        for stage in (Stage.RAIN, Stage.NOISE)
        for stream in Stream
    ]
    series = [uniforms(*address, count) - 0.5 for address in addresses]
    for (name_a, a), (name_b, b) in combinations(zip(addresses, series, strict=True), 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(count), (name_a, name_b)
    for lag in (1, 2, 3, 4, 8):
        assert abs(np.corrcoef(series[0][:-lag], series[0][lag:])[0, 1]) < 5 / np.sqrt(count)


@pytest.mark.parametrize("seed", [np.uint32(7), np.int64(7), np.uint64(7), np.int32(7), 7 + 2**64])
def test_any_integer_is_a_seed_modulo_2_to_the_64(seed: int) -> None:
    np.testing.assert_array_equal(words(seed, 1, 0, 8), words(7, 1, 0, 8))


def test_a_negative_seed_wraps() -> None:
    np.testing.assert_array_equal(words(-1, 1, 0, 8), words(2**64 - 1, 1, 0, 8))
    np.testing.assert_array_equal(words(int(np.int32(-1)), 1, 0, 8), words(-1, 1, 0, 8))


def test_a_fraction_is_no_seed() -> None:
    with pytest.raises(TypeError):
        words(1.5, 1, 0, 8)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(SEEDS)
def test_addresses_keep_their_numbers(seed: int) -> None:
    # The numbers are part of the address layout: C++ and CUDA use them too.
    assert [int(stage) for stage in Stage] == [0, 1, 2, 3, 4, 5]
    assert [stage.name for stage in Stage] == ["PRESENCE", "FOG", "SHAKE", "RAIN", "NOISE", "DEPTH"]
    assert (Stream.PARAMETERS, Stream.FIELD) == (0, 1)
    np.testing.assert_array_equal(
        words(seed, Stage.SHAKE, Stream.FIELD, 8), philox4x32(seed, 2, 1, 0, 2).ravel()
    )
