from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from rirf.conditioning import SIZE, TABLE, VERSION, Part, encode, entries, index, scale
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.scene import CLASSES
from tests.sdk.test_diagnosis import example
from tests.strategies import diagnoses

pytestmark = pytest.mark.lean

# Version 1, spelled out a second time: checkpoints and bundles depend on it. A change here without
# a new VERSION makes old weights read wrong numbers.
VERSION_1 = """
known 1
fog.probability 1
shake.probability 1
rain.probability 1
noise.probability 1
fog.severity 100
shake.severity 100
rain.severity 100
noise.severity 100
fog.interval_width 100
shake.interval_width 100
rain.interval_width 100
noise.interval_width 100
fog.light_red 1
fog.light_green 1
fog.light_blue 1
fog.transmission_mean 1
shake.cos_twice_direction 1
shake.sin_twice_direction 1
shake.length_px 15
shake.energy 1
rain.density 0.01
rain.coverage 1
rain.slant_deg 30
rain.length_px 60
rain.width_px 3
rain.opacity 1
noise.gain 0.3
noise.offset 20
composition.sky 1
composition.building 1
composition.pole 1
composition.road 1
composition.pavement 1
composition.tree 1
composition.sign 1
composition.fence 1
composition.car 1
composition.pedestrian 1
composition.bicyclist 1
"""


def stored(diagnosis: Diagnosis | None) -> dict[str, float]:
    """The vector back in units, by name."""
    vector = encode(diagnosis)
    return {entry.name: float(vector[entry.index]) * entry.scale for entry in TABLE}


def test_table_of_version_1_is_frozen() -> None:
    rows = [line.split() for line in VERSION_1.split("\n") if line]
    assert VERSION == 1
    assert [(entry.name, entry.scale) for entry in TABLE] == [(n, float(s)) for n, s in rows]
    assert [entry.index for entry in TABLE] == list(range(SIZE))
    assert SIZE == len(TABLE) == 40
    assert all(entry.unit for entry in TABLE)


def test_entries_by_name() -> None:
    for entry in TABLE:
        assert index(entry.name) == entry.index
        assert scale(entry.name) == entry.scale
    with pytest.raises(KeyError):
        index("fog.mood")


PARTS: dict[Part, str] = {
    "scores": "fog.severity shake.severity rain.severity noise.severity fog.interval_width "
    "shake.interval_width rain.interval_width noise.interval_width",
    "parameters": "fog.light_red fog.light_green fog.light_blue fog.transmission_mean "
    "shake.cos_twice_direction shake.sin_twice_direction shake.length_px shake.energy rain.density "
    "rain.coverage rain.slant_deg rain.length_px rain.width_px rain.opacity noise.gain "
    "noise.offset",
    "semantics": " ".join(f"composition.{name}" for name in CLASSES),
}


@pytest.mark.parametrize("part", PARTS)
def test_the_entries_of_a_part(part: Part) -> None:
    assert [TABLE[position].name for position in entries(part)] == PARTS[part].split()


def test_what_is_there_belongs_to_no_part() -> None:
    parts = [position for part in PARTS for position in entries(part)]
    assert len(set(parts)) == len(parts)
    assert [entry.name for entry in TABLE if entry.index not in parts] == [
        "known",
        *(f"{name}.probability" for name in EFFECTS),
    ]


def test_without_a_diagnosis_everything_is_zero() -> None:
    vector = encode(None)
    assert vector.shape == (SIZE,)
    assert vector.dtype == np.float32
    assert not vector.any()


def test_every_entry_of_the_example() -> None:
    data = example()
    found = stored(Diagnosis.model_validate(data))
    expected = {"known": 1.0}
    for name in EFFECTS:
        lower, upper = data[name]["interval"]
        expected[f"{name}.probability"] = data[name]["probability"]
        expected[f"{name}.severity"] = data[name]["severity"]
        expected[f"{name}.interval_width"] = upper - lower
        for field, value in data[name].items():
            if f"{name}.{field}" in found:
                expected[f"{name}.{field}"] = value
    for channel, value in zip(
        ("red", "green", "blue"), data["fog"]["atmospheric_light"], strict=True
    ):
        expected[f"fog.light_{channel}"] = value
    twice = 2 * math.radians(data["shake"]["direction_deg"])
    expected["shake.cos_twice_direction"] = math.cos(twice)
    expected["shake.sin_twice_direction"] = math.sin(twice)
    expected |= {f"composition.{name}": data["composition"].get(name, 0.0) for name in CLASSES}
    assert set(expected) == set(found)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_no_direction_without_shake() -> None:
    data = example("shake.present", False)
    data["shake"] |= {"severity": 0.0, "interval": [0.0, 5.0], "direction_deg": 45.0}
    found = stored(Diagnosis.model_validate(data))
    assert found["shake.cos_twice_direction"] == found["shake.sin_twice_direction"] == 0.0


def test_directions_next_to_each_other_are_close_across_the_wrap() -> None:
    vectors = [
        encode(Diagnosis.model_validate(example("shake.direction_deg", angle)))
        for angle in (0.0, 179.9)
    ]
    assert np.abs(vectors[0] - vectors[1]).max() < 0.01


@given(diagnoses())
def test_both_forms_of_a_diagnosis_give_one_vector(diagnosis: Diagnosis) -> None:
    with np.errstate(over="ignore"):  # lengths up to 1e308 are valid diagnoses
        vector = encode(diagnosis)
        np.testing.assert_array_equal(vector, encode(Diagnosis.from_text(diagnosis.to_text())))
    assert vector[index("known")] == 1.0
    assert not np.isnan(vector).any()
