from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from rirf.bundle import Bundle
from rirf.engine import OnnxEngine
from rirf.errors import EngineError
from rirf.views import CROP_SIZE, CROPS
from rirf_export.graphs import example_inputs, export_onnx
from rirf_export.parity import PARITY_MIN_DB, check_parity, signal_to_error
from rirf_training.networks import Reasoner, Restorer, load_network
from rirf_training.networks.reasoner import OUTPUTS
from tests.networks import tiny_reasoner

KINDS = ["reasoner", "restorer"]


@pytest.fixture(scope="module")
def engines(tiny_bundle: Path) -> Iterator[dict[str, OnnxEngine]]:
    bundle = Bundle.open(tiny_bundle)
    manifest = bundle.manifest
    loaded = {
        "reasoner": OnnxEngine(bundle.path(manifest.reasoner), threads=1),
        "restorer": OnnxEngine(bundle.path(manifest.restorer), threads=1),
    }
    yield loaded
    for engine in loaded.values():
        engine.close()


def network_of(checkpoints: Path, kind: str) -> Reasoner | Restorer:
    return load_network(checkpoints / kind)[0]


def samples(network: Reasoner | Restorer) -> list[tuple[torch.Tensor, ...]]:
    return [example_inputs(network, 32, 48, seed=seed) for seed in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_network_is_the_network(
    engines: dict[str, OnnxEngine], tiny_checkpoints: Path, kind: str
) -> None:
    network = network_of(tiny_checkpoints, kind)
    found = check_parity(network, engines[kind], samples(network))
    assert set(found) == set(OUTPUTS if kind == "reasoner" else ("update",))
    assert all(decibels >= PARITY_MIN_DB for decibels in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_moved_on_is_noticed(
    engines: dict[str, OnnxEngine], tiny_checkpoints: Path, kind: str
) -> None:
    network = copy.deepcopy(network_of(tiny_checkpoints, kind))
    with torch.no_grad():
        # One in a thousand; 80 dB is one in ten thousand.
        for parameter in network.parameters():
            parameter.mul_(1.001)
    message = (
        rf"the exported {kind} differs from torch: .* dB; expected at least {PARITY_MIN_DB:.0f}"
    )
    with pytest.raises(EngineError, match=message):
        check_parity(network, engines[kind], samples(network))


def test_the_error_names_the_outputs_that_differ(
    engines: dict[str, OnnxEngine], tiny_checkpoints: Path
) -> None:
    network = network_of(tiny_checkpoints, "reasoner")
    assert isinstance(network, Reasoner)
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.temperature.mul_(1.01)
    with pytest.raises(EngineError, match=r"differs from torch: presence \d+\.\d dB; expected"):
        check_parity(network, engines["reasoner"], samples(network))


@pytest.fixture(scope="module")
def listener() -> Reasoner:
    """A reasoner to which crops are their statistics alone, standardised on photographs."""
    network = tiny_reasoner()
    with torch.no_grad():
        for parameter in (*network.crop_token.parameters(), network.crop_place):
            parameter.zero_()
    crops = torch.cat([windows(shift, side) for shift in range(4) for side in (1, 5)])
    network.standardise(network.statistics(crops))
    return network


def windows(shift: int, blur: int) -> torch.Tensor:
    """Crops (1, 8, 3, 96, 96) of photographs, blurred along their rows by so many pixels."""
    photos = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    box = np.full((1, blur), 1.0 / blur, dtype=np.float32)
    crops = []
    for number in range(CROPS):
        top, left = 20 * shift + 9 * number, 31 * number
        photo = photos[number % 4][top : top + CROP_SIZE, left : left + CROP_SIZE]
        crop = np.asarray(cv2.filter2D(photo.astype(np.float32) / 255, -1, box))
        crops.append(crop.transpose(2, 0, 1))
    return torch.from_numpy(np.stack(crops)[None])


@pytest.fixture(scope="module")
def heard(listener: Reasoner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxEngine]:
    file = tmp_path_factory.mktemp("listener") / "reasoner.onnx"
    export_onnx(listener, file, {})
    engine = OnnxEngine(file, threads=1)
    yield engine
    engine.close()


def test_statistics_are_exported_too(listener: Reasoner, heard: OnnxEngine) -> None:
    thumbnail = example_inputs(listener, 0, 0)[0]
    flat = torch.full((1, CROPS, 3, CROP_SIZE, CROP_SIZE), 0.4)
    given = [windows(0, 1), windows(5, 1), windows(5, 9), flat]
    found = check_parity(listener, heard, [(thumbnail, crops) for crops in given])
    assert min(found.values()) >= PARITY_MIN_DB
    answers = [
        heard.run({"thumbnail": thumbnail.numpy(), "crops": crops.numpy()}) for crops in given
    ]
    # It is the statistics that make the difference.
    for one, other in combinations(answers, 2):
        assert np.abs(one["presence"] - other["presence"]).max() > 1e-3


def test_a_wrong_statistic_is_noticed(listener: Reasoner, heard: OnnxEngine) -> None:
    changed = copy.deepcopy(listener)
    changed.statistics.columns.mul_(1.1)
    with pytest.raises(EngineError, match=r"reasoner differs from torch: .*presence \d+\.\d dB"):
        check_parity(changed, heard, [(example_inputs(listener, 0, 0)[0], windows(0, 1))])


def test_the_worst_sample_counts(engines: dict[str, OnnxEngine], tiny_checkpoints: Path) -> None:
    network = network_of(tiny_checkpoints, "restorer")
    several = samples(network)
    each = [check_parity(network, engines["restorer"], [one])["update"] for one in several]
    assert check_parity(network, engines["restorer"], several)["update"] == min(each)


@pytest.mark.parametrize(("relative", "decibels"), [(1e-1, 20.0), (1e-3, 60.0), (1e-4, 80.0)])
def test_signal_to_error(relative: float, decibels: float) -> None:
    reference = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float64)
    found = signal_to_error(reference, reference * (1 + relative))  # type: ignore[arg-type]  # float64 shows the formula without rounding
    assert found == pytest.approx(decibels, abs=1e-6)


def test_signal_to_error_at_its_ends() -> None:
    zero, one = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert signal_to_error(one, one) == math.inf
    assert signal_to_error(zero, zero) == math.inf
    assert signal_to_error(zero, one) == -math.inf
    for broken in (np.nan, np.inf):
        assert signal_to_error(one, np.full(4, broken, np.float32)) == -math.inf
