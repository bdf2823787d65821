"""The runtime with a real exported pair against torch, frame in to frame out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import rirf
from rirf import conditioning
from rirf.degradation import degrade
from rirf.images import to_float, to_uint8
from rirf.pipeline import Pipeline
from rirf.reasoner import decode
from rirf.restorer import OVERLAP, restore
from rirf.tiles import spans
from rirf.views import extract
from rirf_training.networks import Reasoner, Restorer, load_network
from rirf_training.networks.reasoner import OUTPUTS
from tests.sdk.pictures import photo

LEAP = ((-1.0, 1.0),)
# How far the tiny restorer sees, in pixels: the stem (2), at half resolution two blocks of two 3x3
# convolutions and the head (10), at a quarter one 5x5 convolution (8), and the grid of the strided
# and the repeated pixels (4).
REACH = 24


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    with rirf.load(tiny_bundle, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reasoner(tiny_checkpoints: Path) -> Reasoner:
    network, _ = load_network(tiny_checkpoints / "reasoner")
    assert isinstance(network, Reasoner)
    return network


@pytest.fixture(scope="module")
def restorer(tiny_checkpoints: Path) -> Restorer:
    network, _ = load_network(tiny_checkpoints / "restorer")
    assert isinstance(network, Restorer)
    return network


def degraded(height: int, width: int) -> NDArray[np.uint8]:
    return to_uint8(degrade(to_float(photo(height, width)), seed=6).image)


def batch(image: NDArray[np.float32]) -> torch.Tensor:
    """(H, W, C) or (H, W) as (1, C, H, W)."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))[None]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 93), (16, 16)])
def test_restored_frames_are_those_of_torch(
    pipeline: Pipeline, restorer: Restorer, height: int, width: int
) -> None:
    frame = degraded(height, width)
    result = pipeline(frame, steps="coarse")
    assert result.transmission is not None
    bottom, right = -height % restorer.multiple, -width % restorer.multiple
    mirror = ((0, bottom), (0, right))
    image = batch(np.pad(to_float(frame), (*mirror, (0, 0)), mode="reflect"))
    with torch.no_grad():
        update = restorer(
            image,
            image,
            batch(np.pad(result.transmission, mirror, mode="reflect")),
            torch.from_numpy(conditioning.encode(result.diagnosis))[None],
            torch.tensor([-1.0]),
            torch.tensor([1.0]),
        )
    expected = (image + update)[0, :, :height, :width].numpy().transpose(1, 2, 0)
    # Rounding to a grey level may fall either way.
    assert np.abs(result.image.astype(int) - to_uint8(expected)).max() <= 1
    assert np.abs(result.image.astype(int) - frame).mean() > 1


def test_readings_are_those_of_torch(pipeline: Pipeline, reasoner: Reasoner) -> None:
    frame = degraded(90, 140)
    seen = extract(frame)
    with torch.no_grad():
        values = reasoner(*(torch.from_numpy(view[None]) for view in (seen.thumbnail, seen.crops)))
    expected = decode({n: v[0].numpy() for n, v in zip(OUTPUTS, values, strict=True)})
    found = pipeline.read(frame)
    assert found.transmission is not None
    assert expected.transmission is not None
    np.testing.assert_allclose(
        conditioning.encode(found.diagnosis), conditioning.encode(expected.diagnosis), atol=2e-3
    )
    np.testing.assert_allclose(found.transmission, expected.transmission, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(160, 160), (131, 257), (64, 250)])
def test_tiles_equal_the_whole(
    pipeline: Pipeline, restorer: Restorer, height: int, width: int
) -> None:
    frame = degraded(height, width)
    reading = pipeline.read(frame)
    transmission = np.linspace(0.2, 1.0, height * width, dtype=np.float32).reshape(height, width)

    def run(tile: int, overlap: int) -> NDArray[np.int64]:
        image = restore(
            pipeline.restorer,
            frame,
            reading.diagnosis,
            transmission,
            LEAP,
            multiple=restorer.multiple,
            tile=tile,
            overlap=overlap,
        )
        return image.astype(np.int64)

    whole = run(1024, 0)
    assert np.abs(whole - frame).mean() > 1
    # Where every tile that counts lies at least as far from its own border as the network sees,
    # only the last rounding may differ.
    near = np.zeros((height, width), dtype=bool)
    for axis, length in enumerate((height, width)):
        borders = near if axis == 0 else near.T
        found = spans(length, 128, OVERLAP, restorer.multiple)
        for left, right in pairwise(found):
            borders[left.stop - REACH : left.stop] = True
            borders[right.start : right.start + REACH] = True
    difference = np.abs(whole - run(128, OVERLAP)).max(axis=2)
    assert (~near).mean() > 0.2
    assert difference[~near].max() <= 1
    # Nearer, a border's effect is faded in: weights that learnt nothing feel borders far more than
    # trained ones do, and still it is a third of what it is without an overlap.
    assert difference.max() < np.abs(whole - run(64, 0)).max() / 3


def test_a_multi_step_schedule_is_the_sum_of_torchs_updates(
    pipeline: Pipeline, restorer: Restorer
) -> None:
    frame = degraded(32, 48)
    schedule = ((-1.0, 1.0), (0.0, 0.5), (0.5, 0.5))
    transmission = np.full((32, 48), 0.7, dtype=np.float32)
    diagnosis = pipeline.diagnose(frame)
    found = restore(
        pipeline.restorer,
        frame,
        diagnosis,
        transmission,
        schedule,
        multiple=restorer.multiple,
    )
    image = batch(to_float(frame))
    condition = torch.from_numpy(conditioning.encode(diagnosis))[None]
    state = image
    with torch.no_grad():
        for time, step in schedule:
            moment = torch.tensor([time]), torch.tensor([step])
            state = state + step * restorer(image, state, batch(transmission), condition, *moment)
    expected = to_uint8(state[0].numpy().transpose(1, 2, 0))
    assert np.abs(found.astype(int) - expected).max() <= 1
