"""The conditioning vector: the one place that knows how a diagnosis becomes numbers for a network.

``TABLE`` lists every entry (index, name, unit, scale); the stored value is ``value / scale``.
Networks read entries by name through :func:`index`. Any change of order, scale or meaning raises
``VERSION``, which bundles and checkpoints record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.scene import CLASSES

__all__ = ["SIZE", "TABLE", "VERSION", "Entry", "Part", "encode", "entries", "index", "scale"]

VERSION = 1
# What a diagnosis says beside which effects are present: how bad, in which way, of what scene.
Part: TypeAlias = Literal["scores", "parameters", "semantics"]


@dataclass(frozen=True)
class Entry:
    """One entry: ``vector[index] = value / scale`` with the value in ``unit``."""

    index: int
    name: str
    unit: str
    scale: float


_ROWS: tuple[tuple[str, str, float], ...] = (
    ("known", "1 with a diagnosis, 0 without", 1.0),
    *((f"{name}.probability", "share", 1.0) for name in EFFECTS),
    *((f"{name}.severity", "points", 100.0) for name in EFFECTS),
    *((f"{name}.interval_width", "points", 100.0) for name in EFFECTS),
    ("fog.light_red", "share", 1.0),
    ("fog.light_green", "share", 1.0),
    ("fog.light_blue", "share", 1.0),
    ("fog.transmission_mean", "share", 1.0),
    ("shake.cos_twice_direction", "cosine, 0 when absent", 1.0),
    ("shake.sin_twice_direction", "sine, 0 when absent", 1.0),
    ("shake.length_px", "pixels", 15.0),
    ("shake.energy", "share", 1.0),
    ("rain.density", "seeds a pixel", 0.01),
    ("rain.coverage", "share", 1.0),
    ("rain.slant_deg", "degrees", 30.0),
    ("rain.length_px", "pixels", 60.0),
    ("rain.width_px", "pixels", 3.0),
    ("rain.opacity", "share", 1.0),
    ("noise.gain", "grey levels a grey level", 0.3),
    ("noise.offset", "grey levels", 20.0),
    *((f"composition.{name}", "share of the frame", 1.0) for name in CLASSES),
)

TABLE: tuple[Entry, ...] = tuple(
    Entry(position, name, unit, scale) for position, (name, unit, scale) in enumerate(_ROWS)
)
SIZE = len(TABLE)
_BY_NAME = {entry.name: entry for entry in TABLE}


def index(name: str) -> int:
    """Position of a named entry."""
    return _BY_NAME[name].index


def scale(name: str) -> float:
    """Scale of a named entry."""
    return _BY_NAME[name].scale


def entries(part: Part) -> tuple[int, ...]:
    """Positions of all entries that belong to a part of the diagnosis."""
    return tuple(entry.index for entry in TABLE if _part(entry.name) == part)


def _part(name: str) -> Part | None:
    effect, _, field = name.partition(".")
    if effect == "composition":
        return "semantics"
    if field in ("severity", "interval_width"):
        return "scores"
    return None if field in ("", "probability") else "parameters"


def encode(diagnosis: Diagnosis | None) -> NDArray[np.float32]:
    """The vector of a diagnosis, float32 (SIZE,); all zeros without one."""
    vector = np.zeros(SIZE, dtype=np.float32)
    if diagnosis is None:
        return vector
    values: dict[str, float] = {"known": 1.0}
    for name in EFFECTS:
        effect = diagnosis.effect(name)
        lower, upper = effect.interval
        values[f"{name}.probability"] = effect.probability
        values[f"{name}.severity"] = effect.severity
        values[f"{name}.interval_width"] = upper - lower
    for name, value in zip(("red", "green", "blue"), diagnosis.fog.atmospheric_light, strict=True):
        values[f"fog.light_{name}"] = value
    values["fog.transmission_mean"] = diagnosis.fog.transmission_mean
    if diagnosis.shake.present:
        twice = 2.0 * math.radians(diagnosis.shake.direction_deg)
        values["shake.cos_twice_direction"] = math.cos(twice)
        values["shake.sin_twice_direction"] = math.sin(twice)
    values["shake.length_px"] = diagnosis.shake.length_px
    values["shake.energy"] = diagnosis.shake.energy
    for name in ("density", "coverage", "slant_deg", "length_px", "width_px", "opacity"):
        values[f"rain.{name}"] = getattr(diagnosis.rain, name)
    values["noise.gain"] = diagnosis.noise.gain
    values["noise.offset"] = diagnosis.noise.offset
    for name, share in diagnosis.composition.items():
        values[f"composition.{name}"] = share
    for name, value in values.items():
        entry = _BY_NAME[name]
        vector[entry.index] = value / entry.scale
    return vector
