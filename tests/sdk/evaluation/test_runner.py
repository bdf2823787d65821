"""The run: every condition gets what it should, against the pipeline called directly."""

from __future__ import annotations

import numpy as np
import pytest

from rirf.errors import RirfError
from rirf.evaluation.metrics import PSNR_CEILING, Figures, measure
from rirf.evaluation.protocol import Protocol, draw, truth_map
from rirf.evaluation.runner import CONDITIONS, Evaluation, Row, evaluate
from rirf.pipeline import Pipeline
from rirf.reasoner import Reading


def close(ours: Figures, theirs: Figures) -> bool:
    return abs(ours.psnr - theirs.psnr) < 0.02 and abs(ours.ssim - theirs.ssim) < 1e-3


def test_rows_are_the_cases_in_the_order_of_the_protocol(
    evaluation: Evaluation, small_protocol: Protocol
) -> None:
    assert [row.case for row in evaluation.rows] == list(small_protocol.cases)
    for row in evaluation.rows:
        assert set(row.figures) == {"input", *CONDITIONS}
        assert row.effects
        assert row.read_ms > 0 and row.restore_ms > 0


def test_conditions_are_the_pipeline_called_with_that_reading(
    evaluation: Evaluation, pipeline: Pipeline, small_protocol: Protocol
) -> None:
    cases = {case.name: case for case in small_protocol.cases}
    foggy = next(row for row in evaluation.rows if "fog" in row.effects)
    street = next(row for row in evaluation.rows if row.case.dataset == "camvid")
    for row in (foggy, street):
        sample, donor = draw(row.case), draw(cases[row.donor])
        assert row.donor != row.case.name
        frame, truth = sample.frame, sample.truth
        wanted = {
            "input": frame,
            "predicted": pipeline(frame).image,
            "predicted_coarse": pipeline(frame, steps="coarse").image,
            "none": pipeline.restore(frame, Reading(), steps="coarse").image,
        }
        for condition, source in (("true", sample), ("shuffled", donor)):
            wanted[condition] = pipeline(
                frame,
                diagnosis=source.degraded.diagnosis,
                transmission=truth_map(source.degraded.transmission),
                steps="coarse",
            ).image
        for condition, picture in wanted.items():
            assert close(row.figures[condition], measure(picture, truth)), condition
        assert row.truth == sample.degraded.diagnosis
        assert row.prediction == pipeline.diagnose(frame)


def test_every_case_gives_its_diagnosis_away_once(evaluation: Evaluation) -> None:
    names = {row.case.name for row in evaluation.rows}
    assert {row.donor for row in evaluation.rows} == names
    assert all(row.donor != row.case.name for row in evaluation.rows)


def test_the_diagnosis_matters(evaluation: Evaluation) -> None:
    foggy = [row for row in evaluation.rows if "fog" in row.effects]
    true, shuffled = (
        np.mean([row.figures[condition].psnr for row in foggy])
        for condition in ("true", "shuffled")
    )
    assert true > shuffled + 1.0


def test_clean_cases_are_run_undegraded_too(evaluation: Evaluation, pipeline: Pipeline) -> None:
    assert [row.case.name for row in evaluation.clean] == ["bsds500/1008.jpg"]
    (clean,) = evaluation.clean
    truth = draw(clean.case).truth
    image = pipeline(truth).image
    assert clean.untouched == np.array_equal(image, truth)
    assert (clean.figures.psnr == PSNR_CEILING) == clean.untouched
    degraded = next(row for row in evaluation.rows if row.case == clean.case)
    assert degraded.figures["input"].psnr < PSNR_CEILING


def test_the_map_error_is_that_of_the_predicted_transmission(
    evaluation: Evaluation, pipeline: Pipeline
) -> None:
    row = max((row for row in evaluation.rows if row.truth.fog.present), key=lambda r: r.map_error)
    sample = draw(row.case)
    seen = pipeline.read(sample.frame).transmission
    assert seen is not None
    # Both maps are means over the same frame, so their means differ by the mean error at most.
    gap = abs(float(seen.mean()) - float(sample.degraded.transmission.mean()))
    assert gap - 0.01 <= row.map_error <= 1.0


def test_a_run_repeats(
    evaluation: Evaluation, pipeline: Pipeline, small_protocol: Protocol
) -> None:
    part = Protocol("v1", small_protocol.cases[:3], 3)
    first, second = evaluate(pipeline, part), evaluate(pipeline, part)

    def fixed(row: Row) -> tuple[object, ...]:
        return row.case, row.figures, row.prediction, row.donor, row.steps

    assert [fixed(row) for row in first.rows] == [fixed(row) for row in second.rows]
    # What a case is given does not depend on the slice, but for the shuffle.
    for row, whole in zip(first.rows, evaluation.rows, strict=False):
        assert row.case == whole.case
        for condition in ("input", "predicted", "true", "none"):
            assert close(row.figures[condition], whole.figures[condition])


def test_one_case_cannot_be_shuffled(pipeline: Pipeline, small_protocol: Protocol) -> None:
    with pytest.raises(RirfError, match="at least 2"):
        evaluate(pipeline, Protocol("v1", small_protocol.cases[:1], 1))
