from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rirf.diagnosis import EFFECTS, SCHEMA_VERSION, Diagnosis, Effect
from rirf.errors import DiagnosisError
from tests.strategies import diagnoses

pytestmark = pytest.mark.lean

EXAMPLE: dict[str, Any] = {
    "schema_version": 1,
    "source": "edge",
    "fog": {
        "present": True,
        "probability": 0.98,
        "severity": 41.5,
        "interval": [35.0, 48.25],
        "atmospheric_light": [0.81, 0.83, 0.88],
        "transmission_mean": 0.61,
    },
    "shake": {
        "present": True,
        "probability": 0.9,
        "severity": 22.0,
        "interval": [12.0, 40.0],
        "direction_deg": 30.0,
        "length_px": 2.9,
        "energy": 0.22,
    },
    "rain": {
        "present": False,
        "probability": 0.07,
        "severity": 0.0,
        "interval": [0.0, 9.5],
        "density": 0.0,
        "coverage": 0.0,
        "slant_deg": 0.0,
        "length_px": 0.0,
        "width_px": 0.0,
        "opacity": 0.0,
    },
    "noise": {
        "present": True,
        "probability": 0.99,
        "severity": 8.0,
        "interval": [6.0, 11.0],
        "gain": 0.1,
        "offset": -3.5,
    },
    "composition": {"sky": 0.31, "road": 0.25},
    "scene": "Sky above, road below; smooth road; bright blue above, grey below.",
}
# What a text may be damaged with: its own vocabulary, and what parsers trip over.
TOKENS = [
    "\n",
    "\r",
    " ",
    "",
    ".",
    "-",
    "nan",
    "inf",
    "1e999",
    "9" * 5000,
    "-0.0",
    "null",
    "absent",
]
TOKENS += ["Fog:", "unknown", ", sky 0.1", "\x00", "\ud800", "\u0663", "{", "]", '"', "present"]
SPLICES = st.one_of(st.sampled_from(TOKENS), st.text(max_size=5))


def example(path: str = "", value: Any = None) -> dict[str, Any]:
    """The example with one entry changed; ``path`` as in ``fog.severity``."""
    data = copy.deepcopy(EXAMPLE)
    if path:
        *parents, last = path.split(".")
        node = data
        for parent in parents:
            node = node[parent]
        node[last] = value
    return data


@given(diagnoses())
def test_text_json_and_model_are_one(diagnosis: Diagnosis) -> None:
    text, dumped = diagnosis.to_text(), diagnosis.to_json()
    assert Diagnosis.from_text(text) == diagnosis
    assert Diagnosis.from_json(dumped) == diagnosis
    assert Diagnosis.from_json(dumped.encode()) == diagnosis
    assert Diagnosis.from_json(diagnosis.to_json(indent=2)) == diagnosis
    # Round the whole circle, down to the letter: equal models have equal texts.
    assert Diagnosis.from_json(Diagnosis.from_text(text).to_json()).to_text() == text
    assert Diagnosis.from_text(Diagnosis.from_json(dumped).to_text()).to_json() == dumped


@given(diagnoses())
def test_the_text_has_one_line_for_each_part(diagnosis: Diagnosis) -> None:
    lines = diagnosis.to_text().split("\n")
    assert [line.split(":")[0].split(" (")[0] for line in lines[:7]] == [
        "Diagnosis",
        *(name.capitalize() for name in EFFECTS),
        "Composition",
        "Scene",
    ]
    assert lines[7:] == [""]
    for name, line in zip(EFFECTS, lines[1:5], strict=True):
        state = "present" if diagnosis.effect(name).present else "absent"
        assert line.startswith(f"{name.capitalize()}: {state} (probability ")


def test_example_text_reads_as_documented() -> None:
    diagnosis = Diagnosis.model_validate(EXAMPLE)
    assert diagnosis.to_text().splitlines()[1] == (
        "Fog: present (probability 0.98), severity 41.5 of 100 (between 35.0 and 48.25); "
        "atmospheric light 0.81 0.83 0.88 (red green blue), mean transmission 0.61."
    )
    assert diagnosis.to_text().splitlines()[5] == "Composition: sky 0.31, road 0.25."
    assert json.loads(diagnosis.to_json()) == EXAMPLE


def test_no_scene_and_no_composition() -> None:
    data = example("composition", {}) | {"scene": ""}
    diagnosis = Diagnosis.model_validate(data)
    assert diagnosis.to_text().endswith("Composition: unknown.\nScene:\n")
    assert Diagnosis.from_text(diagnosis.to_text()) == diagnosis


def test_the_last_line_break_may_be_missing() -> None:
    text = Diagnosis.model_validate(EXAMPLE).to_text()
    assert Diagnosis.from_text(text.rstrip("\n")) == Diagnosis.from_text(text)


def test_minus_zero_has_one_spelling() -> None:
    data = example("rain.slant_deg", -0.0)
    data["rain"] |= {"density": -0.0, "severity": -0.0}
    diagnosis = Diagnosis.model_validate(data)
    assert "-0.0" not in diagnosis.to_text() + diagnosis.to_json()
    assert "-0.0" not in Diagnosis.from_json(json.dumps(data)).to_text()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fog.severity", 0.5),  # present, but below 1
        ("fog.severity", 0.0),
        ("fog.severity", 100.5),
        ("fog.severity", float("nan")),
        ("fog.present", False),  # absent, but with a severity
        ("rain.present", True),  # present, but with severity 0
        ("rain.severity", 12.0),  # absent, but with a severity
        ("fog.interval", [42.0, 48.0]),  # severity outside
        ("fog.interval", [30.0, 41.0]),
        ("fog.interval", [48.0, 35.0]),  # turned round
        ("fog.interval", [-1.0, 48.0]),
        ("fog.interval", [30.0, 101.0]),
        ("fog.interval", [41.5]),
        ("fog.probability", 1.01),
        ("fog.probability", -0.01),
        ("fog.probability", None),
        ("fog.atmospheric_light", [0.8, 0.8]),
        ("fog.atmospheric_light", [0.8, 0.8, 1.2]),
        ("fog.transmission_mean", 1.5),
        ("fog.beta", 1.0),  # unknown field
        ("shake.direction_deg", 180.0),
        ("shake.direction_deg", -1.0),
        ("shake.length_px", -1.0),
        ("shake.length_px", float("inf")),
        ("shake.energy", 1.1),
        ("rain.slant_deg", 91.0),
        ("rain.coverage", 1.1),
        ("rain.opacity", -0.1),
        ("noise.gain", -0.1),
        ("noise.offset", float("nan")),
        ("noise.offset", "much"),
        ("composition", {"sky": 0.7, "road": 0.7}),
        ("composition", {"ocean": 0.7}),
        ("composition", {"sky": -0.1}),
        ("scene", "A street in heavy fog."),
        ("scene", "word " * 30 + "word"),
        ("scene", " A street."),
        ("scene", "A street.\nA house."),
        ("schema_version", 2),
        ("source", "somebody"),
        ("mood", "good"),  # unknown field
    ],
)
def test_contradictions_are_refused(path: str, value: Any) -> None:
    Diagnosis.model_validate(example())
    data = example(path, value)
    with pytest.raises(ValidationError):
        Diagnosis.model_validate(data)
    with pytest.raises(DiagnosisError, match="not a diagnosis of schema 1"):
        Diagnosis.from_json(json.dumps(data))


@pytest.mark.parametrize("missing", [*EFFECTS, "source"])
def test_a_missing_part_is_refused(missing: str) -> None:
    data = {key: value for key, value in EXAMPLE.items() if key != missing}
    with pytest.raises(DiagnosisError, match=missing):
        Diagnosis.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("severity 41.5", "severity 4I.5", "got the line 'Fog: .*expected the form 'Fog: present"),
        ("Fog: present", "Mist: present", "expected the form 'Fog"),
        ("0.81 0.83 0.88", "0.81 0.83", "atmospheric_light"),
        ("length 2.9", "length 2.9 3.1", "shake: length_px takes one number, got '2.9 3.1'"),
        ("offset -3.5", "offset 1e999", "noise: offset '1e999' is not a finite number"),
        ("between 35.0", "between 1e999", "not a diagnosis"),
        ("severity 41.5", "severity 0.5", "1 to 100"),
        ("sky 0.31", "sky 0.31, sky 0.2", "each class once"),
        ("sky 0.31", "sky", "each class once"),
        ("sky 0.31", "sky 0.3_1", "each class once"),
        ("sky 0.31", "sea 0.31", "unknown classes"),
        ("Scene: Sky", "Scene:  Sky", "expected the form 'Scene"),
        ("Scene: Sky", "Scene: Foggy sky", "speaks of degradations"),
        ("schema 1", "schema 2", "not a diagnosis of schema 1"),
        ("schema 1", "schema " + "9" * 5000, "expected the form 'Diagnosis"),
        ("source edge", "source somebody", "source"),
        ("Composition", "\nComposition", "expected 7 lines .* got 8"),
    ],
)
def test_damaged_texts_say_what_is_wrong(old: str, new: str, message: str) -> None:
    text = Diagnosis.model_validate(EXAMPLE).to_text()
    assert text.count(old) == 1
    with pytest.raises(DiagnosisError, match=message):
        Diagnosis.from_text(text.replace(old, new))


def parse_or_refuse(kind: str, text: str) -> None:
    parse = Diagnosis.from_text if kind == "text" else Diagnosis.from_json
    try:
        parsed = parse(text)
    except DiagnosisError as error:
        assert str(error)  # and no other error
    else:  # the damage was harmless: what was understood must survive its own round trip
        assert Diagnosis.from_text(parsed.to_text()) == parsed


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    diagnoses(),
    st.sampled_from(["text", "json"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), SPLICES), min_size=1, max_size=4),
)
def test_damage_never_raises_anything_else(
    diagnosis: Diagnosis, kind: str, damage: list[tuple[float, int, str]]
) -> None:
    text = diagnosis.to_text() if kind == "text" else diagnosis.to_json()
    for place, cut, splice in damage:
        at = int(place * len(text))
        text = text[:at] + splice + text[at + cut :]
    parse_or_refuse(kind, text)


@given(st.text(), st.sampled_from(["text", "json"]))
def test_garbage_never_raises_anything_else(text: str, kind: str) -> None:
    parse_or_refuse(kind, text)


@given(st.binary())
def test_garbage_bytes_never_raise_anything_else(content: bytes) -> None:
    with pytest.raises(DiagnosisError):
        Diagnosis.from_json(content)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "NaN", "[" * 100_000, '{"fog":' * 50_000])
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(DiagnosisError, match="not a diagnosis of schema 1"):
        Diagnosis.from_json(text)


def test_a_long_run_of_digits_is_refused_quickly() -> None:
    text = Diagnosis.model_validate(EXAMPLE).to_text()
    damaged = text.replace("offset -3.5", "offset " + "1" * 100_000 + "x")
    start = time.perf_counter()
    with pytest.raises(DiagnosisError):
        Diagnosis.from_text(damaged)
    assert time.perf_counter() - start < 5.0  # backtracking over every digit pair takes minutes


def test_effects_by_name() -> None:
    diagnosis = Diagnosis.model_validate(EXAMPLE)
    assert [diagnosis.effect(name).severity for name in EFFECTS] == [41.5, 22.0, 0.0, 8.0]
    with pytest.raises(KeyError, match=r"no effect 'scene'; there are fog, shake"):
        diagnosis.effect("scene")


def test_a_diagnosis_cannot_be_changed() -> None:
    diagnosis = Diagnosis.model_validate(EXAMPLE)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(diagnosis, "scene", "Else.")  # noqa: B010  # a type checker refuses it as well
    with pytest.raises(ValidationError, match="frozen"):
        setattr(diagnosis.fog, "severity", 3.0)  # noqa: B010  # as above


def test_schema_version_is_written() -> None:
    assert json.loads(Diagnosis.model_validate(EXAMPLE).to_json())["schema_version"] == 1
    assert SCHEMA_VERSION == 1


def test_every_parameter_is_in_the_text() -> None:
    # A field added to an effect and forgotten in its template would be lost in the text form.
    text = Diagnosis.model_validate(EXAMPLE).to_text()
    for name in EFFECTS:
        fields = type(Diagnosis.model_validate(EXAMPLE).effect(name)).model_fields
        changed = example()
        for field in set(fields) - set(Effect.model_fields):
            value = changed[name][field]
            nudged = (
                [v / 2 + 0.125 for v in value] if isinstance(value, list) else value / 2 + 0.125
            )
            other = Diagnosis.model_validate(example(f"{name}.{field}", nudged))
            assert other.to_text() != text, (name, field)
