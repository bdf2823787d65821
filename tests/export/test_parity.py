from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rirf.bundle import Bundle
from rirf.engine import OnnxEngine
from rirf.errors import EngineError
from rirf_export.graphs import example_inputs
from rirf_export.parity import PARITY_MIN_DB, check_parity, signal_to_error
from rirf_training.networks import Reasoner, Restorer, load_network
from rirf_training.networks.reasoner import OUTPUTS

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
