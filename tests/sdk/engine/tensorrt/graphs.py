"""Graphs small enough to build in about a second, in each precision; needs onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 64
FRAME = [1, CHANNELS, "height", "width"]


def save(file: Path, nodes: list[Any], tensors: dict[str, NDArray[Any]] | None = None) -> Path:
    """One float32 input ``x`` and output ``y`` of shape (1, 64, height, width)."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, FRAME)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, FRAME)],
        [numpy_helper.from_array(value, name) for name, value in (tensors or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return file


def _weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.05, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)


def _convolution(x: str, w: str, y: str) -> Any:
    return helper.make_node("Conv", [x, w], [y], name="conv", pads=[1, 1, 1, 1])


def fp32(file: Path) -> Path:
    """A convolution in fp32."""
    return save(file, [_convolution("x", "w", "y")], {"w": _weights()})


def fp16(file: Path) -> Path:
    """The same in fp16, between two casts."""
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        _convolution("x16", "w", "y16"),
        helper.make_node("Cast", ["y16"], ["y"], to=TensorProto.FLOAT),
    ]
    return save(file, nodes, {"w": _weights().astype(np.float16)})


def int8(file: Path) -> Path:
    """The same with symmetric Q/DQ: per tensor before, per channel for the weights."""
    weights = _weights()
    scale = np.abs(weights).max((1, 2, 3)) / 127
    tensors: dict[str, NDArray[Any]] = {
        "w8": np.round(weights / scale[:, None, None, None]).astype(np.int8),
        "ws": scale.astype(np.float32),
        "wz": np.zeros(CHANNELS, np.int8),
        "xs": np.array(1 / 127, np.float32),
        "xz": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wq"], axis=0),
        _convolution("xq", "wq", "y"),
    ]
    return save(file, nodes, tensors)
