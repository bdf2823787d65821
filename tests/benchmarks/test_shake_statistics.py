"""The benchmark takes the reasoner's own statistics, and runs on a few pictures.

What the statistics are is tested in tests/training/networks/test_statistics.py.
"""

from __future__ import annotations

import importlib
import json
from itertools import count
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from skimage import data

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("shake_statistics")


def test_the_statistics_are_the_reasoners(script: ModuleType) -> None:
    from rirf.views import CROP_SIZE, CROPS
    from rirf_training.networks import Reasoner, ReasonerConfig

    photo = data.astronaut()
    windows = [photo[n : n + CROP_SIZE, 9 * n : 9 * n + CROP_SIZE] for n in range(CROPS)]
    crops = np.stack(windows).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    reasoner = Reasoner(ReasonerConfig())
    found = script.statistics(reasoner.statistics, crops)
    assert found.shape == tuple(reasoner.usual.shape) == (296,)
    assert found.dtype == np.float32
    # Log energies of the horizontal gradient come first.
    grey = crops.mean(axis=1)
    across = (grey[:, 1:, 1:] - grey[:, 1:, :-1]).astype(np.float64)
    np.testing.assert_allclose(found[:CROPS], np.log(across.var(axis=(1, 2)) + 1e-6), atol=1e-4)


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
    assert record["statistics"] == 296
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
