// As on the CPU: the sharp depth of every pixel, blurred across at every `spacing`-th column and then
// down at every `spacing`-th row; the rows in between are interpolated, the columns by whoever reads
// them.
#include "depth/depth.cuh"

#include "common/view.h"
#include "depth/depth.h"
#include "shake/shake.h"

namespace rirf {
namespace cuda {

// A tile of the blur across: rows, and groups of four points, a group a thread.
constexpr int32_t ACROSS_ROWS = 4, ACROSS_GROUPS = 32;
// Taps of one phase, a multiple of four: sigma is below 14 where points lie at every pixel, which
// makes 113 taps; with a spacing s, sigma is below 7 (s + 1), and a phase has less.
constexpr int32_t PHASE_TAPS = 116;
constexpr int32_t LINE = 4 * ACROSS_GROUPS + PHASE_TAPS;
constexpr int32_t RELIEF = RELIEF_ROWS * RELIEF_COLUMNS;

struct PriorTask {
    const rirf_recipe *recipes;
    uint32_t needed;
    int64_t batch;
    int32_t height, width;
    int32_t groups, tiles;  // across: groups in a tile, tiles in a row
    double sigma;
    PriorSpace s;
};

RIRF_DEVICE bool wanted(const PriorTask &p, int64_t index) {
    return (p.recipes[index].present & p.needed) == p.needed;
}

RIRF_DEVICE double bell(int64_t offset, double sigma) {
    const double place = static_cast<double>(offset) / sigma;
    return exp(-0.5 * place * place);
}

// What depends on sizes and seeds alone; a thread fills its entry of every table.
RIRF_KERNEL tables_kernel(PriorTask p) {
    const int64_t item = work_item();
    const PriorSpace &s = p.s;
    if (item < p.batch * RELIEF) {
        const int64_t index = item / RELIEF, cell = item - index * RELIEF;
        s.geometry[index].field[cell] =
            relief_at(p.recipes[index].seed, static_cast<uint32_t>(cell));
    }
    if (item < p.batch) sample_ground(p.recipes[item].seed, &s.geometry[item]);
    if (item < p.width) {
        const Cubic cubic = cubic_at(item, p.width, RELIEF_COLUMNS);
        uint32_t cells = 0;
        for (int k = 0; k < 4; ++k) {
            s.cubic[4 * item + k] = cubic.weight[k];
            cells |= static_cast<uint32_t>(cubic.cell[k]) << (8 * k);
        }
        s.cells[item] = cells;
    }
    if (item < s.reach_across) {
        s.mirror_across[item] = static_cast<int32_t>(mirrored(item - s.margin, p.width));
    }
    if (item < s.reach_down) {
        s.mirror_down[item] = static_cast<int32_t>(mirrored(item - s.margin, p.height));
    }
    if (item < s.spacing) {
        lagrange(static_cast<double>(item) / s.spacing, s.lagrange + 8 * item);
    }
    if (item < s.taps) {
        // Every thread adds up all weights for itself: there are a few hundred, once a batch.
        const int64_t radius = s.taps / 2;
        double total = 0.0;
        for (int64_t k = -radius; k <= radius; ++k) total += bell(k, p.sigma);
        s.gaussian[item] = static_cast<float>(bell(item - radius, p.sigma) / total);
    }
}

// Point i reads pixels i * spacing + k for the taps k. Taken phase by phase (k modulo the spacing),
// neighbouring points read neighbours, and a thread's four points share what they read.
RIRF_KERNEL across_kernel(PriorTask p) {
    RIRF_SHARED float4 line[ACROSS_ROWS][LINE / 4];
    RIRF_SHARED float4 weight[PHASE_TAPS / 4];
    RIRF_SHARED float column[ACROSS_ROWS][RELIEF_COLUMNS], plane[ACROSS_ROWS], share[ACROSS_ROWS];
    const int64_t index = image_item();
    if (!wanted(p, index)) return;
    const PriorSpace &s = p.s;
    const Geometry &geometry = s.geometry[index];
    const int32_t thread = thread_item(), threads = block_threads();
    const int32_t block = static_cast<int32_t>(blockIdx.x);
    const int32_t top = block / p.tiles * ACROSS_ROWS;
    const int32_t first = block % p.tiles * 4 * p.groups;
    for (int32_t i = thread; i < ACROSS_ROWS * RELIEF_COLUMNS; i += threads) {
        const int32_t row = i / RELIEF_COLUMNS, c = i % RELIEF_COLUMNS;
        const Cubic cubic = cubic_at(top + row, p.height, RELIEF_ROWS);
        float total = 0.0f;
        for (int k = 0; k < 4; ++k) {
            total += cubic.weight[k] * geometry.field[cubic.cell[k] * RELIEF_COLUMNS + c];
        }
        column[row][c] = total;
        if (c == 0) ground_at(geometry, top + row, p.height, &plane[row], &share[row]);
    }
    const int32_t my_row = thread / p.groups, group = thread % p.groups;
    float total[4] = {};
    for (int32_t phase = 0; phase < s.spacing; ++phase) {
        const int32_t taps = (s.taps - phase + s.spacing - 1) / s.spacing;
        const int32_t padded = (taps + 3) / 4 * 4, places = 4 * p.groups + padded;
        barrier();  // columns are there; the phase before has been read
        float *weights = &weight[0].x;
        for (int32_t k = thread; k < padded; k += threads) {
            weights[k] = k < taps ? s.gaussian[phase + k * s.spacing] : 0.0f;
        }
        for (int32_t q = thread; q < places; q += threads) {
            const int64_t pixel = static_cast<int64_t>(first + q) * s.spacing + phase;
            const bool inside = pixel < s.reach_across;
            const int32_t x = inside ? s.mirror_across[pixel] : 0;
            const float4 cubic = read_vector(s.cubic + 4 * static_cast<int64_t>(x));
            const uint32_t cells = s.cells[x];
            RIRF_UNROLL
            for (int32_t row = 0; row < ACROSS_ROWS; ++row) {
                const float *c = column[row];
                const float field = cubic.x * c[cells & 255u] + cubic.y * c[(cells >> 8) & 255u] +
                                    cubic.z * c[(cells >> 16) & 255u] + cubic.w * c[cells >> 24];
                (&line[row][0].x)[q] =
                    inside ? sharp_depth(plane[row], share[row], geometry.relief, field) : 0.0f;
            }
        }
        barrier();
        const float4 *from = line[my_row] + group;
        float4 v = from[0];
        for (int32_t m = 0; m < padded / 4; ++m) {
            const float4 w = weight[m], n = from[m + 1];
            total[0] += w.x * v.x + w.y * v.y + w.z * v.z + w.w * v.w;
            total[1] += w.x * v.y + w.y * v.z + w.z * v.w + w.w * n.x;
            total[2] += w.x * v.z + w.y * v.w + w.z * n.x + w.w * n.y;
            total[3] += w.x * v.w + w.y * n.x + w.z * n.y + w.w * n.z;
            v = n;
        }
    }
    const int32_t y = top + my_row;
    if (y >= p.height) return;
    float *to = s.blurred + (index * p.height + y) * s.points_across;
    for (int k = 0; k < 4; ++k) {
        const int32_t point = first + 4 * group + k;
        if (point < s.points_across) to[point] = total[k];
    }
}

// Four points below each other a thread, which share what they read in the same way.
RIRF_KERNEL down_kernel(PriorTask p) {
    const int64_t index = image_item(), item = work_item();
    const PriorSpace &s = p.s;
    const int32_t first = static_cast<int32_t>(item / s.points_across) * 4;
    const int32_t column = static_cast<int32_t>(item % s.points_across);
    if (first >= s.points_down || !wanted(p, index)) return;
    const float *from = s.blurred + index * p.height * s.points_across + column;
    float total[4] = {};
    for (int32_t phase = 0; phase < s.spacing; ++phase) {
        const int32_t taps = (s.taps - phase + s.spacing - 1) / s.spacing;
        float weight[4] = {};
        for (int32_t q = 0; q < taps + 3; ++q) {
            const int64_t row = static_cast<int64_t>(first + q) * s.spacing + phase;
            const float value =
                row < s.reach_down
                    ? from[static_cast<int64_t>(s.mirror_down[row]) * s.points_across]
                    : 0.0f;
            weight[3] = weight[2];
            weight[2] = weight[1];
            weight[1] = weight[0];
            weight[0] = q < taps ? s.gaussian[phase + q * s.spacing] : 0.0f;
            RIRF_UNROLL
            for (int k = 0; k < 4; ++k) total[k] += weight[k] * value;
        }
    }
    float *to = s.coarse + (index * s.points_down + first) * s.points_across + column;
    for (int k = 0; k < 4; ++k) {
        if (first + k < s.points_down) to[static_cast<int64_t>(k) * s.points_across] = total[k];
    }
}

// The rows between coarse ones; they take the place of the rows blurred across.
RIRF_KERNEL rows_kernel(PriorTask p) {
    const int64_t index = image_item(), item = work_item();
    const PriorSpace &s = p.s;
    if (item >= static_cast<int64_t>(p.height) * s.points_across || !wanted(p, index)) return;
    const int32_t y = static_cast<int32_t>(item / s.points_across);
    const int32_t column = static_cast<int32_t>(item % s.points_across);
    const int32_t point = y / s.spacing;
    const float *weight = s.lagrange + 8 * (y - point * s.spacing);
    const float *from = s.coarse + (index * s.points_down + point) * s.points_across + column;
    float total = 0.0f;
    RIRF_UNROLL
    for (int k = 0; k < POINTS; ++k) total += from[k * s.points_across] * weight[k];
    s.blurred[index * p.height * s.points_across + item] = total;
}

RIRF_KERNEL prior_kernel(PriorRows rows, Map prior) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const int64_t height = prior.view.height, width = prior.view.width;
    const int64_t count = quad_count(first, height * width);
    if (count == 0) return;
    float near[4] = {};
    prior_quad(rows, index, height, width, first, count, near);
    store(prior, index, first, count, near);
}

rirf_status sample_prior(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                         int64_t width, const PriorSpace &space, void *stream) {
    PriorTask p = {};
    p.recipes = recipes;
    p.needed = needed;
    p.batch = batch;
    p.height = static_cast<int32_t>(height);
    p.width = static_cast<int32_t>(width);
    p.sigma = blur_sigma(height);
    p.s = space;
    const int32_t groups = (space.points_across + 3) / 4;
    p.tiles = (groups + ACROSS_GROUPS - 1) / ACROSS_GROUPS;
    p.groups = (groups + p.tiles - 1) / p.tiles;
    int64_t entries = batch * RELIEF;
    for (const int64_t size : {width, int64_t{space.reach_across}, int64_t{space.reach_down}}) {
        entries = size > entries ? size : entries;  // spacing and taps are smaller than a reach
    }
    RIRF_TRY(launch(tables_kernel, {entries, 1}, stream, p));
    const int64_t strips = (height + ACROSS_ROWS - 1) / ACROSS_ROWS;
    RIRF_TRY(launch_blocks(across_kernel, {strips * p.tiles, batch}, ACROSS_ROWS * p.groups, stream,
                           p));
    const int64_t quads_down = (space.points_down + 3) / 4;
    RIRF_TRY(launch(down_kernel, {quads_down * space.points_across, batch}, stream, p));
    return launch(rows_kernel, {height * space.points_across, batch}, stream, p);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" rirf_status rirf_cuda_prior(const rirf_recipe *recipes, const rirf_map *prior,
                                       void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_map("prior", prior, true));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    cuda::Workspace w;
    RIRF_TRY(cuda::divide_checked(workspace, workspace_bytes, prior->batch, prior->height,
                                  prior->width, &w));
    RIRF_TRY(cuda::sample_prior(recipes, 0, prior->batch, prior->height, prior->width, w.prior,
                                stream));
    return cuda::launch(cuda::prior_kernel, cuda::quads(prior->height * prior->width, prior->batch),
                        stream, cuda::prior_rows(w.prior), cuda::map_of(*prior));
}
