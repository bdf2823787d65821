from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.policy import MODES, Policy, burden
from tests.sdk.test_diagnosis import example
from tests.strategies import diagnoses

pytestmark = pytest.mark.lean

LADDER: list[dict[str, Any]] = [
    {"above": 0.0, "mode": "coarse"},
    {"above": 50.0, "mode": "1"},
    {"above": 90, "mode": 4},
]


def policy(bypass_below: float = 6.0) -> Policy:
    rungs = [{"above": rung["above"], "mode": str(rung["mode"])} for rung in LADDER]
    return Policy.model_validate({"bypass_below": bypass_below, "ladder": rungs})


def diagnosis(**burdens: tuple[float, float]) -> Diagnosis:
    """Absent effects with the given (probability, upper severity bound) and nothing else."""
    data = example()
    for name in EFFECTS:
        probability, upper = burdens.get(name, (0.0, 0.0))
        common = {
            "present": False,
            "probability": probability,
            "severity": 0.0,
            "interval": (0.0, upper),
        }
        data[name].update(common)
    return Diagnosis.model_validate(data)


def test_burden_is_probability_times_upper_bound() -> None:
    found = burden(diagnosis(fog=(0.5, 40.0), noise=(1.0, 3.0)))
    assert found == {"fog": 20.0, "shake": 0.0, "rain": 0.0, "noise": 3.0}


@pytest.mark.parametrize(
    ("burdens", "mode"),
    [
        ({}, "bypass"),
        ({"fog": (0.5, 11.9)}, "bypass"),
        # Each effect is small, though their sum is not: every one decides for itself.
        (dict.fromkeys(EFFECTS, (0.5, 11.0)), "bypass"),
        ({"fog": (0.5, 12.0)}, "coarse"),
        ({"fog": (1.0, 49.9)}, "coarse"),
        ({"fog": (1.0, 25.0), "rain": (1.0, 25.0)}, "1"),
        ({"fog": (1.0, 60.0), "rain": (1.0, 29.9)}, "1"),
        ({"fog": (1.0, 60.0), "rain": (1.0, 30.0)}, "4"),
        (dict.fromkeys(EFFECTS, (1.0, 100.0)), "4"),
    ],
)
def test_choice_by_burden(burdens: dict[str, tuple[float, float]], mode: str) -> None:
    assert policy().choose(diagnosis(**burdens)) == mode


def test_an_absent_effect_that_may_be_bad_is_not_bypassed() -> None:
    assert policy().choose(diagnosis(rain=(0.4, 60.0))) != "bypass"


def test_no_diagnosis_takes_the_first_rung() -> None:
    assert policy().choose(None) == "coarse"


def test_a_threshold_of_zero_never_bypasses() -> None:
    assert policy(0.0).choose(diagnosis()) == "coarse"


@given(diagnoses())
def test_any_diagnosis_gets_a_mode(found: Diagnosis) -> None:
    chosen = policy().choose(found)
    assert chosen in MODES
    assert (chosen == "bypass") == (max(burden(found).values()) < 6.0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"ladder": []}, id="no rung"),
        pytest.param({"ladder": [{"above": 1.0, "mode": "1"}]}, id="starts above 0"),
        pytest.param(
            {"ladder": [{"above": a, "mode": "1"} for a in (0.0, 9.0, 3.0)]}, id="does not rise"
        ),
        pytest.param({"ladder": [{"above": 0.0, "mode": "3"}]}, id="unknown mode"),
        pytest.param({"ladder": [{"above": 0.0, "mode": "1", "why": 1}]}, id="unknown rung field"),
        pytest.param({"bypass_below": -1.0}, id="negative threshold"),
        pytest.param({"bypass_below": float("nan")}, id="threshold not a number"),
        pytest.param({"why": ""}, id="unknown field"),
    ],
)
def test_a_bad_policy_is_refused(change: dict[str, Any]) -> None:
    data = {"bypass_below": 6.0, "ladder": [{"above": 0.0, "mode": "coarse"}]}
    Policy.model_validate(data)
    with pytest.raises(ValidationError):
        Policy.model_validate({**data, **change})
