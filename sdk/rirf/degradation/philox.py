"""Counter-based random numbers (Philox 4x32-10): a value is a function of where it is used.

A draw is addressed by (seed, stage, stream, index), never by how many draws came before it, so
NumPy, C++ and CUDA compute the same numbers in any order and on any number of threads.
Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

Layout: key = (seed low word, seed high word); counter = (block low, block high, stage, stream).
Block ``n`` holds the four 32-bit words with indices ``4n .. 4n+3`` of that stage and stream.
"""

from __future__ import annotations

import operator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stage", "Stream", "normals", "philox4x32", "uniforms", "words"]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
# Blocks computed at a time: the working set (a few uint64 arrays) stays inside the L2 cache.
_CHUNK = 1 << 14


class Stage(IntEnum):
    """Third counter word: which effect draws."""

    PRESENCE = 0
    FOG = 1
    SHAKE = 2
    RAIN = 3
    NOISE = 4
    DEPTH = 5


class Stream(IntEnum):
    """Fourth counter word: what is drawn inside a stage."""

    PARAMETERS = 0
    FIELD = 1


def philox4x32(
    seed: int, stage: int, stream: int, first_block: int, blocks: int
) -> NDArray[np.uint32]:
    """Philox 4x32-10 blocks ``first_block .. first_block+blocks-1`` as uint32, shape (blocks, 4).

    Args:
        seed: 64-bit key, taken modulo 2**64.
        stage, stream: 32-bit words of the counter, see the module's text.
    """
    index = np.arange(first_block, first_block + blocks, dtype=np.uint64)
    c0 = index & _LOW
    c1 = index >> _SHIFT
    c2 = np.full(blocks, stage, dtype=np.uint64)
    c3 = np.full(blocks, stream, dtype=np.uint64)
    seed = operator.index(seed)  # a NumPy integer would overflow below
    k0 = seed & 0xFFFFFFFF
    k1 = (seed >> 32) & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        p0 = c0 * _MULTIPLIER_0
        p1 = c2 * _MULTIPLIER_1
        c0 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c2 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1 = p1 & _LOW
        c3 = p0 & _LOW
        k0 = (k0 + _WEYL_0) & 0xFFFFFFFF
        k1 = (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words(seed: int, stage: int, stream: int, count: int) -> NDArray[np.uint32]:
    """The first ``count`` 32-bit words of a stream, shape (count,)."""
    blocks = -(-count // 4)
    out = np.empty((blocks, 4), dtype=np.uint32)
    for start in range(0, blocks, _CHUNK):
        size = min(_CHUNK, blocks - start)
        out[start : start + size] = philox4x32(seed, stage, stream, start, size)
    return out.reshape(-1)[:count]


def uniforms(seed: int, stage: int, stream: int, count: int) -> NDArray[np.float32]:
    """Uniform float32 in [0, 1), shape (count,): the upper 24 bits of each word times 2**-24."""
    bits = words(seed, stage, stream, count) >> np.uint32(8)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def normals(seed: int, stage: int, stream: int, count: int) -> NDArray[np.float32]:
    """Standard normal float32, shape (count,), by Box-Muller on word pairs (2i, 2i+1).

    u1 = (w[2i] >> 8 + 1) * 2**-24 lies in (0, 1], u2 = (w[2i+1] >> 8) * 2**-24 in [0, 1);
    value 2i is sqrt(-2 ln u1) cos(2 pi u2), value 2i+1 the same with sin.
    """
    pairs = -(-count // 2)
    out = np.empty((pairs, 2), dtype=np.float32)
    two_pi = np.float32(2.0 * np.pi)
    scale = np.float32(2.0**-24)
    per_chunk = 2 * _CHUNK
    for start in range(0, pairs, per_chunk):
        size = min(per_chunk, pairs - start)
        block = philox4x32(seed, stage, stream, start // 2, -(-size // 2)).reshape(-1, 2)[:size]
        high = block >> np.uint32(8)
        u1 = (high[:, 0] + np.uint32(1)).astype(np.float32) * scale
        angle = high[:, 1].astype(np.float32) * (scale * two_pi)
        radius = np.sqrt(np.float32(-2.0) * np.log(u1))
        out[start : start + size, 0] = radius * np.cos(angle)
        out[start : start + size, 1] = radius * np.sin(angle)
    return out.reshape(-1)[:count]
