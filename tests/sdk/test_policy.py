from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.policy import MODES, SUMMARIES, FittedPolicy, Policy, any_probability, burden
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
        pytest.param({"bypass_below": float("inf")}, id="infinite threshold"),
        pytest.param(
            {"ladder": [{"above": 0.0, "mode": "1"}, {"above": float("inf"), "mode": "2"}]},
            id="infinite rung",
        ),
        pytest.param({"bypass_by": "colour"}, id="unknown summary"),
        pytest.param({"bypass_by": "any_probability"}, id="a probability above 1"),
        pytest.param({"why": ""}, id="unknown field"),
    ],
)
def test_a_bad_policy_is_refused(change: dict[str, Any]) -> None:
    data = {"bypass_below": 6.0, "ladder": [{"above": 0.0, "mode": "coarse"}]}
    Policy.model_validate(data)
    with pytest.raises(ValidationError):
        Policy.model_validate({**data, **change})


def test_a_fitted_policy_is_a_policy_and_how_it_was_found() -> None:
    plain = policy()
    fitted = FittedPolicy(**plain.model_dump(), provenance={"cases": 12})
    again = FittedPolicy.model_validate_json(fitted.model_dump_json())
    assert again == fitted and again.provenance == {"cases": 12}
    assert type(again.thresholds) is Policy and again.thresholds == plain
    # A manifest holds the thresholds alone, under the schema it has always had.
    assert set(again.thresholds.model_dump()) == {"bypass_below", "ladder"}
    with pytest.raises(ValidationError):
        Policy.model_validate(fitted.model_dump())
    with pytest.raises(ValidationError, match="provenance"):
        FittedPolicy.model_validate(plain.model_dump())


def test_other_summaries_can_decide_the_bypass() -> None:
    # Each effect's burden is small; their sum is not, nor the chance that one of them is there.
    several = diagnosis(**dict.fromkeys(EFFECTS, (0.5, 8.0)))
    assert any_probability(several) == pytest.approx(1 - 0.5**4)
    found = {name: summary(several) for name, summary in SUMMARIES.items()}
    assert found == {
        "worst_burden": 4.0,
        "total_burden": 16.0,
        "any_probability": any_probability(several),
    }
    for by, value in found.items():
        for below, bypassed in ((0.999 * value, False), (min(1.001 * value, value + 0.01), True)):
            data = {**policy().model_dump(), "bypass_by": by, "bypass_below": below}
            chosen = Policy.model_validate(data).choose(several)
            assert (chosen == "bypass") == bypassed, (by, below)
    # A perhaps bad effect is restored by its burden, and left alone by its probability.
    perhaps = diagnosis(rain=(0.4, 60.0))
    data = {**policy().model_dump(), "bypass_by": "any_probability", "bypass_below": 0.9}
    assert policy().choose(perhaps) != "bypass"
    assert Policy.model_validate(data).choose(perhaps) == "bypass"
    assert Policy.model_validate(data).choose(diagnosis(rain=(0.95, 60.0))) != "bypass"


def test_the_summary_is_written_only_where_it_was_chosen() -> None:
    assert "bypass_by" not in policy().model_dump_json()
    other = Policy.model_validate({**policy(0.5).model_dump(), "bypass_by": "any_probability"})
    assert '"bypass_by":"any_probability"' in other.model_dump_json()
    assert Policy.model_validate_json(other.model_dump_json()) == other
    fitted = FittedPolicy(**other.model_dump(), provenance={})
    assert fitted.thresholds == other
