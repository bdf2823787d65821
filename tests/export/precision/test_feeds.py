from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rirf.bundle import Bundle
from rirf.errors import ImageError
from rirf.images import read_image
from rirf.pipeline import Pipeline
from rirf.views import extract
from rirf_export.precision import degraded_frames, record


def test_frames_are_degraded_by_their_name_alone(photographs: Path, tmp_path: Path) -> None:
    frames = list(degraded_frames(photographs, 4))
    names = sorted(path.name for path in photographs.iterdir())
    assert len(frames) == 4
    changes = [
        np.abs(frame.astype(int) - read_image(photographs / name)).mean()
        for name, frame in zip(names, frames, strict=True)
    ]
    # The astronaut's draw has no effect, as some frames in use have none.
    assert [change > 1 for change in changes] == [False, True, True, True]
    alone = tmp_path / names[2]
    shutil.copy(photographs / names[2], alone)
    (found,) = degraded_frames(alone, 1)
    np.testing.assert_array_equal(found, frames[2])


@pytest.mark.parametrize(("count", "taken"), [(1, [2]), (2, [1, 3]), (9, [0, 1, 2, 3])])
def test_frames_are_spread_over_the_folder(photographs: Path, count: int, taken: list[int]) -> None:
    every = list(degraded_frames(photographs, 4))
    found = list(degraded_frames(photographs, count))
    assert len(found) == len(taken)
    for frame, place in zip(found, taken, strict=True):
        np.testing.assert_array_equal(frame, every[place])


def test_a_side_cuts_the_centre(photographs: Path) -> None:
    (whole,), (cut,) = degraded_frames(photographs, 1), degraded_frames(photographs, 1, side=64)
    np.testing.assert_array_equal(cut, whole[64:128, 96:160])
    (large,) = degraded_frames(photographs, 1, side=200)
    np.testing.assert_array_equal(large, whole[:, 28:228])


def test_no_frames_is_an_error(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="count of 0 frames; expected at least 1"):
        degraded_frames(photographs, 0)
    with pytest.raises(ImageError, match="no pictures"):
        degraded_frames(tmp_path, 1)


def test_recordings_are_what_the_networks_were_given(pipeline: Pipeline, photographs: Path) -> None:
    (frame,) = degraded_frames(photographs, 1, side=96)
    (recording,) = record(pipeline, [frame])
    (seen,), (given,) = recording.of("reasoner"), recording.of("restorer")
    views = extract(frame)
    np.testing.assert_array_equal(seen["thumbnail"][0], views.thumbnail)
    np.testing.assert_array_equal(seen["crops"][0], views.crops)
    planes = frame[..., ::-1].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(given["degraded"][0], planes, atol=1e-6)
    np.testing.assert_array_equal(given["state"], given["degraded"])
    assert set(given) == {spec.name for spec in pipeline.restorer.inputs}


def test_modes_take_turns(pipeline: Pipeline, photographs: Path) -> None:
    manifest = pipeline.bundle.manifest
    schedules = {"coarse": ((-1.0, 1.0),), "2": ((-1.0, 1.0), (0.0, 0.5), (0.5, 0.5))}
    graph = manifest.restorer.model_copy(update={"schedules": schedules})
    bundle = Bundle(pipeline.bundle.folder, manifest.model_copy(update={"restorer": graph}))
    watched = Pipeline(bundle, pipeline.reasoner, pipeline.restorer)
    times = [
        [float(feeds["time"][0]) for feeds in recording.restorer]
        for recording in record(watched, degraded_frames(photographs, 3, side=32))
    ]
    assert times == [[-1.0], [-1.0, 0.0, 0.5], [-1.0]]
