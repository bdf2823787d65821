"""fp32 graph to INT8: convolutions between Q/DQ nodes, ranges measured on real frames and kept.

The settings are those TensorRT builds from and ONNX Runtime runs: signed, symmetric, weights by
output channel (one scale for each of a depthwise convolution's kernels), biases in fp32. Ranges are
the extremes seen: on the shipped pair, clipping at a percentile gained nothing.
Calibrate once, rebuild anywhere: ranges are a file that belongs to one graph.
Knows no bundle and no engine but the CPU's.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tqdm import tqdm

from rirf.errors import EngineError, require
from rirf.files import write_atomic
from rirf.pipeline import Pipeline
from rirf_export.precision.feeds import Feeds, record
from rirf_export.precision.measure import Comparison, Extremes, Runner, load_graph, tensor_types

__all__ = [
    "OPERATORS",
    "CalibrationRanges",
    "Calibrator",
    "Int8Result",
    "Sensitivity",
    "calibrate",
    "sensitivity",
    "to_int8",
]

# The operators whose inputs, weights and outputs are quantised.
OPERATORS = ("Conv",)
_SCHEMA_VERSION = 1


class CalibrationRanges(BaseModel):
    """Value ranges of the tensors around the quantised layers of one fp32 graph.

    Attributes:
        graph_sha256: SHA-256 of the ONNX file they were measured on.
        runs: how many runs of the graph they were measured over.
        ranges: smallest and largest value of each tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    graph_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    runs: Annotated[int, Field(gt=0)]
    ranges: dict[str, tuple[float, float]]

    @model_validator(mode="after")
    def _ordered(self) -> CalibrationRanges:
        for name, (low, high) in self.ranges.items():
            if low > high:
                raise ValueError(f"{name}: got {low} to {high}, expected the smaller value first")
        return self

    def write(self, file: Path) -> None:
        """Write as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        write_atomic(file, (self.model_dump_json(indent=2) + "\n").encode())

    @classmethod
    def read(cls, file: Path) -> CalibrationRanges:
        """Read what :meth:`write` wrote.

        Raises:
            EngineError: missing, damaged, or of another schema version.
        """
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, ValidationError) as error:
            raise EngineError(
                f"{file}: expected calibration ranges of schema {_SCHEMA_VERSION} as rirf export "
                f"writes them, got {error}; calibrate again"
            ) from error

    def check(self, source: Path) -> None:
        """Refuse ranges of another graph.

        Raises:
            EngineError: ``source`` is not the file these were measured on.
        """
        got = _digest(source)
        if got != self.graph_sha256:
            raise EngineError(
                f"{source}: its SHA-256 is {got[:16]}..., the calibration ranges are for "
                f"{self.graph_sha256[:16]}...: calibrate this graph, or take the one they are for"
            )


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer alone costs.

    Attributes:
        layer, operator: name of the node, and its ONNX operator.
        output: the graph's output that suffers most.
        decibels: its signal to error against fp32, pooled over the samples.
    """

    layer: str
    operator: str
    output: str
    decibels: float


@dataclass(frozen=True)
class Int8Result:
    """A quantised graph.

    Attributes:
        layers: names of the quantised nodes, in the graph's order.
        kept: names of those that were kept in floating point.
        decibels: signal to error of each output against fp32, pooled over the samples, as ONNX
            Runtime's integer kernels compute it.
    """

    layers: tuple[str, ...]
    kept: tuple[str, ...]
    decibels: dict[str, float]


class Calibrator:
    """Collects the ranges of one graph, run by run.

    Args:
        source: the fp32 ONNX file.
        threads: for the runs; ONNX Runtime's choice when None.

    Raises:
        EngineError: no graph, or one without layers to quantise.
    """

    def __init__(self, source: Path, threads: int | None = None) -> None:
        graph = load_graph(source)
        self._digest = _digest(source)
        self._extremes = Extremes(graph, _tensors(graph, source), threads)

    def observe(self, feeds: Feeds) -> None:
        """Widen the ranges by one run."""
        self._extremes.observe(feeds)

    def ranges(self) -> CalibrationRanges:
        """The ranges so far.

        Raises:
            EngineError: nothing was observed, or the graph computed something infinite.
        """
        if not self._extremes.observed:
            raise EngineError("got no frame to calibrate on; expected at least one")
        try:
            return CalibrationRanges(
                graph_sha256=self._digest,
                runs=self._extremes.observed,
                ranges=self._extremes.ranges,
            )
        except ValidationError as error:
            raise EngineError(
                f"the graph computes values that are not finite: {error}; check the checkpoint"
            ) from error


def calibrate(
    pipeline: Pipeline, frames: Iterable[NDArray[np.uint8]], *, threads: int | None = None
) -> dict[str, CalibrationRanges]:
    """Ranges of both networks of an fp32 bundle, by ``reasoner`` and ``restorer``.

    Args:
        pipeline: the loaded bundle, whose files are measured.
        frames: degraded frames, uint8 BGR (H, W, 3); a few dozen serve.
        threads: for the runs; ONNX Runtime's choice when None.

    Raises:
        EngineError: no frames, or a graph without layers to quantise.
    """
    manifest = pipeline.bundle.manifest
    calibrators = {
        kind: Calibrator(pipeline.bundle.path(graph), threads)
        for kind, graph in (("reasoner", manifest.reasoner), ("restorer", manifest.restorer))
    }
    for recording in record(pipeline, frames):
        for kind, calibrator in calibrators.items():
            for feeds in recording.of(kind):
                calibrator.observe(feeds)
    return {kind: calibrator.ranges() for kind, calibrator in calibrators.items()}


def sensitivity(
    source: Path,
    ranges: CalibrationRanges,
    samples: Sequence[Feeds],
    *,
    threads: int | None = None,
    progress: bool = False,
) -> tuple[Sensitivity, ...]:
    """One row a layer, the most sensitive first: the outputs' error when it alone is quantised.

    Raises:
        EngineError: no sample, or ranges of another graph.
    """
    graph = _checked(source, ranges, samples)
    exact = [Runner(graph, threads).run(feeds) for feeds in samples]
    rows = []
    for node in tqdm(_layers(graph), desc="sensitivity", disable=None if progress else True):
        runner = Runner(_quantised(graph, ranges, [node.name]), threads)
        comparison = Comparison()
        for feeds, expected in zip(samples, exact, strict=True):
            comparison.add(expected, runner.run(feeds))
        output, decibels = comparison.worst
        rows.append(Sensitivity(node.name, node.op_type, output, decibels))
    return tuple(sorted(rows, key=lambda row: row.decibels))


def to_int8(
    source: Path,
    target: Path,
    ranges: CalibrationRanges,
    samples: Sequence[Feeds],
    *,
    keep: Sequence[Sensitivity] = (),
    threads: int | None = None,
) -> Int8Result:
    """Write the INT8 graph of an fp32 graph.

    Args:
        source: the fp32 ONNX file.
        target: where the quantised one goes; tensor tables stay as they are.
        ranges: of this very file.
        samples: real inputs to measure the result on, at least one.
        keep: layers to leave in fp32, rows of :func:`sensitivity`: ``report[:n]`` for the worst n.
        threads: for the measurement; ONNX Runtime's choice when None.

    Raises:
        EngineError: ranges of another graph, no sample, an unknown layer, or none left to quantise.
        OutputError: ``target`` cannot be written.
    """
    graph = _checked(source, ranges, samples)
    every = [node.name for node in _layers(graph)]
    kept = {row.layer for row in keep}
    if unknown := sorted(kept - set(every)):
        raise EngineError(f"{source} has no layer {', '.join(unknown)}; it has {', '.join(every)}")
    layers = tuple(name for name in every if name not in kept)
    if not layers:
        raise EngineError(
            f"{source}: all {len(every)} layers are kept in fp32, expected one or more to quantise"
        )
    quantised = _quantised(graph, ranges, layers)
    write_atomic(target, quantised.SerializeToString())
    exact, integer = Runner(graph, threads), Runner(quantised, threads)
    comparison = Comparison()
    for feeds in samples:
        comparison.add(exact.run(feeds), integer.run(feeds))
    return Int8Result(
        layers=layers,
        kept=tuple(name for name in every if name in kept),
        decibels=comparison.decibels,
    )


def _digest(source: Path) -> str:
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"{source}: cannot be read ({error}); expected an ONNX file") from error


def _checked(source: Path, ranges: CalibrationRanges, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """The graph, once it and the ranges are known to belong together."""
    if not samples:
        raise EngineError("got no sample; expected at least one recorded frame to measure INT8 on")
    ranges.check(source)
    graph = load_graph(source)
    if missing := sorted(set(_tensors(graph, source)) - set(ranges.ranges)):
        raise EngineError(
            f"the calibration ranges lack {', '.join(missing)}; the file was changed, calibrate "
            "again"
        )
    return graph


def _layers(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type in OPERATORS]


def _tensors(graph: onnx.ModelProto, source: Path) -> list[str]:
    """What flows into and out of the layers, each once, in the graph's order."""
    layers = _layers(graph)
    names = [node.name for node in layers]
    if not layers or len(set(names)) < len(names) or "" in names:
        raise EngineError(
            f"{source}: expected {' or '.join(OPERATORS)} nodes, each with a name of its own, got "
            f"{len(layers)} such nodes; export the checkpoint again"
        )
    constants = {tensor.name for tensor in graph.graph.initializer}
    types = tensor_types(graph)
    return list(
        dict.fromkeys(
            name
            for node in layers
            for name in (*node.input, *node.output)
            if types.get(name) == TensorProto.FLOAT and name not in constants
        )
    )


def _quantised(
    graph: onnx.ModelProto, ranges: CalibrationRanges, layers: Sequence[str]
) -> onnx.ModelProto:
    """The graph with Q/DQ around these layers."""
    quantization: Any = require("onnxruntime.quantization", "cpu", "quantise a network")
    calibration: Any = require("onnxruntime.quantization.calibrate", "cpu", "quantise a network")
    qdq: Any = require("onnxruntime.quantization.qdq_quantizer", "cpu", "quantise a network")
    bounds = {
        name: (np.array(low, dtype=np.float32), np.array(high, dtype=np.float32))
        for name, (low, high) in ranges.ranges.items()
    }
    signed = quantization.QuantType.QInt8
    with _quiet():
        quantizer = qdq.QDQQuantizer(
            copy.deepcopy(graph),
            per_channel=True,
            reduce_range=False,
            weight_qType=signed,
            activation_qType=signed,
            tensors_range=calibration.TensorsData(quantization.CalibrationMethod.MinMax, bounds),
            nodes_to_quantize=list(layers),
            nodes_to_exclude=[],
            op_types_to_quantize=list(OPERATORS),
            # ONNX Runtime's defaults, int32 biases and zero points, are refused by TensorRT.
            extra_options={"QuantizeBias": False, "ActivationSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # new nodes stand at the end
    quantised: onnx.ModelProto = quantizer.model.model
    # Types known before belong to tensors that may be gone.
    del quantised.graph.value_info[:]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer tells the root logger what it leaves alone; that is not the user's business."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
