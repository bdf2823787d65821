"""Shake statistics: a blur moves them the right way, and the benchmark runs on a few pictures."""

from __future__ import annotations

import importlib
import json
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
LENGTH = 7


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("shake_statistics")


def _correlation(script: ModuleType, image: NDArray[np.float32], axis: int) -> dict[Any, float]:
    gradient = np.diff(image, axis=axis)[None]
    energy, products = script.autocorrelations(gradient)
    return dict(zip(script.LAGS, (products[0] / energy[0]).tolist(), strict=True))


def test_autocorrelations_are_the_sums_they_are_called(script: ModuleType) -> None:
    gradient = np.random.default_rng(3).normal(size=(1, 95, 95)).astype(np.float32)
    energy, products = script.autocorrelations(gradient)
    centred = gradient[0] - gradient[0].mean()
    assert energy[0] == pytest.approx((centred**2).mean(), rel=1e-5)
    for place, (down, right) in enumerate(script.LAGS):
        left, width = max(0, -right), 95 - abs(right)
        here = centred[: 95 - down, left : left + width]
        there = centred[down:, left + right : left + right + width]
        expected = float((here * there).sum()) / 95**2
        assert products[0, place] == pytest.approx(expected, abs=1e-5), (down, right)


def test_a_horizontal_blur_shows_at_its_length(script: ModuleType) -> None:
    sharp = np.random.default_rng(1).random((96, 96 + LENGTH), dtype=np.float32)
    box = np.full((1, LENGTH), 1.0 / LENGTH, dtype=np.float32)
    blurred = np.asarray(cv2.filter2D(sharp, -1, box), dtype=np.float32)[:, :96]
    before, after = (_correlation(script, image, 1) for image in (sharp[:, :96], blurred))
    # The gradient of white noise has -1/2 beside its peak; a box blur carries that to its length.
    assert before[0, 1] < -0.4 and abs(before[0, LENGTH]) < 0.1
    assert after[0, LENGTH] < -0.4 and abs(after[0, 1]) < 0.1
    # Across the blur nothing moves.
    across_before, across_after = (
        _correlation(script, image, 0) for image in (sharp[:, :96], blurred)
    )
    assert across_before[1, 0] < -0.4 and across_after[1, 0] < -0.4
    assert abs(across_after[LENGTH, 0]) < 0.1


def test_a_turned_blur_swaps_the_directions(script: ModuleType) -> None:
    texture = np.random.default_rng(2).random((8, 3, 96, 96), dtype=np.float32)
    box = np.full((1, LENGTH), 1.0 / LENGTH, dtype=np.float32)
    planes = texture.reshape(-1, 96, 96)
    along = np.stack([cv2.filter2D(each, -1, box) for each in planes]).reshape(texture.shape)
    found = script.statistics(along)
    turned = script.statistics(np.ascontiguousarray(along.swapaxes(2, 3)))
    assert found.shape == (script.STATISTICS,) and found.dtype == np.float32
    # Log energies of the horizontal gradient lead the first half, of the vertical one the second.
    half = 8 + 2 * len(script.LAGS)
    np.testing.assert_allclose(found[:8], turned[half : half + 8], rtol=1e-4)
    assert (found[:8] < found[half : half + 8] - 1.0).all()


def _pictures(root: Path, script: ModuleType) -> Path:
    """A flat folder whose names fall into all three shares."""
    from rirf_training.config import ReasonerRun
    from rirf_training.data.catalog import held_out

    root.mkdir()
    wanted = {"held": 2, "choosing": 3, "training": 5}
    photos = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    numbers = count()
    while any(wanted.values()):
        number = next(numbers)
        name = f"{number:04}.png"
        share = "choosing" if held_out(name, script.CHOOSING_SHARE) else "training"
        share = "held" if held_out(name, ReasonerRun().validation_share) else share
        if wanted[share]:
            wanted[share] -= 1
            top, left = 13 * number % 200, 29 * number % 250
            window = photos[number % len(photos)][top : top + 100, left : left + 140, ::-1]
            cv2.imwrite(str(root / name), np.ascontiguousarray(window))
    return root


def test_table_and_record(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "EPOCHS", (1, 2))
    root = _pictures(tmp_path / "pictures", script)
    call = [
        "--data",
        str(root),
        "--cache",
        str(tmp_path / "cache"),
        "--draws",
        "40",
        "--held",
        "21",
    ]
    script.main(call)
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(printed[-1])
    assert record["images"] == {"training": 8, "choosing": 3, "held_out": 2}
    assert record["epochs"] == min((1, 2), key=lambda n: record["epochs_tried"][str(n)])
    frames, presence = record["frames"], record["presence"]
    assert sum(frames[kind] for kind in script.KINDS) == frames["all"] == 21
    assert frames["present"] + frames["absent"] == 21
    # A share over all frames is the mean of those of its parts.
    for told in presence.values():
        for parts in (script.KINDS, ("present", "absent")):
            right = sum(frames[part] * (told[part] or 0.0) for part in parts)
            assert right / 21 == pytest.approx(told["all"])
    assert {presence["prior"]["present"], presence["prior"]["absent"]} == {0.0, 1.0}
    for errors in record["errors"].values():
        assert 0.0 < errors["severity"] < 100.0 and 0.0 < errors["direction_deg"] <= 90.0
    assert record["statistics_ms"] > 0.0 and record["provider"] == "CPUExecutionProvider"
    assert printed[0].split()[-3:] == ["statistics", "reasoner", "prior"]
    assert [line.split()[0] for line in printed[1:3]] == ["all", "neither"]

    script.main([*call, "--json"])
    alone = capsys.readouterr().out.splitlines()
    again = json.loads(alone[0])
    times = {"crops_ms", "statistics_ms"}
    assert len(alone) == 1 and again.keys() == record.keys()
    assert {k: v for k, v in again.items() if k not in times} == {
        k: v for k, v in record.items() if k not in times
    }


def test_too_few_images_are_refused(script: ModuleType, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), data.coffee()[:64, :64])
    with pytest.raises(SystemExit, match="more images"):
        script.main(["--data", str(tmp_path), "--cache", str(tmp_path / "cache")])
