"""Means, JSON and table say what the rows say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rirf.diagnosis import EFFECTS
from rirf.evaluation.environment import describe
from rirf.evaluation.report import summarise, table, to_json
from rirf.evaluation.runner import CONDITIONS, Evaluation
from rirf.pipeline import Pipeline

SHOWN = ("input", *CONDITIONS)


@pytest.fixture(scope="module")
def where(pipeline: Pipeline) -> dict[str, Any]:
    return describe(pipeline, 1)


@pytest.fixture(scope="module")
def record(evaluation: Evaluation, where: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(to_json(evaluation, where))
    return loaded


def test_the_record_has_what_is_promised(record: dict[str, Any]) -> None:
    assert record["protocol"] == "v1"
    assert record["images"] == record["available"] == len(record["cases"]) == 14
    for condition in SHOWN:
        assert set(record[condition]) == {"psnr", "ssim"}
    assert set(record["per_degradation"]) == set(EFFECTS)
    assert {name: each["images"] for name, each in record["per_dataset"].items()} == {
        "bsds500": 9,
        "camvid": 5,
    }
    for group in (*record["per_dataset"].values(), *record["per_degradation"].values()):
        assert set(group) == {"images", *SHOWN}


def test_means_are_over_the_entries_of_the_cases(record: dict[str, Any]) -> None:
    def check(group: dict[str, Any], cases: list[dict[str, Any]]) -> None:
        assert group["images"] == len(cases)
        for condition in SHOWN:
            for figure, value in group[condition].items():
                mean = np.mean([case[condition][figure] for case in cases])
                assert value == pytest.approx(mean, abs=1e-3)

    check(record, record["cases"])
    for name in EFFECTS:
        present = [case for case in record["cases"] if case[name]["present"]]
        assert 0 < len(present) < len(record["cases"])
        check(record["per_degradation"][name], present)
    for name, group in record["per_dataset"].items():
        check(group, [case for case in record["cases"] if case["name"].startswith(f"{name}/")])


def test_errors_of_the_reasoner_are_over_the_entries_of_the_cases(record: dict[str, Any]) -> None:
    for name in EFFECTS:
        got = record["reasoner"][name]
        entries = [case[name] for case in record["cases"]]
        there = [each for each in entries if each["present"]]
        right = np.mean([each["present"] == each["predicted_present"] for each in entries])
        error = np.mean([abs(each["severity"] - each["predicted_severity"]) for each in there])
        assert got["images_present"] == len(there)
        assert got["presence_accuracy"] == pytest.approx(right, abs=1e-3)
        assert got["severity_mae"] == pytest.approx(error, abs=0.02)
        assert 0.0 <= got["interval_coverage"] <= 1.0
    for name in ("atmospheric_light_mae", "transmission_mean_mae", "transmission_map_mae"):
        assert 0.0 <= record["reasoner"][name] <= 1.0


def test_clean_cases_and_steps_are_counted(record: dict[str, Any]) -> None:
    clean = record["clean"]
    assert clean["images"] == len(record["clean_cases"]) == 1
    assert clean["untouched"] == sum(case["untouched"] for case in record["clean_cases"])
    assert (clean["worst"] is None) == (clean["untouched"] == clean["images"])
    assert sum(record["steps"].values()) == record["images"]


def test_the_environment_pins_the_bundle_and_names_no_machine(
    record: dict[str, Any], pipeline: Pipeline
) -> None:
    where = record["environment"]
    assert where["bundle"] == pipeline.bundle.manifest.name
    assert where["bundle_digest"] == pipeline.bundle.digest
    assert where["provider"] == "CPUExecutionProvider"
    assert where["threads"] == 1
    assert {"numpy", "onnxruntime"} <= set(where["packages"])
    assert str(pipeline.bundle.folder.parent) not in json.dumps(record)


def test_the_table_shows_the_means_in_aligned_columns(
    evaluation: Evaluation, where: dict[str, Any]
) -> None:
    text = table(evaluation, where)
    summary = summarise(evaluation)
    overall = next(line for line in text.splitlines() if line.startswith("overall"))
    for condition in SHOWN:
        figures = summary[condition]
        assert f"{figures['psnr']:.2f} / {figures['ssim']:.3f}" in overall
    rows = text.splitlines()
    start = rows.index(next(line for line in rows if line.startswith("overall")))
    block = rows[start - 2 : start + 1 + 2 + len(EFFECTS)]
    assert len({len(line) for line in block}) == 1
    assert [line.split()[0] for line in block[2:]] == ["overall", "bsds500", "camvid", *EFFECTS]
    assert "the paper's 13.46 / 0.326" in text
    assert "clean frames: " in text


def test_an_effect_that_no_image_has_is_shown_as_missing(
    evaluation: Evaluation, where: dict[str, Any]
) -> None:
    rows = tuple(row for row in evaluation.rows if "rain" not in row.effects)
    part = Evaluation(evaluation.protocol, rows, ())
    record = json.loads(to_json(part, where))
    assert record["per_degradation"]["rain"] == {"images": 0}
    assert record["reasoner"]["rain"]["severity_mae"] is None
    text = table(part, where)
    assert "clean frames: none in this slice" in text
    assert next(line for line in text.splitlines() if line.startswith("rain ")).count("–") == 6
