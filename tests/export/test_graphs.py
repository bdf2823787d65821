from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import rirf
from rirf import conditioning
from rirf.bundle import Bundle, Graph
from rirf.engine import OnnxEngine
from rirf.engine.tensorrt import build_engine, find_library, profiles_for
from rirf.errors import MissingExtraError
from rirf_export import graphs
from rirf_export.graphs import OPSET, RESTORER_INPUTS, example_inputs, input_names
from rirf_training.networks import load_network
from rirf_training.networks.reasoner import OUTPUTS
from tests.networks import REASONER, RESTORER, tiny_reasoner, tiny_restorer

FRAME = (1, 3, "height", "width")
TABLES: dict[str, tuple[dict[str, tuple[int | str, ...]], dict[str, tuple[int | str, ...]]]] = {
    "reasoner": (
        {"thumbnail": (1, 3, 256, 256), "crops": (1, 8, 3, 96, 96)},
        {
            "presence": (1, 4),
            "severity": (1, 4),
            "interval": (1, 4),
            "light": (1, 3),
            "transmission": (1, 1, 32, 32),
            "shake": (1, 4),
            "rain": (1, 5),
            "noise": (1, 2),
            "street": (1, 1),
            "classes": (1, 11, 4, 4),
            "colours": (1, 3, 4, 4),
            "detail": (1, 1, 4, 4),
        },
    ),
    "restorer": (
        {
            "degraded": FRAME,
            "state": FRAME,
            "transmission": (1, 1, "height", "width"),
            "condition": (1, 40),
            "time": (1,),
            "step": (1,),
        },
        {"update": FRAME},
    ),
}
KINDS = list(TABLES)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def graph(bundle: Bundle, kind: str) -> Graph:
    found: Graph = getattr(bundle.manifest, kind)
    return found


def model(bundle: Bundle, kind: str) -> onnx.ModelProto:
    return onnx.load(bundle.path(graph(bundle, kind)))


def table(values: Any) -> dict[str, tuple[int | str, ...]]:
    return {
        value.name: tuple(
            axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim
        )
        for value in values
    }


@pytest.mark.parametrize("kind", KINDS)
def test_graph_manifest_and_engine_have_the_same_table(bundle: Bundle, kind: str) -> None:
    inputs, outputs = TABLES[kind]
    loaded = model(bundle, kind)
    assert table(loaded.graph.input) == inputs
    assert table(loaded.graph.output) == outputs
    described = graph(bundle, kind)
    engine = OnnxEngine(bundle.path(described), threads=1)
    for specs, expected in ((described.inputs, inputs), (described.outputs, outputs)):
        assert {spec.name: spec.shape for spec in specs} == expected
        assert {spec.dtype for spec in specs} == {"float32"}
    assert engine.inputs == described.inputs
    assert engine.outputs == described.outputs


def test_the_modules_text_lists_the_inputs() -> None:
    text = " ".join((graphs.__doc__ or "").split())
    for name, shape in TABLES["reasoner"][0].items():
        assert f"``{name}`` {shape}" in text
    for name in TABLES["restorer"][0]:
        assert f"``{name}``" in text
    assert "``state`` (1, 3, H, W)" in text
    assert f"``condition`` (1, {conditioning.SIZE})" in text
    assert "``update`` (1, 3, H, W)" in text


def test_names() -> None:
    assert input_names(tiny_reasoner()) == tuple(TABLES["reasoner"][0])
    assert input_names(tiny_restorer()) == tuple(TABLES["restorer"][0]) == RESTORER_INPUTS
    assert tuple(TABLES["reasoner"][1]) == OUTPUTS


@pytest.mark.parametrize("kind", KINDS)
def test_opset(bundle: Bundle, kind: str) -> None:
    loaded = model(bundle, kind)
    assert {entry.domain: entry.version for entry in loaded.opset_import} == {"": OPSET}
    assert not loaded.functions
    onnx.checker.check_model(loaded, full_check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_holds_everything(bundle: Bundle, kind: str) -> None:
    loaded = model(bundle, kind)
    assert all(not tensor.external_data for tensor in loaded.graph.initializer)
    network = tiny_reasoner() if kind == "reasoner" else tiny_restorer()
    assert graph(bundle, kind).parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_no_trace_of_the_exporting_machine(bundle: Bundle, kind: str) -> None:
    data = bundle.path(graph(bundle, kind)).read_bytes()
    places = {
        str(Path(rirf.__file__).resolve().parents[2]),
        str(Path(torch.__file__).resolve().parents[1]),
        sys.prefix,
        str(Path.home()),
        str(bundle.folder.parent),
        "site-packages",
        ".py",
        "Traceback",
    }
    assert [place for place in places if place.encode() in data] == []
    loaded = model(bundle, kind)
    assert not any(node.doc_string or node.metadata_props for node in loaded.graph.node)


@pytest.mark.parametrize(("kind", "config"), [("reasoner", REASONER), ("restorer", RESTORER)])
def test_metadata(bundle: Bundle, kind: str, config: Any) -> None:
    loaded = model(bundle, kind)
    assert (loaded.producer_name, loaded.producer_version) == ("rirf", rirf.__version__)
    found = {entry.key: entry.value for entry in loaded.metadata_props}
    assert found["rirf.conditioning_version"] == str(conditioning.VERSION)
    assert type(config).model_validate_json(found["rirf.network"]) == config


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 100), (132, 36), (256, 8)])
def test_any_size_on_the_grid_runs(
    bundle: Bundle, tiny_checkpoints: Path, height: int, width: int
) -> None:
    engine = OnnxEngine(bundle.path(bundle.manifest.restorer), threads=1)
    network, _ = load_network(tiny_checkpoints / "restorer")
    sample = example_inputs(network, height, width, seed=3)
    inputs = {name: value.numpy() for name, value in zip(RESTORER_INPUTS, sample, strict=True)}
    got = engine.run(inputs)["update"]
    with torch.no_grad():
        expected = network(*sample).numpy()
    assert got.shape == (1, 3, height, width)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("network", [tiny_reasoner(), tiny_restorer()])
def test_example_inputs(network: Any) -> None:
    first = example_inputs(network, 16, 32)
    assert all(
        torch.equal(a, b) for a, b in zip(first, example_inputs(network, 16, 32), strict=True)
    )
    other = example_inputs(network, 16, 32, seed=1)
    assert not torch.equal(first[0], other[0])
    assert all(value.dtype == torch.float32 for value in first)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_build_in_tensorrt_rtx(bundle: Bundle, kind: str) -> None:
    try:
        library = find_library("tensorrt-rtx")
    except MissingExtraError as error:
        pytest.skip(str(error))
    sizes = (16, 512, 1024)
    exported = graph(bundle, kind)
    profiles = profiles_for(exported.inputs, {"height": sizes, "width": sizes})
    multiple = bundle.manifest.restorer.multiple
    plan = build_engine(bundle.path(exported), library, profiles, multiple=multiple)
    assert len(plan) > 4 * exported.parameters
