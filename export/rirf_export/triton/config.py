"""``config.pbtxt`` of the three models, written through Triton's own protobuf.

What is misspelt or of the wrong type fails here, not when the server starts. Knows tensor tables,
not graphs or folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rirf.bundle import Graph
from rirf.engine import TensorSpec
from rirf.errors import EngineError, require

__all__ = ["PIPELINE", "REASONER", "RESTORER", "graph_config", "pipeline_config"]

# Prefixed, because a repository may hold models of others.
REASONER, RESTORER, PIPELINE = "rirf_reasoner", "rirf_restorer", "rirf"
_DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
# The server's own words for "any size".
_ANY = -1
_FRAME = (_ANY, _ANY, 3)
_NO_BATCHES = """\
# Written by rirf export --triton. There is no max_batch_size, so the server forms no batches and
# dims are all of a tensor's axes: {why}.
"""


def _triton(module: str) -> Any:
    return require(module, "triton", "write a Triton model repository")


def _messages() -> Any:
    return _triton("tritonclient.grpc.model_config_pb2")


def _text(message: Any, why: str) -> str:
    text: str = _triton("google.protobuf.text_format").MessageToString(message)
    return _NO_BATCHES.format(why=why) + text


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    if spec.dtype not in _DTYPES:
        raise EngineError(
            f"tensor {spec.name} is {spec.dtype}; Triton is told of {', '.join(_DTYPES)}: export "
            "the bundle again"
        )
    dims = [_ANY if isinstance(axis, str) else axis for axis in spec.shape]
    return {"name": spec.name, "data_type": _DTYPES[spec.dtype], "dims": dims}


def _tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [_tensor(spec) for spec in specs]


def graph_config(name: str, graph: Graph, instances: int) -> str:
    """Text of ``config.pbtxt`` for one of a bundle's graphs, run by ONNX Runtime.

    Args:
        name: the model's name, which is its folder's.
        graph: whose tensor tables to write; a dynamic axis becomes -1.
        instances: how many run at a time, on every GPU there is, else on the CPU.

    Raises:
        EngineError: a tensor has a type that Triton has no name for.
        MissingExtraError: tritonclient is not installed.
    """
    messages = _messages()
    config = messages.ModelConfig(
        name=name,
        platform="onnxruntime_onnx",
        input=_tensors(graph.inputs),
        output=_tensors(graph.outputs),
        instance_group=[{"count": instances, "kind": "KIND_AUTO"}],
    )
    return _text(config, "the graph takes one frame at a time")


def pipeline_config(instances: int) -> str:
    """Text of ``config.pbtxt`` for the model that chains the two graphs.

    Args:
        instances: how many frames it works on at a time, each in a process of its own.

    Raises:
        MissingExtraError: tritonclient is not installed.
    """
    messages = _messages()
    config = messages.ModelConfig(
        name=PIPELINE,
        backend="python",
        input=[{"name": "frame", "data_type": "TYPE_UINT8", "dims": _FRAME}],
        output=[
            {"name": "restored", "data_type": "TYPE_UINT8", "dims": _FRAME},
            {"name": "diagnosis", "data_type": "TYPE_STRING", "dims": [1]},
        ],
        # The server runs the graphs wherever they are; this model only prepares and joins.
        instance_group=[{"count": instances, "kind": "KIND_CPU"}],
        parameters={
            "reasoner": {"string_value": REASONER},
            "restorer": {"string_value": RESTORER},
        },
    )
    return _text(config, "frames differ in size")
