// What the test programs share: repeatable random numbers, and strided views of exactly as much heap
// memory as they span, so that the address sanitizer sees a step beyond.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "rirf_kernels.h"

namespace test {

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    int64_t whole(int64_t low, int64_t high) {  // both included
        return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
    }
    double real(double low, double high) {
        return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
    }
    bool chance(double p) { return real(0.0, 1.0) < p; }
    template <typename T>
    T one_of(const std::vector<T> &values) {
        return values[static_cast<size_t>(whole(0, static_cast<int64_t>(values.size()) - 1))];
    }

private:
    uint64_t state_;
};

struct Size {
    int64_t batch, height, width;
};

// Axes laid out in a random order, each with a random gap and direction.
class Memory {
public:
    Memory(Random &random, const std::vector<int64_t> &size, bool plain = false) : size_(size) {
        std::vector<size_t> order(size.size());
        for (size_t i = 0; i < order.size(); ++i) order[i] = order.size() - 1 - i;
        const bool shuffled = !plain && random.chance(0.3);
        for (size_t i = order.size(); shuffled && i > 1; --i) {
            std::swap(order[i - 1],
                      order[static_cast<size_t>(random.whole(0, static_cast<int64_t>(i) - 1))]);
        }
        stride.assign(size.size(), 0);
        int64_t span = 1, start = 0;
        for (size_t axis : order) {
            int64_t step = span;
            if (!plain && random.chance(0.2)) step += random.whole(1, 3);
            const int64_t reach = (size[axis] - 1) * step;
            span = reach + span;
            if (!plain && random.chance(0.2)) {
                start += reach;
                step = -step;
            }
            stride[axis] = step;
        }
        values.resize(static_cast<size_t>(span));
        values.shrink_to_fit();
        data = values.data() + start;
    }

    // Visits every element in the order of its indices.
    template <typename Visit>
    void each(Visit visit) {
        std::vector<int64_t> at(size_.size(), 0);
        for (;;) {
            int64_t offset = 0;
            for (size_t i = 0; i < at.size(); ++i) offset += at[i] * stride[i];
            visit(data[offset]);
            size_t axis = at.size();
            while (axis > 0 && ++at[axis - 1] == size_[axis - 1]) at[--axis] = 0;
            if (axis == 0) return;
        }
    }

    std::vector<float> dense() {
        std::vector<float> found;
        each([&](float value) { found.push_back(value); });
        return found;
    }

    std::vector<float> values;
    std::vector<int64_t> stride;
    float *data;

private:
    std::vector<int64_t> size_;
};

struct Image : Memory {
    Image(Random &random, Size size, bool plain = false)
        : Memory(random, {size.batch, size.height, size.width, 3}, plain),
          view{data,      size.batch, size.height, size.width,
               stride[0], stride[1],  stride[2],   stride[3]} {}
    rirf_image view;
};

struct Map : Memory {
    Map(Random &random, Size size, bool plain = false)
        : Memory(random, {size.batch, size.height, size.width}, plain),
          view{data, size.batch, size.height, size.width, stride[0], stride[1], stride[2]} {}
    rirf_map view;
};

inline void fill(Random &random, Memory &memory, double low = 0.0, double high = 1.0) {
    memory.each([&](float &value) { value = static_cast<float>(random.real(low, high)); });
}

// Recipes over the whole of the ranges that the header gives, mostly as wide as those that are drawn.
inline std::vector<rirf_recipe> recipes(Random &random, int64_t count) {
    std::vector<uint64_t> seeds(static_cast<size_t>(count));
    for (uint64_t &seed : seeds) seed = random.bits();
    std::vector<rirf_recipe> made(seeds.size());
    if (rirf_sample(seeds.data(), count, made.data()) != RIRF_OK) std::abort();
    for (rirf_recipe &r : made) {
        if (random.chance(0.5)) r.present = static_cast<uint32_t>(random.whole(0, 15));
        if (random.chance(0.7)) continue;
        r.beta = random.one_of<double>({1e-300, 1e-3, 30.0, 100.0});
        r.light[random.whole(0, 2)] = random.one_of<double>({0.0, 1.0});
        r.steps = static_cast<int32_t>(random.one_of<int64_t>({1, 2, 7, 300}));
        r.step_px = random.one_of<double>({0.0, 1e-12, 0.5, 1000.0});
        r.density = random.one_of<double>({0.0, 1e-7, 0.2, 1.0});
        r.slant_deg = random.one_of<double>({-90.0, 90.0, 0.0, 45.0});
        r.length_px = random.one_of<double>({1e-9, 1.0, 90.0});
        r.width_px = random.one_of<double>({1e-9, 0.5, 40.0});
        r.opacity = random.one_of<double>({0.0, 1.0});
        r.gain = random.one_of<double>({-10.0, 0.0, 10.0});
        r.offset = random.one_of<double>({-255.0, 0.0, 255.0});
    }
    return made;
}

}  // namespace test
