"""``config.pbtxt`` against Triton's protobuf and the bundle's tensor tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from rirf.bundle import Bundle, Graph
from rirf.engine import TensorSpec
from rirf.errors import EngineError
from rirf_export.triton.config import PIPELINE, graph_config, pipeline_config
from tests.export.triton.server import numpy_type


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("kind", ["reasoner", "restorer"])
def test_a_graphs_tables_are_the_manifests(shipped: Path, kind: str) -> None:
    graph: Graph = getattr(Bundle.open(shipped).manifest, kind)
    config = parsed(graph_config("name", graph, 1))
    assert (config.name, config.platform) == ("name", "onnxruntime_onnx")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    for tables, specs in ((config.input, graph.inputs), (config.output, graph.outputs)):
        assert [table.name for table in tables] == [spec.name for spec in specs]
        for table, spec in zip(tables, specs, strict=True):
            assert numpy_type(table) == np.dtype(spec.dtype)
            expected = [-1 if isinstance(axis, str) else axis for axis in spec.shape]
            assert list(table.dims) == expected


def test_the_restorer_takes_any_size(shipped: Path) -> None:
    config = parsed(graph_config("x", Bundle.open(shipped).manifest.restorer, 1))
    dims = {table.name: list(table.dims) for table in (*config.input, *config.output)}
    assert dims["degraded"] == dims["update"] == [1, 3, -1, -1]
    assert dims["transmission"] == [1, 1, -1, -1]


def test_instances(shipped: Path) -> None:
    graph = Bundle.open(shipped).manifest.reasoner
    (group,) = parsed(graph_config("x", graph, 3)).instance_group
    assert (group.count, group.kind) == (3, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    (group,) = parsed(pipeline_config(2)).instance_group
    assert (group.count, group.kind) == (2, model_config_pb2.ModelInstanceGroup.KIND_CPU)


def test_the_pipeline_takes_frames() -> None:
    config = parsed(pipeline_config(1))
    assert (config.name, config.backend, config.platform) == (PIPELINE, "python", "")
    (frame,) = config.input
    assert (frame.name, list(frame.dims)) == ("frame", [-1, -1, 3])
    assert numpy_type(frame) == np.uint8
    restored, diagnosis = config.output
    assert list(restored.dims) == [-1, -1, 3]
    assert diagnosis.data_type == model_config_pb2.TYPE_STRING


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float16", "TYPE_FP16"),
        ("int64", "TYPE_INT64"),
        ("int32", "TYPE_INT32"),
        ("uint8", "TYPE_UINT8"),
        ("bool", "TYPE_BOOL"),
    ],
)
def test_types(shipped: Path, dtype: str, name: str) -> None:
    graph = Bundle.open(shipped).manifest.reasoner
    spec = TensorSpec(name="x", shape=(1, "n"), dtype=dtype)
    config = parsed(graph_config("x", graph.model_copy(update={"inputs": (spec,)}), 1))
    (table,) = config.input
    assert model_config_pb2.DataType.Name(table.data_type) == name
    assert numpy_type(table) == np.dtype(dtype)


def test_a_type_without_a_name_is_refused(shipped: Path) -> None:
    graph = Bundle.open(shipped).manifest.reasoner
    spec = TensorSpec(name="x", shape=(1,), dtype="float8_e4m3fn")
    with pytest.raises(EngineError, match="tensor x is float8_e4m3fn; Triton is told of float32"):
        graph_config("x", graph.model_copy(update={"outputs": (spec,)}), 1)


def test_a_comment_says_why_there_is_no_batching(shipped: Path) -> None:
    text = graph_config("x", Bundle.open(shipped).manifest.reasoner, 1)
    assert text.startswith("# Written by rirf export --triton. There is no max_batch_size")
    assert "the graph takes one frame at a time" in text


def test_the_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "tritonclient.py").write_text("raise ImportError('not here')\n")
    code = (
        "from rirf.errors import MissingExtraError\n"
        "from rirf_export.triton.config import pipeline_config\n"
        "try: pipeline_config(1)\n"
        "except MissingExtraError as error: print(error)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'rirf[triton]'" in done.stdout
