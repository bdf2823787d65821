// The whole chain on the CPU. A row passes through all effects while it is in the first-level cache;
// only shake needs its neighbours, so the frame is fogged into a padded copy first.
#include <atomic>

#include "common/calls.h"
#include "common/rows.h"
#include "common/scratch.h"
#include "depth/depth_rows.h"
#include "noise/noise_rows.h"
#include "rain/rain_rows.h"
#include "severity/severity.h"
#include "shake/shake_rows.h"

namespace rirf {
namespace {

struct Request {
    const rirf_image *image;
    const rirf_recipe *recipes;
    const rirf_map *prior;
    const rirf_image *out;
    rirf_record record;
    rirf_truth *truth;
};

// Per-row partial results, added up in order, so that threads do not change the sums.
struct Sums {
    double transmission, variance;
    int64_t covered;
};

bool wanted(const rirf_image &view) { return view.data != nullptr; }
bool wanted(const rirf_map &view) { return view.data != nullptr; }

class Chain {
public:
    Chain(const Request &request, int64_t index, int threads)
        : request_(request),
          recipe_(request.recipes[index]),
          index_(index),
          threads_(threads),
          height_(request.image->height),
          width_(request.image->width) {
        for (int c = 0; c < 3; ++c) light_[c] = static_cast<float>(recipe_.light[c]);
    }

    // False when memory ran out.
    bool run() {
        sums_ = scratch<Sums>(SLOT_SUMS, height_);
        if (sums_ == nullptr || !find_prior()) return false;
        const bool shaken = has(RIRF_SHAKE);
        if (shaken) {
            shake_kernel(recipe_.seed, recipe_.steps, recipe_.step_px, psf_);
            if (!blur_.prepare(psf_, height_, width_)) return false;
        }
        if (has(RIRF_RAIN)) {
            const Streak streak = streak_of(recipe_.slant_deg, recipe_.length_px, recipe_.width_px);
            if (!shower_.prepare(recipe_.seed, recipe_.density, streak, height_, width_, threads_)) {
                return false;
            }
        }
        if (shaken) {
            each_row([this](int64_t y, const Buffers &b) {
                float *inside = blur_.interior(y);
                const float *from = fogged(y, b, inside);
                if (from != inside) {
                    memcpy(inside, from, static_cast<size_t>(3 * width_) * sizeof(float));
                }
                blur_.finish(y);
            });
        }
        each_row([this, shaken](int64_t y, const Buffers &b) {
            const float *from = b.out;
            if (shaken) {
                blur_.row(y, b.taps, b.out);
                keep(request_.record.shake, y, b.out);
            } else {
                from = fogged(y, b, b.out);
            }
            finish(y, b, from);
        });
        if (!failed_) report();
        return !failed_;
    }

private:
    struct Buffers {
        float *in, *out, *map, *near, *field;
        const float **taps;
    };

    bool has(uint32_t effect) const { return (recipe_.present & effect) != 0; }

    void keep(const rirf_image &view, int64_t y, const float *row) const {
        if (wanted(view)) write_row(view, index_, y, row);
    }

    bool find_prior() {
        if (!has(RIRF_FOG) || request_.prior != nullptr) return true;
        sampled_ = scratch<float>(SLOT_PRIOR, height_ * width_);
        return sampled_ != nullptr &&
               prior_into(recipe_.seed, height_, width_, sampled_, threads_);
    }

    template <typename Row>
    void each_row(Row row) {
        for_rows(threads_, height_, [&](int64_t first, int64_t last) {
            Buffers b;
            b.in = scratch<float>(SLOT_ROW_IN, 3 * width_);
            b.out = scratch<float>(SLOT_ROW_OUT, 3 * width_);
            b.map = scratch<float>(SLOT_ROW_MAP, 2 * width_);
            b.field = scratch<float>(SLOT_ROW_FIELD, field_room(width_));
            b.taps = scratch<const float *>(SLOT_ROW_TAPS, RIRF_PSF_AREA);
            if (b.in == nullptr || b.out == nullptr || b.map == nullptr || b.field == nullptr ||
                b.taps == nullptr) {
                failed_ = true;
                return;
            }
            b.near = b.map + width_;
            for (int64_t y = first; y < last; ++y) row(y, b);
        });
    }

    // The image's row, in fog if there is any: where it lies, or in `to`.
    const float *fogged(int64_t y, const Buffers &b, float *to) {
        sums_[y] = {0.0, 0.0, 0};
        const rirf_map &map = request_.record.transmission;
        const float *from = read_row(*request_.image, index_, y, b.in);
        if (!has(RIRF_FOG)) {
            if (wanted(map)) {
                for (int64_t x = 0; x < width_; ++x) b.map[x] = 1.0f;
                write_row(map, index_, y, b.map);
            }
            return from;
        }
        const float *near = request_.prior == nullptr ? sampled_ + y * width_
                                                      : read_row(*request_.prior, index_, y, b.near);
        sums_[y].transmission =
            rows().transmission(width_, near, static_cast<float>(recipe_.beta), b.map);
        if (wanted(map)) write_row(map, index_, y, b.map);
        rows().scatter(width_, from, b.map, light_, to);
        keep(request_.record.fog, y, to);
        return to;
    }

    // Rain, noise and the final clip of a row; b.out is free to be written or holds the row already.
    void finish(int64_t y, const Buffers &b, const float *from) {
        const rirf_map &mask = request_.record.mask;
        if (has(RIRF_RAIN)) {
            shower_.row(y, b.map);
            sums_[y].covered = rows().saturate(width_, b.map, COVERAGE_THRESHOLD);
            rows().streaks(width_, from, b.map, static_cast<float>(recipe_.opacity), light_, b.out);
            from = b.out;
            keep(request_.record.rain, y, from);
        } else if (wanted(mask)) {
            for (int64_t x = 0; x < width_; ++x) b.map[x] = 0.0f;
        }
        if (wanted(mask)) write_row(mask, index_, y, b.map);
        if (has(RIRF_NOISE)) {
            const float *field = field_row(recipe_.seed, y, width_, b.field);
            sums_[y].variance = rows().noise(3 * width_, from, field,
                                             static_cast<float>(recipe_.gain),
                                             static_cast<float>(recipe_.offset / 255.0), b.out);
            from = b.out;
            keep(request_.record.noise, y, from);
        }
        float *target = target_row(*request_.out, index_, y, b.out);
        rows().clip(3 * width_, from, target);
        write_row(*request_.out, index_, y, target);
    }

    void report() const {
        if (request_.record.psf != nullptr) {
            float *psf = request_.record.psf + index_ * RIRF_PSF_AREA;
            for (int i = 0; i < RIRF_PSF_AREA; ++i) psf[i] = has(RIRF_SHAKE) ? psf_[i] : 0.0f;
        }
        if (request_.truth == nullptr) return;
        rirf_truth &truth = request_.truth[index_];
        neutral(&truth);
        double transmission = 0.0, variance = 0.0;
        int64_t covered = 0;
        for (int64_t y = 0; y < height_; ++y) {
            transmission += sums_[y].transmission;
            variance += sums_[y].variance;
            covered += sums_[y].covered;
        }
        const double pixels = static_cast<double>(height_ * width_);
        if (has(RIRF_FOG)) truth.transmission_mean = transmission / pixels;
        if (has(RIRF_SHAKE)) {
            const Moments m = shake_moments(psf_);
            truth.direction_deg = m.direction_deg;
            truth.blur_length_px = m.length_px;
            truth.energy = m.energy;
            truth.rms_px = m.rms_px;
        }
        if (has(RIRF_RAIN)) truth.coverage = static_cast<double>(covered) / pixels;
        if (has(RIRF_NOISE)) truth.variance = variance / (3.0 * pixels);
        score(recipe_.present, &truth);
    }

    const Request &request_;
    const rirf_recipe &recipe_;
    const int64_t index_;
    const int threads_;
    const int64_t height_, width_;
    float light_[3];
    float *sampled_ = nullptr;
    Sums *sums_ = nullptr;
    float psf_[RIRF_PSF_AREA];
    Convolution blur_;
    Shower shower_;
    std::atomic<bool> failed_{false};
};

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" rirf_status rirf_degrade(const rirf_image *image, const rirf_recipe *recipes,
                                    const rirf_map *prior, const rirf_image *out,
                                    const rirf_record *record, rirf_truth *truth, int threads) {
    RIRF_TRY(check_degrade(image, prior, out, record));
    RIRF_TRY(check_present(recipes, image->batch));
    Request request = {image, recipes, prior, out, {}, truth};
    if (record != nullptr) request.record = *record;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), image->batch, [&](int64_t index, int inner) {
        Chain chain(request, index, inner);
        if (!chain.run()) failed = true;
    });
    return failed ? fail(RIRF_NO_MEMORY, "degrade: no memory for an image of %lld x %lld",
                         static_cast<long long>(image->height),
                         static_cast<long long>(image->width))
                  : RIRF_OK;
}
