#include "shake/shake.cuh"

#include "common/calls.h"

namespace rirf {
namespace cuda {

// Threads that make a kernel together, and steps of the walk that they hold at a time.
constexpr int32_t WALKERS = 128, WALK_PART = 128;

// A tile of the blur: 32 rows, of which each thread has a run of 16 columns. The tile lies in shared
// memory with its surroundings, 15 rows and 16 columns on each side. The pitch sends the same column
// of eight rows to different banks, and its rows begin at multiples of 16 bytes.
constexpr int32_t TILE_ROWS = 32, TILE_RUNS = 4, RUN = 16, TILE_COLUMNS = TILE_RUNS * RUN;
constexpr int32_t HALO = RIRF_PSF_SIZE / 2, MARGIN = 16;
constexpr int32_t SPAN_ROWS = TILE_ROWS + 2 * HALO, SPAN_COLUMNS = TILE_COLUMNS + 2 * MARGIN;
constexpr int32_t PITCH = SPAN_COLUMNS + 4;

// A part of the walk.
struct Steps {
    double x[WALK_PART + 1], y[WALK_PART + 1];
};

// Calls visit(x, y, time) for this thread's share of the walk's points.
template <typename Visit>
RIRF_DEVICE void walk_together(uint64_t seed, int32_t steps, double step_px, Steps &part,
                               Visit visit) {
    const Address address = {seed, STAGE_SHAKE, STREAM_FIELD};
    const int32_t thread = thread_item();
    double x = 0.0, y = 0.0;  // of the first thread, which adds the steps up in order
    for (int32_t first = 0; first < steps; first += WALK_PART) {
        const int32_t count = steps - first < WALK_PART ? steps - first : WALK_PART;
        for (int32_t i = thread; i < count; i += WALKERS) {
            const auto step = static_cast<uint64_t>(first + i);
            const Words words = philox(address, step >> 1);
            const bool odd = (step & 1u) != 0;
            float right, down;
            normal_pair(odd ? words.w2 : words.w0, odd ? words.w3 : words.w1, &right, &down);
            part.x[i + 1] = right * step_px;
            part.y[i + 1] = down * step_px;
        }
        barrier();
        if (thread == 0) {
            part.x[0] = x;
            part.y[0] = y;
            for (int32_t i = 1; i <= count; ++i) {
                part.x[i] = x += part.x[i];
                part.y[i] = y += part.y[i];
            }
        }
        barrier();
        for (int32_t k = thread; k < WALK_SUBSTEPS * count; k += WALKERS) {
            const int32_t i = k / WALK_SUBSTEPS;
            const double share = static_cast<double>(k % WALK_SUBSTEPS) / WALK_SUBSTEPS;
            visit(part.x[i] + (part.x[i + 1] - part.x[i]) * share,
                  part.y[i] + (part.y[i + 1] - part.y[i]) * share, (first + i + share) / steps);
        }
        if (thread == 0 && first + count == steps) visit(x, y, 1.0);
        barrier();
    }
}

// The sum (or the largest) of every thread's value, in an order of its own but always the same.
RIRF_DEVICE double together(double value, double *slots, bool largest = false) {
    const int32_t thread = thread_item();
    slots[thread] = value;
    for (int32_t half = WALKERS / 2; half > 0; half /= 2) {
        barrier();
        if (thread < half) {
            const double a = slots[thread], b = slots[thread + half];
            slots[thread] = largest ? (a > b ? a : b) : a + b;
        }
    }
    barrier();
    const double result = slots[0];
    barrier();
    return result;
}

// shake_kernel() of shake.h by a whole block. Splatted weights are whole multiples of 2^-40, whose
// sums do not depend on their order.
RIRF_DEVICE void kernel_together(uint64_t seed, int32_t steps, double step_px, float *psf) {
    RIRF_SHARED Steps part;
    RIRF_SHARED double slots[WALKERS];
    RIRF_SHARED unsigned long long grid[RIRF_PSF_AREA];
    constexpr double FINE = 1099511627776.0;  // 2^40
    const int32_t thread = thread_item();
    double mass = 0.0, mean_x = 0.0, mean_y = 0.0;
    walk_together(seed, steps, step_px, part, [&](double x, double y, double time) {
        const double weight = exposure_weight(time);
        mass += weight;
        mean_x += weight * x;
        mean_y += weight * y;
    });
    mass = together(mass, slots);
    mean_x = together(mean_x, slots) / mass;
    mean_y = together(mean_y, slots) / mass;
    double reach = 0.0;
    walk_together(seed, steps, step_px, part, [&](double x, double y, double) {
        const double far_x = fabs(x - mean_x), far_y = fabs(y - mean_y);
        const double far = far_x > far_y ? far_x : far_y;
        reach = far > reach ? far : reach;
    });
    reach = together(reach, slots, true);
    const double shrink = reach > PSF_RADIUS - 1 ? (PSF_RADIUS - 1) / reach : 1.0;
    for (int32_t i = thread; i < RIRF_PSF_AREA; i += WALKERS) grid[i] = 0;
    barrier();
    walk_together(seed, steps, step_px, part, [&](double x, double y, double time) {
        const double weight = exposure_weight(time) * FINE;
        const double px = (x - mean_x) * shrink + PSF_RADIUS;
        const double py = (y - mean_y) * shrink + PSF_RADIUS;
        const int32_t column = static_cast<int32_t>(floor(px));
        const int32_t row = static_cast<int32_t>(floor(py));
        const double fx = px - column, fy = py - row;
        unsigned long long *corner = grid + row * RIRF_PSF_SIZE + column;
        const auto splat = [](unsigned long long *to, double value) {
            add_to(to, static_cast<unsigned long long>(value + 0.5));
        };
        splat(corner, weight * (1 - fx) * (1 - fy));
        splat(corner + 1, weight * fx * (1 - fy));
        splat(corner + RIRF_PSF_SIZE, weight * (1 - fx) * fy);
        splat(corner + RIRF_PSF_SIZE + 1, weight * fx * fy);
    });
    double total = 0.0;
    for (int32_t i = thread; i < RIRF_PSF_AREA; i += WALKERS) total += static_cast<double>(grid[i]);
    total = together(total, slots);
    for (int32_t i = thread; i < RIRF_PSF_AREA; i += WALKERS) {
        psf[i] = static_cast<float>(static_cast<double>(grid[i]) / total);
    }
    barrier();
}

// shake_moments() of shake.h by a whole block.
RIRF_DEVICE Moments moments_together(const float *psf) {
    RIRF_SHARED double slots[WALKERS];
    double mass = 0.0, mean_x = 0.0, mean_y = 0.0, square = 0.0;
    for (int32_t i = thread_item(); i < RIRF_PSF_AREA; i += WALKERS) {
        const double k = psf[i];
        mass += k;
        mean_x += k * (i % RIRF_PSF_SIZE);
        mean_y += k * (i / RIRF_PSF_SIZE);
        square += k * k;
    }
    mass = together(mass, slots);
    mean_x = together(mean_x, slots) / mass;
    mean_y = together(mean_y, slots) / mass;
    square = together(square, slots);
    double mxx = 0.0, myy = 0.0, mxy = 0.0;
    for (int32_t i = thread_item(); i < RIRF_PSF_AREA; i += WALKERS) {
        const double k = psf[i];
        const double dx = i % RIRF_PSF_SIZE - mean_x, dy = i / RIRF_PSF_SIZE - mean_y;
        mxx += k * dx * dx;
        myy += k * dy * dy;
        mxy += k * dx * dy;
    }
    mxx = together(mxx, slots) / mass;
    myy = together(myy, slots) / mass;
    mxy = together(mxy, slots) / mass;
    return moments_of(mxx, myy, mxy, square);
}

// The segments of a kernel that are not all zero, in the order of the kernel's rows. A convolution
// reads against the direction of the kernel: column 15 - c, row 15 - r for the tap at (r, c).
RIRF_DEVICE void collect(const float *psf, Segments *segments) {
    RIRF_SHARED bool used[SEGMENTS_MAX];
    const int32_t thread = thread_item();
    for (int32_t i = thread; i < SEGMENTS_MAX; i += WALKERS) {
        bool any = false;
        for (int32_t k = 0; k < 4; ++k) {
            const int32_t column = HALO + MARGIN - 4 * (i % 8) - k;
            any = any || (column < RIRF_PSF_SIZE && psf[i / 8 * RIRF_PSF_SIZE + column] != 0.0f);
        }
        used[i] = any;
    }
    barrier();
    for (int32_t i = thread; i < SEGMENTS_MAX; i += WALKERS) {
        if (!used[i]) continue;
        int32_t at = 0;
        for (int32_t before = 0; before < i; ++before) at += used[before] ? 1 : 0;
        const int32_t row = i / 8, group = i % 8;
        for (int32_t k = 0; k < 4; ++k) {
            const int32_t column = HALO + MARGIN - 4 * group - k;
            segments->weight[4 * at + k] =
                column < RIRF_PSF_SIZE ? psf[row * RIRF_PSF_SIZE + column] : 0.0f;
        }
        segments->offset[at] = (2 * HALO - row) * PITCH + 4 * group;
    }
    if (thread == 0) {
        int32_t count = 0;
        for (int32_t i = 0; i < SEGMENTS_MAX; ++i) count += used[i] ? 1 : 0;
        segments->count = count;
    }
}

// A block an image.
RIRF_KERNEL kernel_kernel(const rirf_recipe *recipes, uint32_t needed, float *psfs,
                          Segments *segments, rirf_truth *truth) {
    const auto index = static_cast<int64_t>(blockIdx.x);
    const rirf_recipe &recipe = recipes[index];
    float *psf = psfs + index * RIRF_PSF_AREA;
    if ((recipe.present & needed) != needed) {
        for (int32_t i = thread_item(); i < RIRF_PSF_AREA; i += WALKERS) psf[i] = 0.0f;
        return;
    }
    const int32_t steps = recipe.steps < 1 ? 1 : recipe.steps;
    const bool finite = recipe.step_px >= 0.0 && recipe.step_px <= 1000.0;
    kernel_together(recipe.seed, steps < WALK_STEPS_MAX ? steps : WALK_STEPS_MAX,
                    finite ? recipe.step_px : 0.0, psf);
    if (segments != nullptr) collect(psf, &segments[index]);
    if (truth == nullptr) return;
    const Moments m = moments_together(psf);
    if (thread_item() != 0) return;
    truth[index].direction_deg = m.direction_deg;
    truth[index].blur_length_px = m.length_px;
    truth[index].energy = m.energy;
    truth[index].rms_px = m.rms_px;
    truth[index].severity[1] = shake_severity(m.rms_px);
}

RIRF_KERNEL collect_kernel(const float *psfs, Segments *segments) {
    const auto index = static_cast<int64_t>(blockIdx.x);
    collect(psfs + index * RIRF_PSF_AREA, &segments[index]);
}

struct Blur {
    rirf_image image, fogged, out;
    const Segments *segments;
    const rirf_recipe *recipes;
    uint32_t needed;
    int32_t tiles;  // in a row of tiles
};

RIRF_DEVICE int32_t mirrored_near(int32_t index, int32_t size) {
    if (index >= 0 && index < size) return index;
    return static_cast<int32_t>(mirrored(index, size));
}

RIRF_KERNEL blur_kernel(Blur b) {
    RIRF_SHARED float4 memory[SPAN_ROWS * PITCH / 4];
    float *tile = &memory[0].x;
    const int64_t index = image_item();
    const uint32_t present = b.recipes == nullptr ? b.needed : b.recipes[index].present;
    if ((present & b.needed) != b.needed) return;
    const bool in_fog = b.fogged.data != nullptr && (present & RIRF_FOG) != 0;
    const rirf_image &from = in_fog ? b.fogged : b.image;
    const Segments &segments = b.segments[index];
    const auto height = static_cast<int32_t>(b.out.height);
    const auto width = static_cast<int32_t>(b.out.width);
    const int32_t block = static_cast<int32_t>(blockIdx.x), thread = thread_item();
    const int32_t threads = TILE_ROWS * TILE_RUNS;
    const int32_t top = block / b.tiles * TILE_ROWS, left = block % b.tiles * TILE_COLUMNS;
    const int32_t row = thread % TILE_ROWS, run = thread / TILE_ROWS;
    for (int32_t c = 0; c < 3; ++c) {
        const float *plane = from.data + index * from.stride_batch + c * from.stride_channel;
        for (int32_t i = thread; i < SPAN_ROWS * SPAN_COLUMNS; i += threads) {
            const int32_t r = i / SPAN_COLUMNS, k = i % SPAN_COLUMNS;
            const int64_t y = mirrored_near(top - HALO + r, height);
            const int64_t x = mirrored_near(left - MARGIN + k, width);
            tile[r * PITCH + k] = plane[y * from.stride_row + x * from.stride_column];
        }
        barrier();
        float total[RUN] = {};
        const float *mine = tile + row * PITCH + run * RUN;
        for (int32_t s = 0; s < segments.count; ++s) {
            const float *at = mine + segments.offset[s];
            const float4 w = read_vector(segments.weight + 4 * s);
            float v[RUN + 4];
            RIRF_UNROLL
            for (int k = 0; k < RUN + 4; k += 4) read_vector(at + k, v + k);
            RIRF_UNROLL
            for (int k = 0; k < RUN; ++k) {
                total[k] += w.x * v[k] + w.y * v[k + 1] + w.z * v[k + 2] + w.w * v[k + 3];
            }
        }
        barrier();
        // Back through shared memory, so that neighbours write neighbours.
        constexpr int32_t OUT_PITCH = TILE_COLUMNS + 1;
        RIRF_UNROLL
        for (int k = 0; k < RUN; ++k) tile[row * OUT_PITCH + run * RUN + k] = total[k];
        barrier();
        float *to = b.out.data + index * b.out.stride_batch + c * b.out.stride_channel;
        for (int32_t i = thread; i < TILE_ROWS * TILE_COLUMNS; i += threads) {
            const int32_t r = i / TILE_COLUMNS, k = i % TILE_COLUMNS;
            const int64_t y = top + r, x = left + k;
            if (y >= height || x >= width) continue;
            to[y * b.out.stride_row + x * b.out.stride_column] = tile[r * OUT_PITCH + k];
        }
        barrier();
    }
}

rirf_status make_kernels(const rirf_recipe *recipes, uint32_t needed, int64_t count, float *psf,
                         Segments *segments, rirf_truth *truth, void *stream) {
    return launch_blocks(kernel_kernel, {count, 1}, WALKERS, stream, recipes, needed, psf, segments,
                         truth);
}

rirf_status convolve(const rirf_image &image, const rirf_image &fogged, const Segments *segments,
                     const rirf_recipe *recipes, uint32_t needed, const rirf_image &out,
                     void *stream) {
    const int64_t down = (out.height + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t across = (out.width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const Blur blur = {image,   fogged, out, segments, recipes, needed,
                       static_cast<int32_t>(across)};
    return launch_blocks(blur_kernel, {down * across, out.batch}, TILE_ROWS * TILE_RUNS, stream,
                         blur);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_shake_kernels(const rirf_recipe *recipes, int64_t count, float *psf,
                                    rirf_truth *truth, void *stream) {
    RIRF_TRY(check_count(count));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    if (psf == nullptr) return fail(RIRF_NULL_POINTER, "psf: got NULL");
    return cuda::make_kernels(recipes, 0, count, psf, nullptr, truth, stream);
}

rirf_status rirf_cuda_shake(const rirf_image *image, const float *psf, const rirf_image *out,
                            void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_shake(image, psf, out));
    cuda::Workspace w;
    RIRF_TRY(cuda::divide_checked(workspace, workspace_bytes, image->batch, image->height,
                                  image->width, &w));
    RIRF_TRY(cuda::launch_blocks(cuda::collect_kernel, {image->batch, 1}, cuda::WALKERS, stream, psf,
                                 w.segments));
    return cuda::convolve(*image, rirf_image{}, w.segments, nullptr, 0, *out, stream);
}

}  // extern "C"
