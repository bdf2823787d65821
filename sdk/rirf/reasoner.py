"""From the reasoner's output tensors to a diagnosis. Knows no engine and no image file.

Also holds :class:`Reading`, what the rest of the runtime passes on: a diagnosis together with the
coarse transmission map, which is too large to be part of the diagnosis itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf import scene as scenes
from rirf.degradation.fog import TRANSMISSION_FLOOR
from rirf.diagnosis import (
    EFFECTS,
    Diagnosis,
    FogDiagnosis,
    NoiseDiagnosis,
    RainDiagnosis,
    ShakeDiagnosis,
    SourceName,
)
from rirf.errors import EngineError

__all__ = ["PRESENCE_THRESHOLD", "Reading", "decode", "flat_transmission"]

PRESENCE_THRESHOLD = 0.5
_STREET_THRESHOLD = 0.5


@dataclass(frozen=True)
class Reading:
    """What was read off a frame.

    Attributes:
        diagnosis: None means "restore without a diagnosis".
        transmission: float32 (h, w) in (0, 1] at any resolution, or None for the diagnosis's mean.
    """

    diagnosis: Diagnosis | None = None
    transmission: NDArray[np.float32] | None = None


def flat_transmission(diagnosis: Diagnosis | None) -> NDArray[np.float32]:
    """A (1, 1) map: the diagnosis's mean transmission, 1 without fog or without a diagnosis."""
    foggy = diagnosis is not None and diagnosis.fog.present
    mean = diagnosis.fog.transmission_mean if diagnosis is not None and foggy else 1.0
    return np.full((1, 1), mean, dtype=np.float32)


def _bounded(value: float, low: float, high: float, digits: int = 4) -> float:
    return round(min(high, max(low, float(value))), digits) + 0.0


def _effect(outputs: Mapping[str, NDArray[np.float32]], position: int) -> dict[str, Any]:
    probability = _bounded(outputs["presence"][position], 0.0, 1.0)
    present = probability >= PRESENCE_THRESHOLD
    score = _bounded(outputs["severity"][position], 1.0, 100.0, 2)
    half = max(0.0, float(outputs["interval"][position]))
    upper = _bounded(score + half, score, 100.0, 2)
    return {
        "present": present,
        "probability": probability,
        "severity": score if present else 0.0,
        "interval": (_bounded(score - half, 1.0, score, 2) if present else 0.0, upper),
    }


def decode(outputs: Mapping[str, NDArray[np.float32]], source: SourceName = "edge") -> Reading:
    """Turn one frame's reasoner outputs into a reading.

    Args:
        outputs: arrays named and shaped as ``rirf_training.networks.reasoner`` lists them, without
            the batch axis.
        source: recorded in the diagnosis.

    Parameters of an absent effect are neutral (no blur, no streaks, no noise, transmission 1); the
    severity determines mean transmission and rain coverage, since each is a function of the other.

    Raises:
        EngineError: an output is not finite.
    """
    broken = [name for name, value in outputs.items() if not np.isfinite(value).all()]
    if broken:
        raise EngineError(
            f"the reasoner's {', '.join(broken)} came out as NaN or infinite, expected finite "
            "numbers: use another execution provider or precision, or export the bundle again"
        )
    common = {name: _effect(outputs, position) for position, name in enumerate(EFFECTS)}
    red, green, blue = (_bounded(value, 0.0, 1.0) for value in outputs["light"])

    fog = common["fog"]
    transmission = np.ones((1, 1), dtype=np.float32)
    mean = 1.0
    if fog["present"]:
        transmission = np.clip(outputs["transmission"][0], TRANSMISSION_FLOOR, 1.0)
        mean = 1.0 - (fog["severity"] - 1.0) / 99.0 * (1.0 - TRANSMISSION_FLOOR)

    blurred = common["shake"]["present"]
    cosine, sine, length, energy = (float(value) for value in outputs["shake"])
    direction = math.degrees(0.5 * math.atan2(sine, cosine)) % 180.0
    shake = ShakeDiagnosis(
        **common["shake"],
        # Rounding may reach 180, which is 0 again.
        direction_deg=round(direction, 2) % 180.0 if blurred else 0.0,
        length_px=_bounded(15.0 * length, 0.0, 15.0, 3) if blurred else 0.0,
        energy=_bounded(energy, 0.0, 1.0) if blurred else 1.0,
    )

    rainy = common["rain"]["present"]
    density, slant, streak, width, opacity = (float(value) for value in outputs["rain"])
    rain = RainDiagnosis(
        **common["rain"],
        density=_bounded(0.01 * density, 0.0, 0.1, 6) if rainy else 0.0,
        coverage=_bounded((common["rain"]["severity"] - 1.0) / 99.0, 0.0, 1.0) if rainy else 0.0,
        slant_deg=_bounded(30.0 * slant, -90.0, 90.0, 2) if rainy else 0.0,
        length_px=_bounded(60.0 * streak, 0.0, 1000.0, 2) if rainy else 0.0,
        width_px=_bounded(3.0 * width, 0.0, 100.0, 3) if rainy else 0.0,
        opacity=_bounded(opacity, 0.0, 1.0) if rainy else 0.0,
    )

    grainy = common["noise"]["present"]
    gain, offset = (float(value) for value in outputs["noise"])
    noise = NoiseDiagnosis(
        **common["noise"],
        gain=_bounded(0.3 * gain, 0.0, 1.0) if grainy else 0.0,
        offset=_bounded(20.0 * offset, -100.0, 100.0, 3) if grainy else 0.0,
    )

    street = float(outputs["street"][0]) >= _STREET_THRESHOLD
    layout = scenes.SceneLayout(
        classes=outputs["classes"] if street else None,
        colours=outputs["colours"],
        detail=outputs["detail"][0],
    )
    diagnosis = Diagnosis(
        source=source,
        fog=FogDiagnosis(
            **fog,
            atmospheric_light=(red, green, blue),
            transmission_mean=_bounded(mean, 0.0, 1.0),
        ),
        shake=shake,
        rain=rain,
        noise=noise,
        composition=scenes.composition(layout),
        scene=scenes.describe(layout),
    )
    return Reading(diagnosis, transmission.astype(np.float32, copy=False))
