from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from rirf.engine import OnnxEngine
from rirf.errors import EngineError, OutputError
from rirf.pipeline import Pipeline
from rirf_export.precision import Feeds, Fp16Result, rounding_twin, to_fp16
from rirf_export.precision.fp16 import TARGET_DB
from rirf_export.precision.measure import Runner, tensor_types

SHAPE = [2, 8]
KINDS = ("reasoner", "restorer")
Constants = dict[str, np.ndarray]


def written(
    file: Path, nodes: Sequence[onnx.NodeProto], constants: Constants, shape: Sequence[int] = SHAPE
) -> Path:
    """A graph from x to y, both float32 of one shape; nodes are named n0, n1, ..."""
    for number, node in enumerate(nodes):
        node.name = f"n{number}"
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), file)
    return file


def node(operator: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def noise(shape: Sequence[int] = SHAPE, count: int = 2) -> list[Feeds]:
    random = np.random.default_rng(0)
    return [{"x": random.uniform(0.5, 1.5, shape).astype(np.float32)} for _ in range(count)]


def converted(source: Path, samples: Sequence[Feeds]) -> tuple[Fp16Result, onnx.ModelProto]:
    """The result, and the written graph once it is known to load and to equal its twin."""
    target = source.with_name("mixed.onnx")
    result = to_fp16(source, target, samples, threads=1)
    Runner(target, threads=1).run(samples[0])
    return result, onnx.shape_inference.infer_shapes(onnx.load(target), strict_mode=True)


def single(graph: onnx.ModelProto) -> set[str]:
    """Names of the nodes that put out float32, casts left out."""
    types = tensor_types(graph)
    return {
        node.name
        for node in graph.graph.node
        if node.op_type != "Cast" and types.get(node.output[0]) == TensorProto.FLOAT
    }


def scalar(value: float) -> np.ndarray:
    return np.array([value], dtype=np.float32)


def test_a_harmless_graph_becomes_fp16_altogether(tmp_path: Path) -> None:
    source = written(
        tmp_path / "a.onnx", [node("Mul", "x k", "m"), node("Relu", "m", "y")], {"k": scalar(1.7)}
    )
    result, graph = converted(source, noise())
    assert result.islands == ()
    assert result.nodes == 2
    assert TARGET_DB < result.decibels["y"] < 90.0
    assert single(graph) == set()
    (weight,) = graph.graph.initializer
    assert weight.data_type == TensorProto.FLOAT16
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_what_would_overflow_stays_fp32(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x k", "big"),
        node("Mul", "big small", "m"),
        node("Sin", "m", "s"),
        node("Sin", "s", "y"),
    ]
    source = written(tmp_path / "a.onnx", nodes, {"k": scalar(1e5), "small": scalar(2e-5)})
    result, graph = converted(source, noise())
    assert {island.node: island.reason for island in result.islands} == {
        "n0": "range",
        "n1": "range",
    }
    assert 1e5 <= max(island.peak or 0.0 for island in result.islands) <= 1.5e5
    assert single(graph) == {"n0", "n1"}
    assert result.decibels["y"] >= TARGET_DB


def test_range_keeps_headroom_for_frames_not_seen(tmp_path: Path) -> None:
    # 3000 is an fp16 number, but not 16 times 3000; 2 is an fp16 number in any case.
    nodes = [node("Mul", "x k", "m"), node("Div", "m k", "d"), node("Mul", "d d", "y")]
    result, _ = converted(written(tmp_path / "a.onnx", nodes, {"k": scalar(3e3)}), noise())
    assert [(i.node, i.reason) for i in result.islands] == [("n0", "range"), ("n1", "range")]


def test_cancellation_is_found_by_measuring(tmp_path: Path) -> None:
    # 100 + x - 100 has two digits left of x in fp16; nothing around it is guilty.
    nodes = [
        node("Sin", "x", "s"),
        node("Add", "s k", "shifted"),
        node("Sub", "shifted k", "back"),
        node("Cos", "back", "c"),
        node("Sin", "c", "y"),
    ]
    source = written(tmp_path / "a.onnx", nodes, {"k": scalar(100.3)})
    result, graph = converted(source, noise())
    assert {island.node: island.reason for island in result.islands} == {
        "n1": "error",
        "n2": "error",
    }
    for island in result.islands:
        assert island.decibels is not None
        assert island.decibels < TARGET_DB
    assert single(graph) == {"n1", "n2"}
    assert result.decibels["y"] >= TARGET_DB


def test_sums_stay_fp32_and_moves_between_them_join(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("ReduceMean", "r last", "mean", keepdims=1),
        node("Transpose", "mean", "turned", perm=[1, 0]),
        node("Softmax", "turned", "soft"),
        node("Transpose", "soft", "z", perm=[1, 0]),
        node("Mul", "z z", "y"),
    ]
    source = written(tmp_path / "a.onnx", nodes, {"last": np.array([1], dtype=np.int64)})
    result, graph = converted(source, noise())
    assert [(island.node, island.reason) for island in result.islands] == [
        ("n1", "sums"),
        ("n2", "between"),
        ("n3", "sums"),
    ]
    assert single(graph) == {"n1", "n2", "n3"}


def test_islands_may_share_a_tensor_and_a_weight(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x k", "m"),
        node("Softmax", "m", "s1"),
        node("LogSoftmax", "m", "s2"),
        node("Mul", "s1 k", "a"),
        node("Add", "a s2", "y"),
    ]
    result, graph = converted(written(tmp_path / "a.onnx", nodes, {"k": scalar(1.3)}), noise())
    assert [island.node for island in result.islands] == ["n1", "n2"]
    casts = [each.input[0] for each in graph.graph.node if each.op_type == "Cast"]
    assert len(casts) == len(set(casts)), "a tensor is cast once, however many read it"


def test_an_output_that_is_read_inside_keeps_its_name_and_type(tmp_path: Path) -> None:
    source = written(tmp_path / "a.onnx", [node("Mul", "x k", "y"), node("Relu", "y", "z")], {})
    model = onnx.load(source)
    model.graph.initializer.append(numpy_helper.from_array(scalar(1.3), "k"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, SHAPE))
    onnx.save_model(model, source)
    result, graph = converted(source, noise())
    assert result.islands == ()
    assert [value.name for value in graph.graph.output] == ["y", "z"]
    found = Runner(source.with_name("mixed.onnx")).run(noise()[0])
    np.testing.assert_allclose(found["y"], noise()[0]["x"] * 1.3, rtol=1e-3)


def test_inputs_that_onnx_wants_in_fp32_are_left(tmp_path: Path) -> None:
    nodes = [node("Resize", "x  scales", "r", mode="nearest"), node("Mul", "r r", "y")]
    nodes[0].input[:] = ["x", "", "scales"]
    scales = np.array([1, 1, 2, 2], dtype=np.float32)
    shape = [1, 1, 4, 4]
    source = written(tmp_path / "a.onnx", nodes, {"scales": scales}, shape)
    result, graph = converted(source, noise(shape))
    assert result.islands == ()
    assert graph.graph.initializer[0].data_type == TensorProto.FLOAT


def test_floats_made_from_numbers_are_cast(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "size"),
        node("Cast", "size", "sizes", to=TensorProto.FLOAT),
        node("ReduceMax", "sizes", "largest", keepdims=0),
        node("Div", "x largest", "y"),
    ]
    result, _ = converted(written(tmp_path / "a.onnx", nodes, {}), noise())
    assert result.islands == ()
    assert result.decibels["y"] >= TARGET_DB


def test_branches_are_refused(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)
        return helper.make_graph([node("Identity", "x", name)], name, [], [value])

    nodes = [node("If", "yes", "y", then_branch=branch("a"), else_branch=branch("b"))]
    source = written(tmp_path / "a.onnx", nodes, {"yes": np.array(True)})
    with pytest.raises(EngineError, match=r"n0 \(If\) holds a graph of its own; expected none"):
        to_fp16(source, tmp_path / "b.onnx", noise())
    assert not (tmp_path / "b.onnx").exists()


def test_bad_input_is_an_error(tmp_path: Path) -> None:
    source = written(tmp_path / "a.onnx", [node("Relu", "x", "y")], {})
    with pytest.raises(EngineError, match="got no sample"):
        to_fp16(source, tmp_path / "b.onnx", [])
    with pytest.raises(EngineError, match=r"expected an ONNX graph"):
        to_fp16(tmp_path / "none.onnx", tmp_path / "b.onnx", noise())
    with pytest.raises(OutputError, match="cannot be written"):
        to_fp16(source, tmp_path / "none" / "b.onnx", noise())


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(np.float32, (16,), elements=st.floats(-200, 200, width=32)),
    st.floats(-200, 200, width=16),
)
def test_the_twin_rounds_as_fp16_arithmetic_does(
    tmp_path_factory: pytest.TempPathFactory, x: np.ndarray, factor: float
) -> None:
    folder = tmp_path_factory.mktemp("twin")
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Mul", "h k", "m"),
        node("Add", "m k", "a"),
        node("Cast", "a", "y", to=TensorProto.FLOAT),
    ]
    k = np.array([factor], dtype=np.float16)
    source = written(folder / "a.onnx", nodes, {"k": k}, [16])
    rounding_twin(source, folder / "twin.onnx")
    found = Runner(folder / "twin.onnx", threads=1).run({"x": x})["y"]
    expected = (x.astype(np.float16) * k + k).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_pair(
    pipeline: Pipeline, samples: dict[str, list[Feeds]], tmp_path: Path, kind: str
) -> None:
    manifest = pipeline.bundle.manifest
    described = manifest.reasoner if kind == "reasoner" else manifest.restorer
    source, target, twin = pipeline.bundle.path(described), tmp_path / "a.onnx", tmp_path / "b.onnx"
    result = to_fp16(source, target, samples[kind], threads=1)
    assert min(result.decibels.values()) >= TARGET_DB
    assert len(result.islands) < 0.3 * result.nodes
    assert {i.reason for i in result.islands} <= {"sums", "range", "error", "between"}
    rounding_twin(target, twin)
    fp32, fp16, rounded = (OnnxEngine(file, threads=1) for file in (source, target, twin))
    # The runtime's tables hold, and the file is what a bundle may carry.
    assert (fp16.inputs, fp16.outputs) == (described.inputs, described.outputs)
    assert (rounded.inputs, rounded.outputs) == (described.inputs, described.outputs)
    exact, got = fp32.run(samples[kind][0]), rounded.run(samples[kind][0])
    for name, value in exact.items():
        assert 0.0 < np.abs(got[name] - value).max() <= 2e-2 * np.abs(value).max() + 1e-3
    properties = {each.key: each.value for each in onnx.load(target).metadata_props}
    assert "rirf.network" in properties
    assert target.stat().st_size < 0.75 * source.stat().st_size or kind == "reasoner"


def test_power_spectra_stay_fp32(
    pipeline: Pipeline, samples: dict[str, list[Feeds]], tmp_path: Path
) -> None:
    # Crops of pure noise, as a night frame has them.
    (feeds, *_) = samples["reasoner"]
    random = np.random.default_rng(0)
    crops = random.integers(0, 2, feeds["crops"].shape).astype(np.float32)
    source = pipeline.bundle.path(pipeline.bundle.manifest.reasoner)
    result = to_fp16(source, tmp_path / "a.onnx", [{**feeds, "crops": crops}], threads=1)
    ranged = [island.operator for island in result.islands if island.reason == "range"]
    assert "Pow" in ranged, "the squared spectra come near fp16's largest number"
    assert "MatMul" in ranged, "and so does what the transform back reads"
    assert min(result.decibels.values()) >= TARGET_DB
