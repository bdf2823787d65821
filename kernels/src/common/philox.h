// Counter-based random numbers, Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): a number is a
// function of where it is used. Layout: key = seed (low, high); counter = (block low, block high,
// stage, stream); block n holds the words 4n .. 4n + 3.
#pragma once

#include <cmath>

#include "common/math.h"
#include "common/platform.h"

namespace rirf {

enum Stage : uint32_t {
    STAGE_PRESENCE = 0,
    STAGE_FOG = 1,
    STAGE_SHAKE = 2,
    STAGE_RAIN = 3,
    STAGE_NOISE = 4,
    STAGE_DEPTH = 5
};

enum Stream : uint32_t { STREAM_PARAMETERS = 0, STREAM_FIELD = 1 };

struct Address {
    uint64_t seed;
    uint32_t stage, stream;
};

struct Words {
    uint32_t w0, w1, w2, w3;
};

RIRF_HD Words philox(Address address, uint64_t block) {
    uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
    uint32_t c2 = address.stage, c3 = address.stream;
    uint32_t k0 = static_cast<uint32_t>(address.seed);
    uint32_t k1 = static_cast<uint32_t>(address.seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
        const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(p1);
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

// The word with this index; for scattered single draws.
RIRF_HD uint32_t word_at(Address address, uint64_t index) {
    const Words words = philox(address, index >> 2);
    switch (index & 3u) {
        case 0: return words.w0;
        case 1: return words.w1;
        case 2: return words.w2;
        default: return words.w3;
    }
}

// Upper 24 bits times 2^-24: in [0, 1), exact in float32.
RIRF_HD float uniform_of(uint32_t word) {
    return static_cast<float>(static_cast<int32_t>(word >> 8)) * 5.9604644775390625e-08f;
}

RIRF_HD float uniform_at(Address address, uint64_t index) {
    return uniform_of(word_at(address, index));
}

// Box-Muller on a pair of words: u1 = (w0 / 2^8 + 1) / 2^24 in (0, 1], u2 = w1 / 2^8 / 2^24.
RIRF_HD void normal_pair(uint32_t w0, uint32_t w1, float *first, float *second) {
    const float u1 = static_cast<float>(static_cast<int32_t>((w0 >> 8) + 1u)) *
                     5.9604644775390625e-08f;
    const float radius = sqrtf(-2.0f * log_natural(u1));
    float cosine, sine;
    turn(w1 >> 8, &cosine, &sine);
    *first = radius * cosine;
    *second = radius * sine;
}

// The normal with this index; for scattered single draws.
RIRF_HD float normal_at(Address address, uint64_t index) {
    const Words words = philox(address, index >> 2);
    float first, second;
    if ((index & 2u) == 0) {
        normal_pair(words.w0, words.w1, &first, &second);
    } else {
        normal_pair(words.w2, words.w3, &first, &second);
    }
    return (index & 1u) == 0 ? first : second;
}

}  // namespace rirf
