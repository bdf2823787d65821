"""The degradation chain of R&R Eq. 1: I = clip(B_k(t J + (1 - t) A) + S + N, 0, 1).

Order fog, shake, rain, noise. A seed fixes every draw; the outcome carries the image after every
stage, every parameter, and the true diagnosis.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf import scene as scenes
from rirf.degradation import backends, fog, noise, rain, shake
from rirf.degradation.backends import Backend, Outcome
from rirf.degradation.depth import DepthPrior, geometric
from rirf.degradation.recipe import Recipe, check_recipe, sample_recipe
from rirf.diagnosis import (
    Diagnosis,
    FogDiagnosis,
    NoiseDiagnosis,
    RainDiagnosis,
    ShakeDiagnosis,
)
from rirf.errors import ImageError, RirfError

__all__ = ["Degraded", "degrade"]

_SIDE_MIN = 16


@dataclass(frozen=True)
class Degraded:
    """What a degradation run gives back.

    Attributes:
        image: float32 RGB (H, W, 3) in [0, 1], the degraded frame.
        stages: the frame after each applied stage (unclipped float32), in order; keys are names
            of effects. Empty when they were not kept.
        recipe: every parameter.
        diagnosis: the truth, with source ``oracle``.
        transmission: float32 (H, W), 1 everywhere without fog.
        psf: float32 (31, 31) or None without shake.
        streaks: float32 (H, W) rain mask or None without rain.
    """

    image: NDArray[np.float32]
    stages: dict[str, NDArray[np.float32]]
    recipe: Recipe
    diagnosis: Diagnosis
    transmission: NDArray[np.float32]
    psf: NDArray[np.float32] | None = field(default=None)
    streaks: NDArray[np.float32] | None = field(default=None)


def _common(severity: float | None) -> dict[str, Any]:
    present = severity is not None
    score = severity if severity is not None else 0.0
    return {
        "present": present,
        "probability": float(present),
        "severity": score,
        "interval": (score, score),
    }


def _check(image: NDArray[np.float32], labels: NDArray[np.uint8] | None) -> None:
    if image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"expected float32 RGB of shape (H, W, 3) in [0, 1], got {image.dtype} {image.shape}; "
            "convert uint8 with rirf.images.to_float"
        )
    if min(image.shape[:2]) < _SIDE_MIN:
        raise ImageError(
            f"expected at least {_SIDE_MIN} x {_SIDE_MIN} pixels, got {image.shape}; "
            "use a larger image"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise ImageError(
            f"expected values in [0, 1], got {low} to {high}; divide 0..255 by 255, clip the rest"
        )
    if labels is not None and (labels.dtype != np.uint8 or labels.shape != image.shape[:2]):
        raise ImageError(
            f"expected uint8 labels of the image's size {image.shape[:2]}, "
            f"got {labels.dtype} {labels.shape}; resize them with nearest-neighbour sampling"
        )


def _diagnosis(outcome: Outcome, recipe: Recipe, layout: scenes.SceneLayout) -> Diagnosis:
    """The truth of an outcome, whichever backend made it."""
    fog_score = fog.severity(outcome.transmission_mean) if recipe.fog else None
    shake_score = shake.severity(outcome.moments.rms_px) if recipe.shake else None
    rain_score = rain.severity(outcome.coverage) if recipe.rain else None
    noise_score = noise.severity(outcome.variance) if recipe.noise else None
    streak = recipe.rain or rain.RainParameters(0.0, 0.0, 0.0, 0.0, 0.0)
    grain = recipe.noise or noise.NoiseParameters(0.0, 0.0)
    return Diagnosis(
        source="oracle",
        fog=FogDiagnosis(
            **_common(fog_score),
            atmospheric_light=recipe.atmospheric_light,
            transmission_mean=outcome.transmission_mean,
        ),
        shake=ShakeDiagnosis(
            **_common(shake_score),
            direction_deg=outcome.moments.direction_deg,
            length_px=outcome.moments.length_px,
            energy=min(1.0, outcome.moments.energy),
        ),
        rain=RainDiagnosis(**_common(rain_score), coverage=outcome.coverage, **asdict(streak)),
        noise=NoiseDiagnosis(**_common(noise_score), gain=grain.gain, offset=grain.offset),
        composition=scenes.composition(layout),
        scene=scenes.describe(layout),
    )


def degrade(
    image: NDArray[np.float32],
    seed: int,
    *,
    recipe: Recipe | None = None,
    prior: DepthPrior = geometric,
    labels: NDArray[np.uint8] | None = None,
    layout: scenes.SceneLayout | None = None,
    backend: Backend = "auto",
    keep_stages: bool = True,
    threads: int = 0,
) -> Degraded:
    """Degrade a clean frame.

    Args:
        image: float32 RGB (H, W, 3) in [0, 1], H and W >= 16.
        seed: 64-bit seed of every random number; the same seed gives the same frame everywhere.
        recipe: parameters to use; sampled from the seed when None.
        prior: depth prior for the fog.
        labels: uint8 (H, W) class indices, for the scene part of the true diagnosis.
        layout: the clean scene's layout where the caller has it already; observed from the image
            and the labels when None.
        backend: ``numpy``, ``native`` (``rirf_kernels`` on the CPU), ``cuda``, or ``auto``; see
            :func:`rirf.degradation.select_backend`. They agree to float32 rounding.
        keep_stages: whether to keep the frame after each stage.
        threads: CPU threads of the native backend, 0 for as many as the process may use.

    Raises:
        ImageError: the image, the recipe, the labels or the prior's map break the contract above.
        RirfError: no such backend.
        MissingExtraError: a backend was asked for that is not there.
    """
    _check(image, labels)
    recipe = sample_recipe(seed) if recipe is None else recipe
    check_recipe(recipe)
    if threads < 0:
        raise RirfError(f"threads is {threads}; expected 0 (as many as there are) or more")
    outcome = backends.run(
        image,
        seed,
        recipe,
        prior,
        backend=backends.select_backend(backend),
        keep_stages=keep_stages,
        threads=threads,
    )
    layout = scenes.observe(image, labels) if layout is None else layout
    return Degraded(
        image=outcome.image,
        stages=outcome.stages,
        recipe=recipe,
        diagnosis=_diagnosis(outcome, recipe, layout),
        transmission=outcome.transmission,
        psf=outcome.psf,
        streaks=outcome.streaks,
    )
