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
from rirf.degradation import fog, noise, rain, shake
from rirf.degradation.depth import DepthPrior, geometric
from rirf.degradation.draws import ParameterDraws
from rirf.degradation.philox import Stage
from rirf.diagnosis import (
    EFFECTS,
    Diagnosis,
    FogDiagnosis,
    NoiseDiagnosis,
    RainDiagnosis,
    ShakeDiagnosis,
)
from rirf.errors import ImageError

__all__ = ["PRESENCE_PROBABILITY", "Degraded", "Recipe", "degrade", "sample_recipe"]

PRESENCE_PROBABILITY = 0.5
_SIDE_MIN = 16


@dataclass(frozen=True)
class Recipe:
    """Parameters of every effect; None means absent. The light A is there in any case."""

    atmospheric_light: tuple[float, float, float]
    fog: fog.FogParameters | None = None
    shake: shake.ShakeParameters | None = None
    rain: rain.RainParameters | None = None
    noise: noise.NoiseParameters | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, for JSON records."""
        return asdict(self)


@dataclass(frozen=True)
class Degraded:
    """What a degradation run gives back.

    Attributes:
        image: float32 RGB (H, W, 3) in [0, 1], the degraded frame.
        stages: the frame after each applied stage (unclipped float32), in order; keys are names
            of effects.
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


def sample_recipe(seed: int) -> Recipe:
    """Draw which effects are present (each with probability 0.5) and their parameters."""
    draws = ParameterDraws(seed, Stage.PRESENCE)
    present = {name: draws.flag(slot, PRESENCE_PROBABILITY) for slot, name in enumerate(EFFECTS)}
    return Recipe(
        atmospheric_light=fog.sample_atmospheric_light(seed),
        fog=fog.sample(seed) if present["fog"] else None,
        shake=shake.sample(seed) if present["shake"] else None,
        rain=rain.sample(seed) if present["rain"] else None,
        noise=noise.sample(seed) if present["noise"] else None,
    )


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


def degrade(
    image: NDArray[np.float32],
    seed: int,
    *,
    recipe: Recipe | None = None,
    prior: DepthPrior = geometric,
    labels: NDArray[np.uint8] | None = None,
) -> Degraded:
    """Degrade a clean frame.

    Args:
        image: float32 RGB (H, W, 3) in [0, 1], H and W >= 16.
        seed: 64-bit seed of every random number; the same seed gives the same frame everywhere.
        recipe: parameters to use; sampled from the seed when None.
        prior: depth prior for the fog.
        labels: uint8 (H, W) class indices, for the scene part of the true diagnosis.

    Raises:
        ImageError: the image, the labels or the prior's map break the contract above.
    """
    _check(image, labels)
    recipe = sample_recipe(seed) if recipe is None else recipe
    height, width = image.shape[:2]
    light = recipe.atmospheric_light
    current = image
    stages: dict[str, NDArray[np.float32]] = {}
    transmission = np.ones((height, width), dtype=np.float32)
    psf = streaks = None

    fog_severity = shake_severity = rain_severity = noise_severity = None
    moments = shake.KernelMoments(direction_deg=0.0, length_px=0.0, energy=1.0, rms_px=0.0)
    covered = 0.0
    if recipe.fog is not None:
        near = prior(seed, height, width)
        if near.shape != (height, width):
            raise ImageError(
                f"expected a prior map of the frame's size ({height}, {width}), got {near.shape}"
            )
        transmission = fog.transmission(near, recipe.fog)
        current = stages["fog"] = fog.apply(current, transmission, light)
        fog_severity = fog.severity(float(transmission.mean()))
    if recipe.shake is not None:
        psf = shake.kernel(seed, recipe.shake)
        current = stages["shake"] = shake.apply(current, psf)
        moments = shake.moments(psf)
        shake_severity = shake.severity(moments.rms_px)
    if recipe.rain is not None:
        streaks = rain.mask(seed, recipe.rain, height, width)
        current = stages["rain"] = rain.apply(current, streaks, recipe.rain, light)
        covered = rain.coverage(streaks)
        rain_severity = rain.severity(covered)
    if recipe.noise is not None:
        deviation = noise.sigma(current, recipe.noise)
        current = stages["noise"] = noise.apply(current, seed, deviation)
        noise_severity = noise.severity(noise.variance(deviation))

    no_rain = rain.RainParameters(0.0, 0.0, 0.0, 0.0, 0.0)
    streak = recipe.rain or no_rain
    grain = recipe.noise or noise.NoiseParameters(0.0, 0.0)
    layout = scenes.observe(image, labels)
    diagnosis = Diagnosis(
        source="oracle",
        fog=FogDiagnosis(
            **_common(fog_severity),
            atmospheric_light=light,
            transmission_mean=float(transmission.mean()),
        ),
        shake=ShakeDiagnosis(
            **_common(shake_severity),
            direction_deg=moments.direction_deg,
            length_px=moments.length_px,
            energy=min(1.0, moments.energy),
        ),
        rain=RainDiagnosis(**_common(rain_severity), coverage=covered, **asdict(streak)),
        noise=NoiseDiagnosis(**_common(noise_severity), gain=grain.gain, offset=grain.offset),
        composition=scenes.composition(layout),
        scene=scenes.describe(layout),
    )
    return Degraded(
        image=np.clip(current, np.float32(0.0), np.float32(1.0)),
        stages=stages,
        recipe=recipe,
        diagnosis=diagnosis,
        transmission=transmission,
        psf=psf,
        streaks=streaks,
    )
