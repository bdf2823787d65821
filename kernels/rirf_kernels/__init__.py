"""Native degradation kernels of rirf: fog, shake, rain, noise, their chain, and frame operations.

One C++/CUDA source behind NumPy, torch, CuPy or any other DLPack array, without copies. Every
function works on a batch: images are float32 RGB (N, H, W, 3) in [0, 1], or one (H, W, 3); a torch
batch (N, 3, H, W) goes in as its view ``batch.permute(0, 2, 3, 1)``. Strides are free. Results are
a function of the seed alone and agree with ``rirf.degradation``'s NumPy code; they do not depend on
the number of threads. The GIL is released while a kernel runs.

Knows nothing of networks, diagnoses or files.
"""

from __future__ import annotations

from rirf_kernels._api import (
    FOG,
    NOISE,
    PSF_SIZE,
    RAIN,
    RECIPE,
    SHAKE,
    TRUTH,
    blend_tile,
    build_info,
    coverage,
    degrade,
    fog,
    fog_invert,
    frame_to_planes,
    means,
    noise,
    noise_variances,
    normals,
    planes_to_frame,
    prior,
    rain,
    rain_mask,
    recipes,
    release_scratch,
    residual,
    sample,
    severities,
    shake,
    shake_kernels,
    uniforms,
    words,
)

__version__ = "0.1.0"

__all__ = [
    "FOG",
    "NOISE",
    "PSF_SIZE",
    "RAIN",
    "RECIPE",
    "SHAKE",
    "TRUTH",
    "__version__",
    "blend_tile",
    "build_info",
    "coverage",
    "degrade",
    "fog",
    "fog_invert",
    "frame_to_planes",
    "means",
    "noise",
    "noise_variances",
    "normals",
    "planes_to_frame",
    "prior",
    "rain",
    "rain_mask",
    "recipes",
    "release_scratch",
    "residual",
    "sample",
    "severities",
    "shake",
    "shake_kernels",
    "uniforms",
    "words",
]
