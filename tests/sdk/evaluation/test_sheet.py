"""The contact sheet shows the cases it should, and something in every cell."""

from __future__ import annotations

import numpy as np
import pytest

from rirf.evaluation.protocol import draw
from rirf.evaluation.runner import Evaluation
from rirf.evaluation.sheet import contact_sheet, pick
from rirf.pipeline import Pipeline


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("available", [2, 3, 5, 6, 7, 14])
def test_picks_are_ranked_and_never_repeat(
    evaluation: Evaluation, count: int, available: int
) -> None:
    rows = evaluation.rows[:available]
    groups = pick(rows, count)
    shown = [row for group in groups.values() for row in group]
    assert len({row.case.name for row in shown}) == len(shown) == min(available, 3 * count)
    gains = [row.gain for row in shown]
    assert gains == sorted(gains, reverse=True)
    assert groups["Best"][0].gain == max(row.gain for row in rows)
    if available > count:
        assert groups["Worst"][-1].gain == min(row.gain for row in rows)


def test_the_median_group_lies_in_the_middle(evaluation: Evaluation) -> None:
    gains = sorted(row.gain for row in evaluation.rows[:13])
    (middle,) = pick(evaluation.rows[:13], 1)["Median"]
    assert middle.gain == gains[6]


def test_the_sheet_holds_the_frames(evaluation: Evaluation, pipeline: Pipeline) -> None:
    environment = {"bundle": "edge", "device": "cpu", "provider": "CPU", "threads": 1}
    sheet = contact_sheet(pipeline, evaluation, environment, count=1)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert 1600 < sheet.shape[1] < 1900
    taller = contact_sheet(pipeline, evaluation, environment, count=2)
    assert taller.shape[1] == sheet.shape[1]
    assert taller.shape[0] > 1.6 * sheet.shape[0]
    # Mean colour of the best case's clean frame, found where the third column stands.
    best = pick(evaluation.rows, 1)["Best"][0]
    truth = draw(best.case).truth
    column = sheet[28 + 96 + 44 : 28 + 96 + 44 + 315, 28 + 2 * 432 : 28 + 2 * 432 + 420]
    scale = min(420 / truth.shape[1], 315 / truth.shape[0])
    inset = int((420 - scale * truth.shape[1]) / 2) + 4, int((315 - scale * truth.shape[0]) / 2) + 4
    inside = column[inset[1] : 315 - inset[1], inset[0] : 420 - inset[0]]
    assert np.allclose(inside.mean(axis=(0, 1)), truth.mean(axis=(0, 1)), atol=4.0)
