/* Degrades a picture as a seed says, and prints what was done to it.
 *
 *   degrade SEED OUT.ppm            a gradient, 320 x 240
 *   degrade SEED OUT.ppm IN.ppm     a binary PPM (P6) with 8 bits a channel
 *
 * The seed draws which of fog, shake, rain and noise are present and every parameter. The same seed
 * gives the same picture on every machine and for any number of threads.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "rirf_kernels.h"

typedef struct picture {
    int64_t height, width;
    float *rgb; /* height x width x 3, in [0, 1] */
} picture;

static int complain(const char *what, const char *path) {
    fprintf(stderr, "degrade: %s: %s\n", path, what);
    return 0;
}

static int make_room(picture *p, int64_t height, int64_t width) {
    p->height = height;
    p->width = width;
    p->rgb = malloc((size_t)height * (size_t)width * 3 * sizeof *p->rgb);
    return p->rgb != NULL;
}

static int gradient(picture *p) {
    if (!make_room(p, 240, 320)) return complain("no memory", "gradient");
    for (int64_t y = 0; y < p->height; ++y) {
        for (int64_t x = 0; x < p->width; ++x) {
            float *pixel = p->rgb + 3 * (y * p->width + x);
            pixel[0] = (float)x / 319.0f;
            pixel[1] = (float)y / 239.0f;
            pixel[2] = 0.5f;
        }
    }
    return 1;
}

/* A number of a PPM header, after white space and comments; 0 when there is none. */
static long header_number(FILE *file) {
    int c = getc(file);
    while (c == '#' || isspace(c)) {
        if (c == '#') {
            while (c != '\n' && c != EOF) c = getc(file);
        } else {
            c = getc(file);
        }
    }
    long value = 0;
    for (; isdigit(c) && value < 100000; c = getc(file)) value = 10 * value + (c - '0');
    return value; /* the one character after it has been read too, as the format wants */
}

static int read_ppm(const char *path, picture *p) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return complain("cannot be opened", path);
    int good = getc(file) == 'P' && getc(file) == '6';
    const long width = good ? header_number(file) : 0;
    const long height = good ? header_number(file) : 0;
    good = good && width > 0 && height > 0 && header_number(file) == 255;
    if (!good) {
        fclose(file);
        return complain("is not a binary PPM with 8 bits a channel", path);
    }
    if (!make_room(p, height, width)) {
        fclose(file);
        return complain("no memory for it", path);
    }
    for (int64_t i = 0; i < 3 * p->height * p->width; ++i) {
        const int level = getc(file);
        if (level == EOF) {
            fclose(file);
            free(p->rgb);
            return complain("ends too early", path);
        }
        p->rgb[i] = (float)level / 255.0f;
    }
    fclose(file);
    return 1;
}

static int write_ppm(const char *path, const picture *p) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) return complain("cannot be written", path);
    fprintf(file, "P6\n%" PRId64 " %" PRId64 "\n255\n", p->width, p->height);
    for (int64_t i = 0; i < 3 * p->height * p->width; ++i) {
        putc((int)(p->rgb[i] * 255.0f + 0.5f), file);
    }
    const int failed = ferror(file);
    if (fclose(file) != 0 || failed) return complain("could not be written in full", path);
    return 1;
}

/* How the library sees a picture: a batch of one. */
static rirf_image view_of(const picture *p) {
    rirf_image view = {0};
    view.data = p->rgb;
    view.batch = 1;
    view.height = p->height;
    view.width = p->width;
    view.stride_batch = 3 * p->height * p->width;
    view.stride_row = 3 * p->width;
    view.stride_column = 3;
    view.stride_channel = 1;
    return view;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: degrade SEED OUT.ppm [IN.ppm]\n");
        return 2;
    }
    if (rirf_abi() != RIRF_KERNELS_ABI) {
        fprintf(stderr, "degrade: the library has ABI %d, this program was built for %d\n", rirf_abi(),
                RIRF_KERNELS_ABI);
        return 1;
    }
    const uint64_t seed = strtoull(argv[1], NULL, 10);
    picture clean, degraded;
    if (!(argc == 4 ? read_ppm(argv[3], &clean) : gradient(&clean))) return 1;
    if (!make_room(&degraded, clean.height, clean.width)) {
        free(clean.rgb);
        fprintf(stderr, "degrade: no memory for the result\n");
        return 1;
    }

    rirf_recipe recipe;
    rirf_truth truth;
    const rirf_image from = view_of(&clean), to = view_of(&degraded);
    rirf_status status = rirf_sample(&seed, 1, &recipe);
    if (status == RIRF_OK) {
        /* No prior: the fog's depth is sampled too. No record: only the result is wanted. */
        status = rirf_degrade(&from, &recipe, NULL, &to, NULL, &truth, 0);
    }
    int good = status == RIRF_OK;
    if (good) {
        printf("fog    severity %8.4f  mean transmission %.6f\n", truth.severity[0],
               truth.transmission_mean);
        printf("shake  severity %8.4f  direction %.4f deg  length %.4f px\n", truth.severity[1],
               truth.direction_deg, truth.blur_length_px);
        printf("rain   severity %8.4f  coverage %.6f\n", truth.severity[2], truth.coverage);
        printf("noise  severity %8.4f  variance %.6f\n", truth.severity[3], truth.variance);
        good = write_ppm(argv[2], &degraded);
    } else {
        fprintf(stderr, "degrade: status %d, %s\n", (int)status, rirf_last_error());
    }
    free(clean.rgb);
    free(degraded.rgb);
    return good ? 0 : 1;
}
