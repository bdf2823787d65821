from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rirf.errors import EngineError
from rirf_export.precision.measure import Comparison, Extremes, Runner, load_graph, tensor_types


def doubled() -> onnx.ModelProto:
    """y = relu(2 x), float32 (n,)."""
    shape = ["n"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        "doubled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@settings(deadline=None)  # a busy machine may take its time
@given(st.floats(1e-6, 1.0), st.integers(1, 4))
def test_decibels_of_a_relative_error(relative: float, count: int) -> None:
    comparison = Comparison()
    random = np.random.default_rng(count)
    for _ in range(count):
        value = random.normal(size=(3, 5))
        comparison.add({"y": value}, {"y": value * (1 + relative)})
    assert comparison.decibels["y"] == pytest.approx(-20 * math.log10(relative), abs=1e-4)


def test_samples_are_pooled() -> None:
    comparison = Comparison()
    comparison.add({"y": np.zeros(1)}, {"y": np.full(1, 0.1)})
    assert comparison.decibels["y"] == -math.inf
    comparison.add({"y": np.ones(1)}, {"y": np.ones(1)})
    assert comparison.decibels["y"] == pytest.approx(20.0)


def test_the_worst_output_is_named() -> None:
    comparison = Comparison()
    one = np.ones(4, np.float32)
    comparison.add({"a": one, "b": one, "c": one}, {"a": one, "b": 1.1 * one, "c": 1.01 * one})
    name, decibels = comparison.worst
    assert name == "b"
    assert decibels == pytest.approx(20.0, abs=1e-3)
    assert comparison.decibels["a"] == math.inf
    assert list(comparison.decibels) == ["a", "b", "c"]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_broken(broken: float) -> None:
    comparison = Comparison()
    comparison.add({"y": np.ones(2, np.float32)}, {"y": np.array([1, broken], np.float32)})
    comparison.add({"y": np.ones(2, np.float32)}, {"y": np.ones(2, np.float32)})
    assert comparison.decibels["y"] == -math.inf


def test_extremes_hold_every_sample(tmp_path: Path) -> None:
    onnx.save_model(doubled(), tmp_path / "doubled.onnx")
    graph = load_graph(tmp_path / "doubled.onnx")
    assert tensor_types(graph) == dict.fromkeys("xsy", TensorProto.FLOAT)
    extremes = Extremes(graph, ["x", "s", "y"], threads=1)
    for values in ([-1.0, 2.0], [0.5, -3.0, 1.0]):
        extremes.observe({"x": np.array(values, np.float32)})
    assert extremes.ranges == {"x": (-3.0, 2.0), "s": (-6.0, 4.0), "y": (0.0, 4.0)}
    assert extremes.observed == 2


def test_a_runner_gives_outputs_by_name() -> None:
    out = Runner(doubled(), threads=1).run({"x": np.array([-1, 3], np.float32)})
    np.testing.assert_array_equal(out["y"], [0.0, 6.0])


def test_what_is_no_graph_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(doubled().SerializeToString()[:40])
    for name in ("torn.onnx", "missing.onnx"):
        with pytest.raises(EngineError, match=f"{name}: expected an ONNX graph"):
            load_graph(tmp_path / name)
    with pytest.raises(EngineError, match="cannot load the graph"):
        Runner(onnx.ModelProto())
