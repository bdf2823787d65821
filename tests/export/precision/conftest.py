"""A folder of photographs, the tiny pair loaded, and what its networks are given for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from skimage import data

import rirf
from rirf.pipeline import Pipeline
from rirf_export.precision import Feeds, degraded_frames, record


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket):
        cv2.imwrite(str(folder / f"{photo.__name__}.png"), photo()[:192, :256, ::-1])
    return folder


@pytest.fixture(scope="session")
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    with rirf.load(tiny_bundle, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def samples(pipeline: Pipeline, photographs: Path) -> dict[str, list[Feeds]]:
    recordings = list(record(pipeline, degraded_frames(photographs, 3, side=96)))
    return {
        kind: [feeds for each in recordings for feeds in each.of(kind)]
        for kind in ("reasoner", "restorer")
    }
