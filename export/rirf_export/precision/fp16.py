"""fp32 graph to mixed fp16: fp32 islands where measurement asks for them, inputs and outputs fp32.

Three things make a node an island: it sums over many values (engines differ in what they sum in,
so no measurement here speaks for all of them), its values come near fp16's largest number, or
rounding at that node costs the outputs too much. The last is measured: every rounding in the graph
sits behind a switch, and switches are turned on in groups, halved until the guilty nodes are found.

ONNX Runtime's CPU provider computes fp16 graphs in fp32 without rounding anything, so an fp16 graph
run there proves nothing. :func:`rounding_twin` is the graph to run instead.

The converters of ONNX Runtime and onnxconverter-common write invalid graphs where two islands read
one tensor, and NVIDIA's ModelOpt ties onnx and torch to other versions; hence the one here.
Knows no bundle and no engine but the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tqdm import tqdm

from rirf.errors import EngineError
from rirf.files import write_atomic
from rirf_export.precision.feeds import Feeds
from rirf_export.precision.measure import (
    Comparison,
    Extremes,
    Runner,
    decibels,
    load_graph,
    tensor_types,
)

__all__ = ["HEADROOM", "TARGET_DB", "Fp16Result", "Island", "rounding_twin", "to_fp16"]

# Signal to error that islands are chosen for, on every output and with the roundings alone; a real
# engine adds its own order of summation.
TARGET_DB = 50.0
# A tensor stays fp32 when its peak on the samples, times this, is beyond fp16's largest number.
HEADROOM = 16.0
_LARGEST = 65504.0
# Groups that cost less than this share of the budget are not looked into.
_NEGLIGIBLE = 0.01
# Samples that the search looks at; what it finds must hold on all of them.
_SEARCH_SAMPLES = 2
# Of these the sum's precision is the engine's choice.
_SUMMING = frozenset(
    {
        "CumSum",
        "GlobalAveragePool",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
    }
)
# These move values and compute nothing.
_MOVING = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
# Inputs that ONNX defines as float32 whatever the others are.
_FLOAT_INPUTS = {"Resize": (1, 2)}


@dataclass(frozen=True)
class Island:
    """A node that stays fp32, and why.

    Attributes:
        node, operator: its name and ONNX operator.
        reason: ``sums``, ``range``, ``error``, or ``between`` (it only moves values between
            islands).
        decibels: for ``error``, signal to error of the worst output when this node alone (or the
            group of next to harmless nodes it was measured with) is rounded.
        peak: for ``range``, the largest magnitude seen.
    """

    node: str
    operator: str
    reason: Literal["sums", "range", "error", "between"]
    decibels: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Fp16Result:
    """A mixed graph.

    Attributes:
        islands: the nodes that stay fp32, in the graph's order.
        nodes: number of nodes that compute on floating-point tensors.
        decibels: signal to error of each output against fp32, pooled over the samples, with every
            rounding the written graph asks for.
    """

    islands: tuple[Island, ...]
    nodes: int
    decibels: dict[str, float]


def to_fp16(
    source: Path,
    target: Path,
    samples: Sequence[Feeds],
    *,
    threads: int | None = None,
    progress: bool = False,
) -> Fp16Result:
    """Write the mixed fp16 graph of an fp32 graph.

    Args:
        source: the fp32 ONNX file.
        target: where the mixed one goes; metadata and tensor tables stay as they are.
        samples: real inputs, see :func:`rirf_export.precision.feeds.record`; at least one.
        threads: for the measurement; ONNX Runtime's choice when None.
        progress: show a progress bar.

    Raises:
        EngineError: no sample, or a graph this cannot convert.
        OutputError: ``target`` cannot be written.
    """
    if not samples:
        raise EngineError("got no sample; expected at least one recorded frame to choose fp16 by")
    graph = load_graph(source)
    _refuse_control_flow(graph, source)
    floating = _floating(graph)
    islands = _fixed(graph, floating, samples, threads)
    rest = [index for index in floating if index not in islands]
    with tqdm(desc="fp16 islands", unit="run", disable=None if progress else True) as bar:
        search = _Search(graph, rest, samples, threads, bar.update)
        for index, share in search.guilty().items():
            node = graph.graph.node[index]
            islands[index] = Island(node.name, node.op_type, "error", decibels=decibels(share))
    _join(graph, floating, islands)
    mixed = _mixed(graph, {*islands, *(set(range(len(graph.graph.node))) - set(floating))})
    write_atomic(target, mixed.SerializeToString())
    exact, rounded = Runner(source, threads), Runner(_twin(mixed), threads)
    comparison = Comparison()
    for feeds in samples:
        comparison.add(exact.run(feeds), rounded.run(feeds))
    return Fp16Result(
        islands=tuple(islands[index] for index in sorted(islands)),
        nodes=len(floating),
        decibels=comparison.decibels,
    )


def rounding_twin(source: Path, target: Path) -> None:
    """Write the fp32 graph that computes what a mixed fp16 graph says, rounding for rounding.

    Every fp16 tensor is rounded to fp16 where it is made, sums inside a node are fp32, as on
    tensor cores. It runs wherever fp32 does, and is for measuring alone: it is slower.

    Raises:
        EngineError: ``source`` cannot be read.
        OutputError: ``target`` cannot be written.
    """
    write_atomic(target, _twin(load_graph(source)).SerializeToString())


def _refuse_control_flow(graph: onnx.ModelProto, source: Path) -> None:
    for node in graph.graph.node:
        kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        if any(attribute.type in kinds for attribute in node.attribute):
            raise EngineError(
                f"{source}: {node.name} ({node.op_type}) holds a graph of its own; expected none, "
                "export the network without branches and loops"
            )


def _floating(graph: onnx.ModelProto) -> list[int]:
    """Nodes that take floating-point tensors, but for Cast, whose types are its own."""
    types = tensor_types(graph)
    return [
        index
        for index, node in enumerate(graph.graph.node)
        if node.op_type != "Cast" and any(types.get(x) == TensorProto.FLOAT for x in node.input)
    ]


def _fixed(
    graph: onnx.ModelProto, floating: Sequence[int], samples: Sequence[Feeds], threads: int | None
) -> dict[int, Island]:
    """Islands that need no search: sums, and nodes whose values come near the largest number."""
    peaks = _peaks(graph, samples, threads)
    islands: dict[int, Island] = {}
    for index in floating:
        node = graph.graph.node[index]
        peak = max(peaks.get(name, 0.0) for name in (*node.input, *node.output))
        if node.op_type in _SUMMING:
            islands[index] = Island(node.name, node.op_type, "sums")
        elif not peak * HEADROOM <= _LARGEST:
            islands[index] = Island(node.name, node.op_type, "range", peak=peak)
    return islands


def _peaks(
    graph: onnx.ModelProto, samples: Sequence[Feeds], threads: int | None
) -> dict[str, float]:
    """Largest magnitude of every float tensor, weights included, over the samples."""
    weights = {tensor.name: tensor for tensor in graph.graph.initializer if _is_float(tensor)}
    peaks = {
        name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        for name, tensor in weights.items()
    }
    types = tensor_types(graph).items()
    tensors = [name for name, kind in types if kind == TensorProto.FLOAT and name not in weights]
    extremes = Extremes(graph, tensors, threads)
    for feeds in samples:
        extremes.observe(feeds)
    for name, (low, high) in extremes.ranges.items():
        peaks[name] = max(abs(low), abs(high))
    return peaks


class _Search:
    """Finds the nodes whose roundings cost the outputs too much.

    Errors are taken to add up, which holds while they are small; the choice is measured as a whole
    in the end and extended until it holds.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        nodes: Sequence[int],
        samples: Sequence[Feeds],
        threads: int | None,
        advance: Callable[[], object],
    ) -> None:
        self._nodes = list(nodes)
        self._place = {index: place for place, index in enumerate(self._nodes)}
        self._samples = list(samples)
        self._runner = Runner(_switched(graph, self._nodes), threads)
        self._advance = advance
        self._exact = [self._run(feeds, ()) for feeds in self._samples]
        self._budget = 10.0 ** (-TARGET_DB / 10.0)

    def _run(self, feeds: Feeds, rounded: Collection[int]) -> dict[str, NDArray[Any]]:
        switches = np.zeros(len(self._nodes), dtype=np.bool_)
        switches[[self._place[index] for index in rounded]] = True
        return self._runner.run({**feeds, _SWITCHES: switches})

    def _share(self, rounded: Collection[int], samples: int | None = None) -> float:
        """Error over signal of the worst output when these nodes are rounded."""
        self._advance()
        comparison = Comparison()
        for feeds, exact in zip(self._samples[:samples], self._exact[:samples], strict=True):
            comparison.add(exact, self._run(feeds, rounded))
        return max(comparison.shares.values())

    def _groups(self, nodes: list[int]) -> list[tuple[float, list[int]]]:
        share = self._share(nodes, _SEARCH_SAMPLES)
        if len(nodes) == 1 or share <= _NEGLIGIBLE * self._budget:
            return [(share, nodes)]
        middle = len(nodes) // 2
        return self._groups(nodes[:middle]) + self._groups(nodes[middle:])

    def guilty(self) -> dict[int, float]:
        """The nodes to keep in fp32, each with the error share measured for it."""
        if not self._nodes or self._share(self._nodes) <= self._budget:
            return {}
        # The least harmful first: as many as the budget holds stay fp16.
        groups = sorted(self._groups(self._nodes), key=lambda group: group[0])
        spent = np.cumsum([share for share, _ in groups])
        kept = int(np.searchsorted(spent, self._budget, side="right"))
        while kept and self._share([i for _, nodes in groups[:kept] for i in nodes]) > self._budget:
            kept -= 1
        return {index: share for share, nodes in groups[kept:] for index in nodes}


_SWITCHES = "switches"


def _switched(graph: onnx.ModelProto, nodes: Sequence[int]) -> onnx.ModelProto:
    """The fp32 graph with one more input, bool (len(nodes),): which of the nodes work in fp16.

    A node that does has its float inputs, weights included, and its outputs rounded.
    """
    switched = onnx.ModelProto()
    switched.CopyFrom(graph)
    body = switched.graph
    types = tensor_types(graph)
    place = {index: number for number, index in enumerate(nodes)}
    written: list[onnx.NodeProto] = []

    def gate(switch: str, name: str, out: str) -> None:
        written.extend(_round(name, f"{out}/rounded"))
        written.append(helper.make_node("Where", [switch, f"{out}/rounded", name], [out]))

    for index, original in enumerate(graph.graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if index not in place:
            written.append(node)
            continue
        number = place[index]
        switch = f"switch/{number}"
        at = numpy_helper.from_array(np.array(number, dtype=np.int64), f"{switch}/at")
        body.initializer.append(at)
        written.append(helper.make_node("Gather", [_SWITCHES, at.name], [switch]))
        for position, name in enumerate(original.input):
            fixed = position in _FLOAT_INPUTS.get(node.op_type, ())
            if types.get(name) == TensorProto.FLOAT and not fixed:
                node.input[position] = f"{name}/into/{number}/{position}"
                gate(switch, name, node.input[position])
        written.append(node)
        for position, name in enumerate(original.output):
            if types.get(name) == TensorProto.FLOAT:
                node.output[position] = f"{name}/exact"
                gate(switch, node.output[position], name)
    del body.node[:], body.value_info[:]
    body.node.extend(written)
    body.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(nodes)]))
    return switched


def _round(name: str, out: str) -> list[onnx.NodeProto]:
    """Nodes that round a float32 tensor to the nearest fp16 number."""
    return [
        helper.make_node("Cast", [name], [f"{out}/half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{out}/half"], [out], to=TensorProto.FLOAT),
    ]


def _join(graph: onnx.ModelProto, floating: Sequence[int], islands: dict[int, Island]) -> None:
    """Make nodes that only move values between islands islands too: it saves two casts each."""
    types = tensor_types(graph)
    body = graph.graph
    maker = {name: index for index, node in enumerate(body.node) for name in node.output}
    results = {value.name for value in body.output}
    readers: dict[str, list[int]] = {}
    for index in floating:
        for name in body.node[index].input:
            readers.setdefault(name, []).append(index)
    half = {index for index in floating if index not in islands}

    def touches_fp16(index: int) -> bool:
        node = body.node[index]
        made = (maker[name] for name in node.input if name in maker)
        read = (reader for name in node.output for reader in readers.get(name, ()))
        return any(other in half for other in (*made, *read))

    changed = True
    while changed:
        changed = False
        for index in sorted(half):
            node = body.node[index]
            inner = types.get(node.output[0]) == TensorProto.FLOAT and node.output[0] not in results
            if node.op_type in _MOVING and inner and not touches_fp16(index):
                half.discard(index)
                islands[index] = Island(node.name, node.op_type, "between")
                changed = True


def _mixed(graph: onnx.ModelProto, single: Collection[int]) -> onnx.ModelProto:
    """The graph with every node in fp16 but the ``single`` ones, cast in between where needed."""
    types = tensor_types(graph)
    body = graph.graph
    weights = {tensor.name: tensor for tensor in body.initializer if _is_float(tensor)}
    results = {value.name for value in body.output}
    kept = [tensor for tensor in body.initializer if not _is_float(tensor)]
    written: list[onnx.NodeProto] = []
    held: dict[str, int] = {value.name: TensorProto.FLOAT for value in body.input}
    # Names of tensors in a type they were not made in.
    other: dict[tuple[str, int], str] = {}

    def cast(name: str, out: str, kind: int) -> None:
        written.append(helper.make_node("Cast", [name], [out], name=f"cast/{out}", to=kind))

    def available(name: str, kind: int) -> str:
        """Name of the tensor in the wanted type."""
        if (name, kind) in other:
            return other[name, kind]
        if name not in weights and held[name] == kind:
            return name
        out = f"{name}/{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}"
        if name in weights:
            array = numpy_helper.to_array(weights[name])
            if kind == TensorProto.FLOAT:
                out = name
            else:
                array = array.astype(np.float16)
            kept.append(numpy_helper.from_array(array, out))
        else:
            cast(name, out, kind)
        other[name, kind] = out
        return out

    for index, original in enumerate(body.node):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        kind = TensorProto.FLOAT if index in single else TensorProto.FLOAT16
        for position, name in enumerate(original.input):
            if types.get(name) == TensorProto.FLOAT:
                fixed = position in _FLOAT_INPUTS.get(node.op_type, ())
                node.input[position] = available(name, TensorProto.FLOAT if fixed else kind)
        written.append(node)
        for position, name in enumerate(original.output):
            if types.get(name) != TensorProto.FLOAT:
                continue
            held[name] = kind
            if name in results and kind == TensorProto.FLOAT16:
                # The graph's outputs keep their names and their type.
                node.output[position] = other[name, kind] = f"{name}/fp16"
                cast(node.output[position], name, TensorProto.FLOAT)
                held[name] = TensorProto.FLOAT
    return _rebuilt(graph, written, kept)


def _is_float(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT)


def _twin(graph: onnx.ModelProto) -> onnx.ModelProto:
    """See :func:`rounding_twin`."""
    types = tensor_types(graph)
    written: list[onnx.NodeProto] = []
    for original in graph.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type == "Cast":
            kinds = types[node.input[0]], types[node.output[0]]
            if kinds == (TensorProto.FLOAT, TensorProto.FLOAT16):
                written.extend(_round(node.input[0], node.output[0]))
                continue
            if kinds == (TensorProto.FLOAT16, TensorProto.FLOAT):
                # What it casts holds fp16 numbers already.
                written.append(helper.make_node("Identity", node.input, node.output))
                continue
        written.append(node)
        for position, name in enumerate(original.output):
            if types.get(name) == TensorProto.FLOAT16:
                node.output[position] = f"{name}/exact"
                written.extend(_round(node.output[position], name))
    tensors = []
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        widened = array.astype(np.float32) if array.dtype == np.float16 else array
        tensors.append(numpy_helper.from_array(widened, tensor.name))
    return _rebuilt(graph, written, tensors)


def _rebuilt(
    graph: onnx.ModelProto, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """The graph with other nodes and initializers, its types inferred anew and checked."""
    built = onnx.ModelProto()
    built.CopyFrom(graph)
    body = built.graph
    del body.node[:], body.initializer[:], body.value_info[:]
    body.node.extend(nodes)
    body.initializer.extend(tensors)
    try:
        built = onnx.shape_inference.infer_shapes(built, strict_mode=True)
        onnx.checker.check_model(built, full_check=True)
    except Exception as error:  # onnx raises types of its own
        raise EngineError(
            f"the graph cannot be written in mixed precision: {error}; keep it in fp32"
        ) from error
    return built
