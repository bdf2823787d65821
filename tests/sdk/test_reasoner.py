from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from rirf.degradation.fog import TRANSMISSION_FLOOR, severity
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import EngineError
from rirf.reasoner import PRESENCE_THRESHOLD, Reading, decode, flat_transmission
from rirf.scene import CLASSES
from tests.sdk.test_diagnosis import example
from tests.strategies import layouts

pytestmark = pytest.mark.lean

Outputs = dict[str, NDArray[np.float32]]


def outputs(**changes: Any) -> Outputs:
    """A reasoner's outputs for one frame: every effect there, a street scene."""
    classes = np.zeros((len(CLASSES), 4, 4))
    classes[CLASSES.index("sky"), :2] = 0.9
    classes[CLASSES.index("road"), 2:] = 0.8
    values: dict[str, Any] = {
        "presence": [0.9, 0.8, 0.7, 0.6],
        "severity": [40.0, 30.0, 20.0, 10.0],
        "interval": [5.0, 4.0, 3.0, 20.0],
        "light": [0.8, 0.85, 0.9],
        "transmission": np.linspace(0.1, 1.0, 1024).reshape(1, 32, 32),
        # 60 degrees; a third of 15 pixels.
        "shake": [math.cos(math.radians(120)), math.sin(math.radians(120)), 1 / 3, 0.25],
        "rain": [0.5, -1 / 3, 0.5, 0.5, 0.6],
        "noise": [0.5, -0.25],
        "street": [0.9],
        "classes": classes,
        "colours": np.full((3, 4, 4), 0.5),
        "detail": np.full((1, 4, 4), 0.05),
        **changes,
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}


@st.composite
def any_outputs(draw: st.DrawFn) -> Outputs:
    """Outputs the graph can give: bounded where its last layer bounds them, else any float."""

    def tensor(shape: tuple[int, ...], low: float | None, high: float | None) -> Any:
        floats = st.floats(low, high, width=32, allow_nan=False, allow_infinity=False)
        return draw(arrays(np.float32, shape, elements=floats))

    layout = draw(layouts())
    classes = layout.classes
    if classes is None:
        classes = np.zeros((len(CLASSES), 4, 4), dtype=np.float32)
    return {
        "presence": tensor((4,), 0.0, 1.0),
        "severity": tensor((4,), 1.0, 100.0),
        "interval": tensor((4,), 0.0, None),
        "light": tensor((3,), 0.0, 1.0),
        "transmission": tensor((1, 32, 32), 0.0, 1.0),
        "shake": tensor((4,), None, None),
        "rain": tensor((5,), None, None),
        "noise": tensor((2,), None, None),
        "street": tensor((1,), 0.0, 1.0),
        "classes": classes,
        "colours": layout.colours,
        "detail": layout.detail[None],
    }


def diagnosed(reading: Reading) -> Diagnosis:
    assert reading.diagnosis is not None
    return reading.diagnosis


@given(any_outputs())
def test_any_outputs_give_a_valid_diagnosis(values: Outputs) -> None:
    reading = decode(values)
    diagnosis = diagnosed(reading)
    assert Diagnosis.from_json(diagnosis.to_json()) == diagnosis
    assert Diagnosis.from_text(diagnosis.to_text()) == diagnosis
    for position, name in enumerate(EFFECTS):
        effect = diagnosis.effect(name)
        assert effect.present == (effect.probability >= PRESENCE_THRESHOLD)
        assert effect.probability == pytest.approx(float(values["presence"][position]), abs=1e-4)
        assert effect.interval[1] >= 1.0
    assert reading.transmission is not None
    assert reading.transmission.dtype == np.float32
    assert (
        TRANSMISSION_FLOOR - 1e-6 <= reading.transmission.min() <= reading.transmission.max() <= 1
    )


def test_values_and_units() -> None:
    reading = decode(outputs(), source="cotir")
    diagnosis = diagnosed(reading)
    assert diagnosis.source == "cotir"
    assert [diagnosis.effect(name).probability for name in EFFECTS] == [0.9, 0.8, 0.7, 0.6]
    assert [diagnosis.effect(name).severity for name in EFFECTS] == [40.0, 30.0, 20.0, 10.0]
    intervals = [(35.0, 45.0), (26.0, 34.0), (17.0, 23.0), (1.0, 30.0)]
    assert [diagnosis.effect(name).interval for name in EFFECTS] == intervals
    assert diagnosis.fog.atmospheric_light == (0.8, 0.85, 0.9)
    assert diagnosis.shake.direction_deg == 60.0
    assert diagnosis.shake.length_px == 5.0
    assert diagnosis.shake.energy == 0.25
    assert diagnosis.rain.density == 0.005
    assert diagnosis.rain.slant_deg == -10.0
    assert diagnosis.rain.length_px == 30.0
    assert diagnosis.rain.width_px == 1.5
    assert diagnosis.rain.opacity == 0.6
    assert diagnosis.noise.gain == 0.15
    assert diagnosis.noise.offset == -5.0
    assert diagnosis.composition == {"sky": 0.45, "road": 0.4}
    assert "sky above" in diagnosis.scene.lower()


def test_severity_fixes_mean_transmission_and_coverage() -> None:
    diagnosis = diagnosed(decode(outputs(severity=[40.0, 30.0, 20.0, 10.0])))
    # fog.severity is the rule in the other direction.
    assert severity(diagnosis.fog.transmission_mean) == pytest.approx(40.0, abs=0.01)
    assert diagnosis.rain.coverage == pytest.approx(19 / 99, abs=1e-4)


def test_the_map_keeps_the_floor_of_the_fog_model() -> None:
    coarse = np.linspace(0.0, 1.0, 1024, dtype=np.float32).reshape(1, 32, 32)
    reading = decode(outputs(transmission=coarse))
    assert reading.transmission is not None
    np.testing.assert_array_equal(reading.transmission, np.clip(coarse[0], TRANSMISSION_FLOOR, 1.0))


def test_absent_effects_are_neutral() -> None:
    reading = decode(
        outputs(presence=[0.4999, 0.3, 0.2, 0.0], transmission=np.full((1, 32, 32), 0))
    )
    diagnosis = diagnosed(reading)
    assert not any(diagnosis.effect(name).present for name in EFFECTS)
    assert [diagnosis.effect(name).severity for name in EFFECTS] == [0.0] * 4
    # How bad each may still be is kept.
    assert [diagnosis.effect(name).interval for name in EFFECTS] == [
        (0.0, 45.0),
        (0.0, 34.0),
        (0.0, 23.0),
        (0.0, 30.0),
    ]
    assert diagnosis.fog.transmission_mean == 1.0
    np.testing.assert_array_equal(reading.transmission, np.ones((1, 1)))
    shake, rain, noise = diagnosis.shake, diagnosis.rain, diagnosis.noise
    assert (shake.direction_deg, shake.length_px, shake.energy) == (0.0, 0.0, 1.0)
    streaks = (rain.density, rain.coverage, rain.slant_deg, rain.length_px, rain.width_px)
    assert streaks == (0.0,) * 5
    assert rain.opacity == 0.0
    assert (noise.gain, noise.offset) == (0.0, 0.0)


def test_one_absent_effect_leaves_the_others() -> None:
    diagnosis = diagnosed(decode(outputs(presence=[0.9, 0.1, 0.9, 0.9])))
    present = {name: diagnosis.effect(name).present for name in EFFECTS}
    assert present == {"fog": True, "shake": False, "rain": True, "noise": True}
    assert diagnosis.rain.length_px == 30.0


def test_the_threshold_counts_as_present() -> None:
    assert diagnosed(decode(outputs(presence=[0.5] * 4))).fog.present


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_outputs_stay_in_bounds(sign: float) -> None:
    huge = float(sign * np.finfo(np.float32).max)
    diagnosis = diagnosed(
        decode(
            outputs(interval=[abs(huge)] * 4, shake=[huge] * 4, rain=[huge] * 5, noise=[huge, huge])
        )
    )
    low = sign < 0
    assert diagnosis.fog.interval == (1.0, 100.0)
    assert diagnosis.shake.length_px == (0.0 if low else 15.0)
    assert diagnosis.rain.slant_deg == (-90.0 if low else 90.0)
    assert diagnosis.rain.density == (0.0 if low else 0.1)
    assert diagnosis.noise.gain == (0.0 if low else 1.0)
    assert diagnosis.noise.offset == (-100.0 if low else 100.0)


@pytest.mark.parametrize("degrees", [0.0, 0.001, 45.0, 90.0, 135.0, 179.0, 179.999])
def test_direction_of_motion(degrees: float) -> None:
    twice = math.radians(2 * degrees)
    found = diagnosed(decode(outputs(shake=[math.cos(twice), math.sin(twice), 0.5, 0.5])))
    assert 0.0 <= found.shake.direction_deg < 180.0
    apart = abs(found.shake.direction_deg - degrees)
    assert min(apart, 180.0 - apart) < 0.01


def test_a_scene_outside_the_classes_has_no_composition() -> None:
    diagnosis = diagnosed(decode(outputs(street=[0.49])))
    assert diagnosis.composition == {}
    assert "sky" not in diagnosis.scene.lower()


@pytest.mark.parametrize("name", outputs())
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_no_diagnosis(name: str, value: float) -> None:
    values = outputs()
    values[name].flat[-1] = value
    with pytest.raises(EngineError, match=f"the reasoner's {name} came out as NaN or infinite"):
        decode(values)


def test_flat_transmission() -> None:
    foggy = Diagnosis.model_validate(example())
    clear = example()
    clear["fog"].update(present=False, severity=0.0, interval=[0.0, 9.0])
    for diagnosis, expected in (
        (foggy, foggy.fog.transmission_mean),
        (Diagnosis.model_validate(clear), 1.0),
        (None, 1.0),
    ):
        found = flat_transmission(diagnosis)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.full((1, 1), expected, dtype=np.float32))
