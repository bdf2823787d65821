"""Hypothesis strategies shared by the tests: any valid diagnosis, any clean-scene layout."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rirf.diagnosis import (
    Diagnosis,
    FogDiagnosis,
    NoiseDiagnosis,
    RainDiagnosis,
    ShakeDiagnosis,
    SourceName,
)
from rirf.scene import CLASSES, GRID, WORD_LIMIT, SceneLayout, banned_words

# No deadline a test: how long an example takes depends on what else the machine is doing.
settings.register_profile("rirf", deadline=None)
settings.load_profile("rirf")

UNIT = st.floats(0.0, 1.0)
POSITIVE = st.floats(0.0, allow_infinity=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def effect_fields(draw: st.DrawFn) -> dict[str, Any]:
    present = draw(st.booleans())
    severity = draw(st.floats(1.0, 100.0)) if present else 0.0
    interval = (draw(st.floats(0.0, severity)), draw(st.floats(severity, 100.0)))
    return {
        "present": present,
        "probability": draw(UNIT),
        "severity": severity,
        "interval": interval,
    }


def scenes() -> st.SearchStrategy[str]:
    """Printable descriptions in any script that keep the rule."""
    word = st.text(st.characters(categories=("L", "M", "N", "P", "S")), min_size=1, max_size=9)
    words = st.lists(word, max_size=WORD_LIMIT).map(" ".join)
    return words.filter(lambda text: not banned_words(text) and text.isprintable())


@st.composite
def compositions(draw: st.DrawFn) -> dict[str, float]:
    names = draw(st.lists(st.sampled_from(CLASSES), unique=True))
    shares = [draw(UNIT) for _ in names]
    total = max(1.0, sum(shares))
    return {name: share / total for name, share in zip(names, shares, strict=True)}


@st.composite
def diagnoses(draw: st.DrawFn) -> Diagnosis:
    """Any valid diagnosis, extreme floats included."""
    light = draw(st.tuples(UNIT, UNIT, UNIT))
    return Diagnosis(
        source=draw(st.sampled_from(get_args(SourceName))),
        fog=FogDiagnosis(
            **draw(effect_fields()), atmospheric_light=light, transmission_mean=draw(UNIT)
        ),
        shake=ShakeDiagnosis(
            **draw(effect_fields()),
            direction_deg=draw(st.floats(0.0, 180.0, exclude_max=True)),
            length_px=draw(POSITIVE),
            energy=draw(UNIT),
        ),
        rain=RainDiagnosis(
            **draw(effect_fields()),
            density=draw(POSITIVE),
            coverage=draw(UNIT),
            slant_deg=draw(st.floats(-90.0, 90.0)),
            length_px=draw(POSITIVE),
            width_px=draw(POSITIVE),
            opacity=draw(UNIT),
        ),
        noise=NoiseDiagnosis(**draw(effect_fields()), gain=draw(POSITIVE), offset=draw(FINITE)),
        composition=draw(compositions()),
        scene=draw(scenes()),
    )


@st.composite
def layouts(draw: st.DrawFn) -> SceneLayout:
    """Any layout: class shares that fill each cell at most once, or none; any colours."""
    unit = st.floats(0.0, 1.0, width=32)
    classes = None
    if draw(st.booleans()):
        raw = draw(arrays(np.float32, (len(CLASSES), GRID, GRID), elements=unit))
        # A few strong classes, as in real frames, as well as even mixtures.
        raw = raw ** np.float32(draw(st.sampled_from((1.0, 8.0))))
        classes = (raw / np.maximum(raw.sum(axis=0), np.float32(1.0))).astype(np.float32)
    return SceneLayout(
        classes=classes,
        colours=draw(arrays(np.float32, (3, GRID, GRID), elements=unit)),
        detail=draw(arrays(np.float32, (GRID, GRID), elements=unit)),
    )
