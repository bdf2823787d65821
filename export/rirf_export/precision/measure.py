"""Running graphs, ranges of tensors, signal-to-error of outputs. Knows no precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rirf.errors import EngineError, require
from rirf_export.precision.feeds import Feeds

__all__ = ["Comparison", "Extremes", "Runner", "decibels", "load_graph", "tensor_types"]


class Comparison:
    """Signal over error of every output, pooled over all samples.

    Pooled, because one sample's signal may be next to nothing (the presence of effects in a clean
    frame), and an error that harms nobody would then look like a broken output.
    """

    def __init__(self) -> None:
        self._signal: dict[str, float] = {}
        self._error: dict[str, float] = {}

    def add(self, reference: Mapping[str, NDArray[Any]], value: Mapping[str, NDArray[Any]]) -> None:
        """Count one sample; outputs are matched by name and keep the reference's order."""
        for name, expected in reference.items():
            wanted = expected.astype(np.float64)
            # What is infinite or no number at all is an infinite error, not a warning.
            with np.errstate(invalid="ignore", over="ignore"):
                error = float(np.sum((value[name].astype(np.float64) - wanted) ** 2))
            if not math.isfinite(error):
                error = math.inf
            self._signal[name] = self._signal.get(name, 0.0) + float(np.sum(wanted**2))
            self._error[name] = self._error.get(name, 0.0) + error

    @property
    def shares(self) -> dict[str, float]:
        """Error power over signal power of each output: 0 is equal, infinite is broken."""
        return {name: self._share(name) for name in self._error}

    def _share(self, name: str) -> float:
        error, signal = self._error[name], self._signal[name]
        if signal > 0.0:
            return error / signal
        return math.inf if error else 0.0

    @property
    def decibels(self) -> dict[str, float]:
        """Signal to error of each output in dB: infinite is equal, minus infinite is broken."""
        return {name: decibels(share) for name, share in self.shares.items()}

    @property
    def worst(self) -> tuple[str, float]:
        """Name and dB of the output that fares worst."""
        found = self.decibels
        name = min(found, key=lambda each: found[each])
        return name, found[name]


def decibels(share: float) -> float:
    """-10 log10 of an error share, with infinities at both ends."""
    if share == 0.0:
        return math.inf
    return -10.0 * math.log10(share) if math.isfinite(share) else -math.inf


def load_graph(source: Path) -> onnx.ModelProto:
    """Read an ONNX file and make the type of every tensor known.

    Raises:
        EngineError: it cannot be read, or its tensors cannot be typed.
    """
    try:
        return onnx.shape_inference.infer_shapes(onnx.load(source), strict_mode=True)
    except Exception as error:  # onnx and protobuf raise their own types, and OSError
        raise EngineError(
            f"{source}: expected an ONNX graph as rirf export writes it, got {error}"
        ) from error


def tensor_types(graph: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor of a typed graph, initializers included."""
    body = graph.graph
    values = (*body.value_info, *body.input, *body.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in body.initializer}


class Runner:
    """A graph, in memory or a file, on ONNX Runtime's CPU provider.

    Args:
        graph: what to run.
        threads: inside an operator; ONNX Runtime's choice when None.

    Raises:
        EngineError: it cannot be loaded.
    """

    def __init__(self, graph: onnx.ModelProto | Path, threads: int | None = None) -> None:
        runtime: Any = require("onnxruntime", "cpu", "measure what a precision costs")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings are not the user's business
        if threads is not None:
            options.intra_op_num_threads = threads
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        try:
            self._session = runtime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime raises many undocumented types here
            raise EngineError(f"ONNX Runtime cannot load the graph: {error}") from error
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        return dict(zip(self._names, self._session.run(None, dict(feeds)), strict=True))


class Extremes:
    """Smallest and largest value of tensors inside a graph, over all samples observed.

    Args:
        graph: the graph, typed as :func:`load_graph` gives it.
        tensors: names of float32 tensors that it computes or is given.
        threads: as for :class:`Runner`.
    """

    def __init__(
        self, graph: onnx.ModelProto, tensors: Sequence[str], threads: int | None = None
    ) -> None:
        self.observed = 0
        self.ranges: dict[str, tuple[float, float]] = {}
        self._tensors = tuple(tensors)
        watched = onnx.ModelProto()
        watched.CopyFrom(graph)
        body = watched.graph
        del body.output[:]
        for number, name in enumerate(self._tensors):
            for operator, out in (("ReduceMin", f"low/{number}"), ("ReduceMax", f"high/{number}")):
                body.node.append(helper.make_node(operator, [name], [out], keepdims=0))
                body.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, []))
        self._runner = Runner(watched, threads)

    def observe(self, feeds: Feeds) -> None:
        """Widen the ranges by what one run computes."""
        found = self._runner.run(feeds)
        self.observed += 1
        for number, name in enumerate(self._tensors):
            low, high = float(found[f"low/{number}"]), float(found[f"high/{number}"])
            before = self.ranges.get(name, (low, high))
            self.ranges[name] = (min(low, before[0]), max(high, before[1]))
