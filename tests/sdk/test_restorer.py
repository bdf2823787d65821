"""Tiles, padding and steps with an engine of plain arithmetic, and with the shipped graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rirf import conditioning
from rirf.bundle import Bundle
from rirf.degradation import degrade
from rirf.diagnosis import Diagnosis
from rirf.engine import OnnxEngine, TensorSpec
from rirf.images import to_float, to_uint8
from rirf.reasoner import Reading
from rirf.restorer import OVERLAP, full_transmission, restore
from tests.sdk.pictures import photo
from tests.sdk.test_diagnosis import example

pytestmark = pytest.mark.lean

Tensors = Mapping[str, NDArray[Any]]
LEAP = ((-1.0, 1.0),)


class Arithmetic:
    """An engine whose graph is a function of its inputs; keeps what it was given."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    device = "arithmetic"

    def __init__(self, update: Callable[[Tensors], NDArray[np.float32]]) -> None:
        self.update = update
        self.seen: list[dict[str, NDArray[Any]]] = []

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        self.seen.append({name: value.copy() for name, value in inputs.items()})
        return {"update": np.array(self.update(inputs), dtype=np.float32)}

    def run_into(self, inputs: Tensors, outputs: Tensors) -> None:
        outputs["update"][...] = self.run(inputs)["update"]

    def warm_up(self, inputs: Tensors) -> None:
        self.run(inputs)

    def close(self) -> None:
        pass


def nothing(inputs: Tensors) -> NDArray[np.float32]:
    return np.zeros_like(inputs["state"])


def ones(height: int, width: int) -> NDArray[np.float32]:
    return np.ones((height, width), dtype=np.float32)


@pytest.fixture(scope="module")
def bundle(shipped: Path) -> Bundle:
    return Bundle.open(shipped)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[OnnxEngine]:
    loaded = OnnxEngine(bundle.path(bundle.manifest.restorer), threads=1)
    yield loaded
    loaded.close()


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (17, 33), (64, 64), (65, 64), (95, 300), (200, 201)]
)
def test_an_update_of_nothing_gives_the_frame_back(height: int, width: int) -> None:
    frame = photo(height, width)
    net = Arithmetic(nothing)
    result = restore(net, frame, None, ones(height, width), LEAP, multiple=16, tile=64, overlap=16)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, frame)
    for seen in net.seen:
        tile = seen["degraded"].shape[2:]
        assert tile == seen["transmission"].shape[2:]
        assert all(side % 16 == 0 and side <= 64 for side in tile)


def test_odd_sizes_are_mirrored_out_at_the_bottom_and_right() -> None:
    frame = photo(17, 33)
    transmission = np.linspace(0.1, 1.0, 17 * 33, dtype=np.float32).reshape(17, 33)
    net = Arithmetic(nothing)
    restore(net, frame, None, transmission, LEAP, multiple=16)
    (seen,) = net.seen
    mirrored = cv2.copyMakeBorder(frame, 0, 15, 0, 15, cv2.BORDER_REFLECT_101)
    expected = to_float(np.asarray(mirrored, dtype=np.uint8)).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen["degraded"][0], expected)
    np.testing.assert_array_equal(seen["state"], seen["degraded"])
    given = cv2.copyMakeBorder(transmission, 0, 15, 0, 15, cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(seen["transmission"][0, 0], given)


def test_tiles_see_their_own_part_of_frame_and_map() -> None:
    frame = photo(80, 150)
    transmission = np.random.default_rng(1).uniform(0.1, 1.0, (80, 150)).astype(np.float32)
    net = Arithmetic(nothing)
    restore(net, frame, None, transmission, LEAP, multiple=4, tile=100, overlap=20)
    starts = [(0, 0), (0, 52)]
    assert len(net.seen) == 2
    for seen, (top, left) in zip(net.seen, starts, strict=True):
        window = np.s_[top : top + 80, left : left + 100]
        expected = to_float(np.ascontiguousarray(frame[window])).transpose(2, 0, 1)
        width = expected.shape[2]
        np.testing.assert_array_equal(seen["degraded"][0, :, :, :width], expected)
        np.testing.assert_array_equal(seen["transmission"][0, 0, :, :width], transmission[window])


def test_pointwise_updates_leave_no_seam() -> None:
    frame = photo(150, 210)
    transmission = np.random.default_rng(2).uniform(0.3, 1.0, (150, 210)).astype(np.float32)

    def brighten(inputs: Tensors) -> NDArray[np.float32]:
        return np.asarray(0.3 * (1 - inputs["state"]) * inputs["transmission"], dtype=np.float32)

    net = Arithmetic(brighten)
    whole = restore(net, frame, None, transmission, LEAP, multiple=16)
    tiled = restore(net, frame, None, transmission, LEAP, multiple=16, tile=64, overlap=24)
    assert len(net.seen) > 10
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # the last rounding alone
    image = to_float(frame)
    expected = to_uint8(image + 0.3 * (1 - image) * transmission[..., None])
    assert np.abs(whole.astype(int) - expected).max() <= 1


def test_steps_follow_the_schedule() -> None:
    schedule = ((-1.0, 1.0), (0.0, 0.5), (0.5, 0.5))
    frame = np.full((32, 32, 3), 51, dtype=np.uint8)  # 0.2

    def up(inputs: Tensors) -> NDArray[np.float32]:
        return np.full_like(inputs["state"], 0.2)

    net = Arithmetic(up)
    result = restore(net, frame, None, ones(32, 32), schedule, multiple=16)
    # 0.2 + 0.2 (1 + 1/2 + 1/2)
    np.testing.assert_array_equal(result, 153)
    moments = [(float(seen["time"][0]), float(seen["step"][0])) for seen in net.seen]
    assert moments == list(schedule)
    states = [float(seen["state"][0, 0, 0, 0]) for seen in net.seen]
    assert states == pytest.approx([0.2, 0.4, 0.5], abs=1e-6)
    for seen in net.seen:
        np.testing.assert_allclose(seen["degraded"], 0.2, atol=1e-6)
        assert all(value.dtype == np.float32 for value in seen.values())


@pytest.mark.parametrize("tile", [64, 32])
def test_values_beyond_black_and_white_are_clipped(tile: int) -> None:
    frame = photo(48, 64)

    def extremes(inputs: Tensors) -> NDArray[np.float32]:
        update = np.full_like(inputs["state"], 3.0)
        update[:, 1] = -3.0
        return update

    net = Arithmetic(extremes)
    result = restore(net, frame, None, ones(48, 64), LEAP, multiple=16, tile=tile, overlap=8)
    np.testing.assert_array_equal(result[..., 2], 255)  # red, in BGR
    np.testing.assert_array_equal(result[..., 1], 0)
    np.testing.assert_array_equal(result[..., 0], 255)


@pytest.mark.parametrize("diagnosis", [None, Diagnosis.model_validate(example())])
def test_the_condition_is_the_diagnosis(diagnosis: Diagnosis | None) -> None:
    net = Arithmetic(nothing)
    restore(net, photo(32, 32), diagnosis, ones(32, 32), LEAP, multiple=16)
    expected = conditioning.encode(diagnosis)[None]
    np.testing.assert_array_equal(net.seen[0]["condition"], expected)


def test_the_frame_and_the_map_are_left_alone() -> None:
    frame, transmission = photo(70, 90), ones(70, 90)
    before = frame.copy()

    def overwrite(inputs: Tensors) -> NDArray[np.float32]:
        return np.full_like(inputs["state"], 0.5)

    restore(Arithmetic(overwrite), frame, None, transmission, LEAP, multiple=16, tile=32, overlap=8)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(transmission, 1.0)


def test_transmission_at_frame_size() -> None:
    diagnosis = Diagnosis.model_validate(example())
    coarse = np.array([[0.2, 0.4], [0.6, 0.8]], dtype=np.float32)
    full = full_transmission(Reading(diagnosis, coarse), 40, 60)
    assert full.shape == (40, 60)
    assert full.dtype == np.float32
    np.testing.assert_allclose(full[[0, 0, -1, -1], [0, -1, 0, -1]], coarse.ravel(), atol=1e-6)
    assert full.min() >= 0.2 - 1e-6
    assert full.max() <= 0.8 + 1e-6


def test_transmission_without_a_map_is_the_mean() -> None:
    diagnosis = Diagnosis.model_validate(example())
    full = full_transmission(Reading(diagnosis), 20, 30)
    np.testing.assert_array_equal(full, np.full((20, 30), diagnosis.fog.transmission_mean, "f4"))


def test_transmission_without_a_diagnosis_is_one() -> None:
    coarse = np.full((2, 2), 0.5, dtype=np.float32)
    np.testing.assert_array_equal(full_transmission(Reading(None, coarse), 20, 30), ones(20, 30))


def test_the_shipped_graph_by_tiles_equals_the_whole(bundle: Bundle, engine: OnnxEngine) -> None:
    graph = bundle.manifest.restorer
    outcome = degrade(to_float(photo(160, 640)), seed=6)  # all four effects
    frame = to_uint8(outcome.image)
    schedule = next(iter(graph.schedules.values()))

    def run(tile: int) -> NDArray[np.int16]:
        result = restore(
            engine,
            frame,
            outcome.diagnosis,
            outcome.transmission,
            schedule,
            multiple=graph.multiple,
            tile=tile,
            overlap=OVERLAP,
        )
        return result.astype(np.int16)

    whole, tiled = run(1024), run(384)
    difference = np.abs(whole - tiled)
    assert difference.max() <= 2, f"{(difference > 2).mean():.2%} of the values differ by more"
    # It does something, or the comparison would say nothing.
    assert np.abs(whole - frame).mean() > 1
