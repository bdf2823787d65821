from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from rirf.engine import OnnxEngine
from rirf.errors import EngineError, OutputError
from rirf.pipeline import Pipeline
from rirf_export.graphs import example_inputs, export_onnx, input_names
from rirf_export.precision import (
    CalibrationRanges,
    Calibrator,
    Feeds,
    Sensitivity,
    calibrate,
    degraded_frames,
    sensitivity,
    to_int8,
)
from rirf_export.precision.measure import load_graph
from rirf_training.networks import Restorer, RestorerConfig
from tests.networks import tiny_restorer

KINDS = ("reasoner", "restorer")


def source_of(pipeline: Pipeline, kind: str) -> Path:
    manifest = pipeline.bundle.manifest
    return pipeline.bundle.path(getattr(manifest, kind))


@pytest.fixture(scope="session")
def ranges(pipeline: Pipeline, photographs: Path) -> dict[str, CalibrationRanges]:
    return calibrate(pipeline, degraded_frames(photographs, 4, side=96), threads=1)


def constants(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def quantised(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions whose input comes from a DequantizeLinear."""
    made = {name: node.op_type for node in graph.graph.node for name in node.output}
    return [
        node
        for node in graph.graph.node
        if node.op_type == "Conv" and made.get(node.input[0]) == "DequantizeLinear"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_one_tensorrt_accepts(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
    kind: str,
) -> None:
    source, target = source_of(pipeline, kind), tmp_path / "a.onnx"
    result = to_int8(source, target, ranges[kind], samples[kind], threads=1)
    graph = onnx.load(target)
    values = constants(graph)
    assert result.kept == ()
    assert sorted(result.layers) == sorted(node.name for node in quantised(graph))
    readers = {node.input[0]: node for node in graph.graph.node if node.op_type.endswith("Linear")}
    weights = {node.output[0]: node for node in graph.graph.node}
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            assert zero.dtype == np.int8, "signed"
            assert not zero.any(), "symmetric"
    for node in quantised(graph):
        scale = values[weights[node.input[1]].input[1]]
        stored = values[weights[node.input[1]].input[0]]
        assert stored.dtype == np.int8
        assert scale.shape == (stored.shape[0],), "one scale for each output channel"
        assert values[node.input[2]].dtype == np.float32, "the bias"
        assert readers[node.output[0]].op_type == "QuantizeLinear"
    assert TensorProto.INT32 not in {tensor.data_type for tensor in graph.graph.initializer}


@pytest.mark.parametrize(("kind", "decibels"), [("reasoner", 5.0), ("restorer", 20.0)])
def test_it_runs_in_the_place_of_the_fp32_graph(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
    kind: str,
    decibels: float,
) -> None:
    source, target = source_of(pipeline, kind), tmp_path / "a.onnx"
    result = to_int8(source, target, ranges[kind], samples[kind], threads=1)
    assert decibels < min(result.decibels.values()) < 60.0
    fp32, int8 = OnnxEngine(source, threads=1), OnnxEngine(target, threads=1)
    assert (int8.inputs, int8.outputs) == (fp32.inputs, fp32.outputs)
    assert target.stat().st_size < source.stat().st_size or kind == "reasoner"


def test_ranges_are_the_extremes_of_the_frames(
    pipeline: Pipeline, photographs: Path, ranges: dict[str, CalibrationRanges]
) -> None:
    found = ranges["restorer"]
    assert found.runs == 4
    stem = next(
        n for n in load_graph(source_of(pipeline, "restorer")).graph.node if n.op_type == "Conv"
    )
    low, high = found.ranges[stem.input[0]]
    # Its 13 channels are pictures, maps and noise levels.
    assert 0.0 <= low < 0.1
    assert 0.9 < high <= 1.1
    more = calibrate(pipeline, degraded_frames(photographs, 2, side=96), threads=1)["restorer"]
    assert set(more.ranges) == set(found.ranges)
    assert more.ranges != found.ranges


def test_calibrate_once_rebuild_anywhere(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
) -> None:
    source = source_of(pipeline, "restorer")
    ranges["restorer"].write(tmp_path / "ranges.json")
    kept = CalibrationRanges.read(tmp_path / "ranges.json")
    assert kept == ranges["restorer"]
    to_int8(source, tmp_path / "a.onnx", ranges["restorer"], samples["restorer"], threads=1)
    to_int8(source, tmp_path / "b.onnx", kept, samples["restorer"][:1], threads=1)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@settings(deadline=None)  # a busy machine may take its time
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.tuples(st.floats(-1e6, 0.0), st.floats(0.0, 1e6)),
    ),
    st.integers(1, 10**6),
)
def test_every_range_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, tuple[float, float]], runs: int
) -> None:
    file = tmp_path_factory.mktemp("ranges") / "r.json"
    given_ranges = CalibrationRanges(graph_sha256="0" * 64, runs=runs, ranges=found)
    given_ranges.write(file)
    assert CalibrationRanges.read(file) == given_ranges


def test_ranges_of_another_graph_are_refused(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
) -> None:
    source = source_of(pipeline, "restorer")
    with pytest.raises(EngineError, match=r"SHA-256 is \w+\.\.\., the calibration ranges are for"):
        to_int8(source, tmp_path / "a.onnx", ranges["reasoner"], samples["restorer"])
    with pytest.raises(EngineError, match="calibrate this graph"):
        sensitivity(source, ranges["reasoner"], samples["restorer"])
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema 1"),
        ({"graph_sha256": "abc"}, "graph_sha256"),
        ({"ranges": {"x": [1.0, -1.0]}}, "got 1.0 to -1.0, expected the smaller value first"),
        ({"ranges": {"x": [0.0, "NaN"]}}, "finite"),
        ({"more": 1}, "more"),
    ],
)
def test_a_file_that_is_none_is_refused(
    ranges: dict[str, CalibrationRanges], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    file = tmp_path / "ranges.json"
    file.write_text(json.dumps(json.loads(ranges["restorer"].model_dump_json()) | change))
    with pytest.raises(EngineError, match=message):
        CalibrationRanges.read(file)


def test_a_torn_or_missing_file_is_refused(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
) -> None:
    file = tmp_path / "ranges.json"
    with pytest.raises(EngineError, match="calibrate again"):
        CalibrationRanges.read(file)
    file.write_text(ranges["restorer"].model_dump_json()[:200])
    with pytest.raises(EngineError, match="expected calibration ranges of schema 1"):
        CalibrationRanges.read(file)
    with pytest.raises(OutputError):
        ranges["restorer"].write(tmp_path / "none" / "r.json")
    some = dict(list(ranges["restorer"].ranges.items())[1:])
    short = ranges["restorer"].model_copy(update={"ranges": some})
    with pytest.raises(EngineError, match="the calibration ranges lack"):
        to_int8(source_of(pipeline, "restorer"), file, short, samples["restorer"])


def test_nothing_to_calibrate_on_is_an_error(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="got no frame to calibrate on"):
        calibrate(pipeline, [])
    with pytest.raises(EngineError, match="expected an ONNX graph"):
        Calibrator(tmp_path / "none.onnx")


def test_the_layer_that_hurts_is_found_and_kept_when_asked(
    samples: dict[str, list[Feeds]], tmp_path: Path
) -> None:
    network = tiny_restorer()
    with torch.no_grad():
        # One channel a thousand times the others', which needs them and not it: what a scale for
        # the whole tensor cannot serve.
        network.stem.weight[0] *= 1000.0
        network.down[0][0].first.weight[:, 0] = 0.0
    source = tmp_path / "a.onnx"
    export_onnx(network, source, {})
    calibrator = Calibrator(source, threads=1)
    for feeds in samples["restorer"]:
        calibrator.observe(feeds)
    ranges = calibrator.ranges()
    rows = sensitivity(source, ranges, samples["restorer"], threads=1)
    convolutions = [node for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    assert {row.layer for row in rows} == {node.name for node in convolutions}
    assert [row.decibels for row in rows] == sorted(row.decibels for row in rows)
    assert all(row.output == "update" and row.operator == "Conv" for row in rows)
    assert rows[0].decibels < rows[-1].decibels - 20.0
    target = tmp_path / "b.onnx"
    found = []
    for count in (0, 1, 3):
        keep = rows[:count]
        result = to_int8(source, target, ranges, samples["restorer"], keep=keep, threads=1)
        assert set(result.kept) == {row.layer for row in keep}
        assert not set(result.kept) & {node.name for node in quantised(onnx.load(target))}
        found.append(result.decibels["update"])
    assert found == sorted(found)
    assert found[-1] > found[0] + 3.0


def test_what_cannot_be_kept_is_an_error(
    pipeline: Pipeline,
    samples: dict[str, list[Feeds]],
    ranges: dict[str, CalibrationRanges],
    tmp_path: Path,
) -> None:
    source, target = source_of(pipeline, "restorer"), tmp_path / "a.onnx"
    arguments = (source, target, ranges["restorer"], samples["restorer"])
    with pytest.raises(EngineError, match="has no layer nowhere; it has node_conv2d"):
        to_int8(*arguments, keep=[Sensitivity("nowhere", "Conv", "update", 0.0)])
    layers = [node for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    keep = [Sensitivity(node.name, "Conv", "update", 0.0) for node in layers]
    with pytest.raises(EngineError, match="layers are kept in fp32, expected one or more"):
        to_int8(*arguments, keep=keep)
    with pytest.raises(EngineError, match="got no sample"):
        to_int8(*arguments[:3], [])
    assert not target.exists()


def test_depthwise_kernels_have_scales_of_their_own(tmp_path: Path) -> None:
    config = RestorerConfig(
        channels=(8, 16), blocks=(1, 1), decoder_blocks=(1,), kernels=(7, 7), condition=16
    )
    network = tiny_restorer(config=config)
    with torch.no_grad():
        # Kernels from 1 to 1000 in size: a scale for all of them would round most to nothing.
        for block in (network.down[0][0], network.down[1][0]):
            sizes = torch.logspace(0, -3, len(block.spread.weight))
            block.spread.weight *= sizes[:, None, None, None]
            block.spread.bias.zero_()
            block.first.weight /= sizes[None, :, None, None]
    found = decibels_of(network, tmp_path)
    assert found["update"] > 12.0
    graph = onnx.load(tmp_path / "int8.onnx")
    values, made = constants(graph), {node.output[0]: node for node in graph.graph.node}
    depthwise = [
        node
        for node in quantised(graph)
        if any(each.name == "group" and each.i > 1 for each in node.attribute)
    ]
    assert len(depthwise) == 3
    scales = [values[made[node.input[1]].input[1]] for node in depthwise]
    assert any(scale.max() > 300 * scale.min() for scale in scales)
    for node in depthwise:
        stored = values[made[node.input[1]].input[0]]
        assert (np.abs(stored.astype(int)).max(axis=(1, 2, 3)) >= 126).all(), "no kernel is crushed"


def decibels_of(network: Restorer, folder: Path) -> dict[str, float]:
    export_onnx(network, folder / "fp32.onnx", {})
    names = input_names(network)
    feeds = [
        {name: value.numpy() for name, value in zip(names, sample, strict=True)}
        for sample in (example_inputs(network, 64, 48, seed=seed) for seed in range(2))
    ]
    calibrator = Calibrator(folder / "fp32.onnx", threads=1)
    for each in feeds:
        calibrator.observe(each)
    target = folder / "int8.onnx"
    return to_int8(folder / "fp32.onnx", target, calibrator.ranges(), feeds, threads=1).decibels
