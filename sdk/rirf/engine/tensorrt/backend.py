"""Runs an engine of TensorRT or TensorRT-RTX on a GPU; see :class:`rirf.engine.base.Engine`.

One stream, buffers allocated once for the largest shapes, one CUDA graph for each shape in use.
Written against the documented API; it has not run on hardware yet. What can be decided without a
GPU is tested here, and the tests marked ``gpu`` compare it with ONNX Runtime where there is one.
Knows no bundle.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rirf.engine.base import TensorSpec, check_tensors
from rirf.engine.tensorrt.build import Profile, Progress, Shape
from rirf.engine.tensorrt.cache import load_or_build
from rirf.engine.tensorrt.device import CudaGraph, Device, find_gpu
from rirf.engine.tensorrt.library import DTYPES, Library, find_library, listener, said
from rirf.errors import EngineError

__all__ = ["SHAPES_KEPT", "TensorRTEngine", "buffer_sizes", "check_tensors"]

# Sets of input shapes kept ready at once; each holds the network's intermediate results. A camera
# has one size, whose tiles are of one or two.
SHAPES_KEPT = 4
_LOG = logging.getLogger(__name__)


def check_profiled(
    name: str,
    given: Mapping[str, NDArray[Any]],
    specs: Sequence[TensorSpec],
    limits: Mapping[str, Profile],
) -> None:
    """Refuse tensors that do not fit the graph, or shapes that the engine was not built for.

    Args:
        name, given, specs: see :func:`rirf.engine.base.check_tensors`.
        limits: smallest and largest shapes of dynamic tensors.

    Raises:
        EngineError: what was got, and what was expected.
    """
    check_tensors(name, given, specs)
    for tensor, limit in limits.items():
        if tensor not in given:
            continue
        shape = given[tensor].shape
        if not all(
            low <= size <= high
            for low, size, high in zip(limit.minimum, shape, limit.maximum, strict=True)
        ):
            raise EngineError(
                f"{name}: {tensor} is {shape}, the engine was built for {limit.minimum} to "
                f"{limit.maximum}; use smaller tiles, or build it with wider shapes"
            )


def buffer_sizes(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Bytes of each tensor at these shapes.

    Raises:
        EngineError: a shape is not known before the graph has run.
    """
    sizes = {}
    for spec in specs:
        shape = shapes[spec.name]
        if any(size < 0 for size in shape):
            raise EngineError(
                f"{spec.name} has shape {shape}, which depends on data; expected one that follows "
                "from the inputs' shapes: run this graph with ONNX Runtime"
            )
        sizes[spec.name] = math.prod(shape) * np.dtype(spec.dtype).itemsize
    return sizes


class _Prepared:
    """The engine made ready for one set of input shapes, which no later call changes again.

    A captured CUDA graph holds the execution context's state, so each set has a context of its own.
    """

    def __init__(self, context: Any, outputs: dict[str, Shape]) -> None:
        self.context = context
        self.outputs = outputs
        self.graph: CudaGraph | None = None


class TensorRTEngine:
    """An engine on a GPU. Threads take turns; each call waits for its result.

    Args:
        plan: a built engine, see :func:`rirf.engine.tensorrt.load_or_build`.
        library: the library that built it.
        name: for messages, e.g. the graph's file name.
        device: index of the GPU.

    Raises:
        MissingExtraError: pycuda is not installed.
        EngineError: no GPU, or the engine is of another library version or GPU.
    """

    def __init__(self, plan: bytes, library: Library, *, name: str, device: int = 0) -> None:
        self._name = name
        self._library = library
        self._lock = threading.Lock()
        self._prepared: OrderedDict[tuple[Shape, ...], _Prepared] = OrderedDict()
        self._gpu = Device(device, extra=library.flavour)
        with self._gpu.active():
            said(library)  # forget what earlier work has left
            # Kept: it must outlive what it loads.
            self._runtime = library.module.Runtime(listener(library))
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineError(
                    f"{name}: {library} cannot load the engine on {self._gpu.gpu.name} "
                    f"({self._gpu.gpu.architecture}): {said(library)}; build it again here"
                )
            self._inputs = self._table(library.module.TensorIOMode.INPUT)
            self._outputs = self._table(library.module.TensorIOMode.OUTPUT)
            self._limits = {
                spec.name: Profile(
                    *(tuple(shape) for shape in self._engine.get_tensor_profile_shape(spec.name, 0))
                )
                for spec in self._inputs
                if any(isinstance(axis, str) for axis in spec.shape)
            }
            self._allocate()

    @classmethod
    def from_onnx(
        cls,
        onnx_file: Path,
        profiles: Mapping[str, Profile],
        *,
        precision: Literal["fp32", "fp16", "int8"],
        library: Library | None = None,
        device: int = 0,
        cache: Path | None = None,
        rebuild: bool = True,
        multiple: int = 1,
        workspace: int | None = None,
        progress: Progress | None = None,
    ) -> TensorRTEngine:
        """Load the graph's engine from the cache, or build it first.

        Args:
            onnx_file, profiles, precision, cache, rebuild, multiple, workspace, progress: see
                :func:`rirf.engine.tensorrt.load_or_build`.
            library: the first that :func:`rirf.engine.tensorrt.find_library` finds when None.
            device: index of the GPU.

        Raises:
            MissingExtraError: pycuda, or both libraries, are not installed.
            EngineError: no GPU, or no engine can be loaded or built.
            OutputError: the cache cannot be written.
        """
        library = find_library() if library is None else library
        stored = load_or_build(
            onnx_file,
            library,
            profiles,
            precision=precision,
            gpu=find_gpu(device, extra=library.flavour),
            cache=cache,
            rebuild=rebuild,
            multiple=multiple,
            workspace=workspace,
            progress=progress,
        )
        return cls(stored.plan, library, name=onnx_file.name, device=device)

    def _table(self, mode: Any) -> tuple[TensorSpec, ...]:
        specs = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) != mode:
                continue
            kind = self._engine.get_tensor_dtype(name).name
            if kind not in DTYPES:
                raise EngineError(
                    f"{self._name}: tensor {name} has type {kind}, expected one of "
                    f"{', '.join(DTYPES.values())}; export the graph with such inputs and outputs"
                )
            shape = tuple("?" if n < 0 else n for n in self._engine.get_tensor_shape(name))
            specs.append(TensorSpec(name=name, shape=shape, dtype=DTYPES[kind]))
        return tuple(specs)

    def _allocate(self) -> None:
        """Buffers for the largest shapes; their addresses never change again."""
        largest = {
            spec.name: self._limits[spec.name].maximum
            if spec.name in self._limits
            else tuple(int(axis) for axis in spec.shape)
            for spec in self._inputs
        }
        shapes = largest | self._infer(self._context(), largest)
        sizes = buffer_sizes((*self._inputs, *self._outputs), shapes)
        self._memory = {name: self._gpu.allocate(max(1, size)) for name, size in sizes.items()}
        self._host = {name: self._gpu.allocate_host(max(1, size)) for name, size in sizes.items()}

    def _context(self) -> Any:
        if self._library.flavour == "tensorrt":
            context = self._engine.create_execution_context()
        else:
            # TensorRT-RTX captures by itself, once its kernels for a shape are compiled.
            config = self._engine.create_runtime_config()
            strategy = getattr(self._library.module, "CudaGraphStrategy", None)
            if strategy is not None:  # since 1.2
                config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        if context is None:
            raise EngineError(
                f"{self._name}: no execution context: {said(self._library)}; if memory is short, "
                "close other engines or build with narrower shapes"
            )
        return context

    def _infer(self, context: Any, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Tell the context its input shapes; the outputs' shapes that follow."""
        for name in self._limits:
            if not context.set_input_shape(name, inputs[name]):
                raise EngineError(
                    f"{self._name}: {name} {inputs[name]} was refused: {said(self._library)}; "
                    "build the engine again for this shape"
                )
        return {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in self._outputs}

    def _prepare(self, inputs: Mapping[str, Shape]) -> _Prepared:
        key = tuple(inputs[spec.name] for spec in self._inputs)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        while len(self._prepared) >= SHAPES_KEPT:
            self._forget()
        context = self._context()
        prepared = _Prepared(context, self._infer(context, inputs))
        for name, memory in self._memory.items():
            if not context.set_tensor_address(name, int(memory)):
                raise EngineError(f"{self._name}: {name}: {said(self._library)}; load it again")
        self._enqueue(context)  # lets the library set itself up, which a capture must not contain
        self._gpu.wait()
        if self._library.flavour == "tensorrt":
            try:
                prepared.graph = self._gpu.capture(lambda: self._enqueue(context))
            except EngineError as error:
                _LOG.warning("%s %s: running without a CUDA graph: %s", self._name, key, error)
        self._prepared[key] = prepared
        return prepared

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._gpu.stream):
            raise EngineError(
                f"{self._name}: inference failed: {said(self._library)}; load the engine again"
            )

    def _forget(self) -> None:
        """Drop the shapes used longest ago."""
        _, prepared = self._prepared.popitem(last=False)
        if prepared.graph is not None:
            prepared.graph.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs, in order; dynamic axes are called ``?``."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The engine's outputs, in order."""
        return self._outputs

    @property
    def device(self) -> str:
        """Library and GPU, e.g. ``TensorRT 10.3.0 on Orin (sm87)``."""
        gpu = self._gpu.gpu
        return f"{self._library} on {gpu.name} ({gpu.architecture})"

    def _view(self, name: str, shape: Shape, dtype: str) -> NDArray[Any]:
        """The start of a tensor's page-locked memory as an array."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._host[name][:size].view(dtype).reshape(shape)

    def _execute(
        self,
        inputs: Mapping[str, NDArray[Any]],
        give: Callable[[TensorSpec, Shape], NDArray[Any]],
    ) -> None:
        """Run; each output is copied into the array that ``give`` has for its shape."""
        check_profiled(self._name, inputs, self._inputs, self._limits)
        with self._lock, self._gpu.active():
            for spec in self._inputs:
                array = inputs[spec.name]
                host = self._view(spec.name, array.shape, spec.dtype)
                np.copyto(host, array)
                self._gpu.upload(self._memory[spec.name], host)
            prepared = self._prepare({name: array.shape for name, array in inputs.items()})
            targets = {spec.name: give(spec, prepared.outputs[spec.name]) for spec in self._outputs}
            if prepared.graph is None:
                self._enqueue(prepared.context)
            else:
                prepared.graph.launch()
            views = {
                spec.name: self._view(spec.name, prepared.outputs[spec.name], spec.dtype)
                for spec in self._outputs
            }
            for name, view in views.items():
                self._gpu.download(view, self._memory[name])
            self._gpu.wait()
            for name, view in views.items():
                np.copyto(targets[name], view)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns new arrays. See :meth:`rirf.engine.base.Engine.run`."""
        outputs: dict[str, NDArray[Any]] = {}

        def new(spec: TensorSpec, shape: Shape) -> NDArray[Any]:
            outputs[spec.name] = np.empty(shape, dtype=spec.dtype)
            return outputs[spec.name]

        self._execute(inputs, new)
        return outputs

    def run_into(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Run once into the caller's arrays. See :meth:`rirf.engine.base.Engine.run_into`."""
        check_profiled(self._name, outputs, self._outputs, {})

        def given(spec: TensorSpec, shape: Shape) -> NDArray[Any]:
            array = outputs[spec.name]
            if array.shape != shape:
                raise EngineError(
                    f"{self._name}: output {spec.name} is {array.shape}, expected {shape} for "
                    "these inputs"
                )
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise EngineError(f"{spec.name}: expected a writeable C-contiguous output array")
            return array

        self._execute(inputs, given)

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once and forget the outputs; prepares these shapes."""
        self.run(inputs)

    def close(self) -> None:
        """Release the engine and its GPU memory."""
        with self._lock:
            if self._engine is None:
                return
            with self._gpu.active():
                while self._prepared:
                    self._forget()
                self._memory.clear()
                self._host.clear()
                self._engine = self._runtime = None
            self._gpu.close()
